/* The widget in the page: what waits in the queue, what is in conflict, push and pull.

The kernel holds the truth: lists come from it by messages, a page of rows at a time, and every ask has an id and an
answer.  Whatever comes from rows, names or errors reaches the page as text, never as markup, and nothing here asks
anything of a network.  In order: words, values, asks, the list, the two panels, the header, the view. */

const ROWS_PER_PAGE = 100;
const PAGES_AROUND = 6; // kept on either side of the page in sight
const ROWS_AROUND = 6; // drawn above and below what is in sight
const ROWS_AHEAD = 30; // fetched before they come in sight
const ASK_FIRST_OVER = 20;
const STATUS_LINES = 4;
const NARROW_PX = 640;
const GONE = "The kernel is gone: run this cell again";
const BUSY = "The kernel is busy";
const SILENT = "No answer yet: the kernel is busy, or was restarted (then run this cell again)";
const LOST = " has left this list: it was sent, settled or discarded elsewhere. Choose another row.";
const READS = new Set(["hello", "pending", "conflicts", "cell"]); // harmless to ask twice
const STATIC = "[data-syncframe-static]";
const KINDS = { insert: "+", update: "~", delete: "\u2212" };

// ---- elements and words

function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  return fill(node, ...children);
}

function fill(node, ...children) {
  node.replaceChildren(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function span(name, ...children) {
  return element("span", { class: `sf-${name}` }, ...children);
}

function grow() {
  return span("grow");
}

/** A button that is pressed once: while its act goes on, more presses do nothing. */
function button(name, words, act, properties = {}) {
  const node = element("button", { type: "button", class: "sf-button", "data-syncframe": name, ...properties }, words);
  node.addEventListener("click", async (event) => {
    if (node.ariaBusy === "true") return;
    node.ariaBusy = "true";
    try {
      await act(event);
    } finally {
      node.ariaBusy = null;
    }
  });
  return node;
}

function smallButton(name, words, act, properties = {}) {
  return button(name, words, act, { class: "sf-button sf-small", ...properties });
}

function chooser(label, options, change) {
  const nodes = options.map(([value, words]) => element("option", { value }, words));
  return element("select", { class: "sf-select", "aria-label": label, on: { change } }, nodes);
}

function table(label, heads, rows) {
  const head = element("tr", {}, heads.map((words) => element("th", { scope: "col" }, words)));
  const caption = element("caption", { class: "sf-hidden" }, label);
  return element("table", {}, caption, element("thead", {}, head), element("tbody", {}, rows));
}

function count(number) {
  return Number(number).toLocaleString("en-US");
}

function many(number, one) {
  return `${count(number)} ${one}${number === 1 ? "" : "s"}`;
}

function sum(tables, ...names) {
  return tables.reduce((total, one) => names.reduce((part, name) => part + (one[name] ?? 0), total), 0);
}

/** A time of today as hours, another one of this year without the year. */
function clock(iso) {
  const time = new Date(iso);
  if (!iso || Number.isNaN(time.getTime())) return "never";
  const two = (number) => String(number).padStart(2, "0");
  const hours = `${two(time.getHours())}:${two(time.getMinutes())}`;
  const now = new Date();
  if (time.toDateString() === now.toDateString()) return `${hours}:${two(time.getSeconds())}`;
  const year = time.getFullYear() === now.getFullYear() ? "" : `${time.getFullYear()}-`;
  return `${year}${two(time.getMonth() + 1)}-${two(time.getDate())} ${hours}`;
}

function focusedIn(place) {
  const focused = place.getRootNode().activeElement;
  return focused && place.contains(focused) ? focused : null;
}

/** Asks in the widget itself, one question at a time; Escape is no, and so is another question. */
function askFirst(place, question, yes) {
  return new Promise((resolve) => {
    const back = place.getRootNode().activeElement;
    place.answer?.(false);
    const answer = (place.answer = (value) => {
      if (focusedIn(place)) back?.focus();
      fill(place);
      resolve(value);
    });
    const no = button("no", "No, leave them", () => answer(false));
    const keydown = (event) => event.key === "Escape" && answer(false);
    const buttons = [button("yes", yes, () => answer(true), { class: "sf-button sf-danger" }), no];
    const properties = { class: "sf-ask", role: "alertdialog", "aria-label": question, on: { keydown } };
    fill(place, element("div", properties, span("grow", question), buttons));
    no.focus();
  });
}

// ---- values

// Characters that cannot be seen, or that turn the order of others, and blanks at the ends: each is shown by a sign.
// The joiner inside an emoji is seen, and left alone.
const JOINED = "(?<=\\p{Extended_Pictographic}[\\ufe0f\\u{1f3fb}-\\u{1f3ff}]?)\\u200d\\p{Extended_Pictographic}";
const BLANKS = "\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000\\u115f\\u1160\\u2800\\u3164\\uffa0";
const HIDDEN = `(?!${JOINED})[\\p{Cc}\\p{Cf}\\p{Co}\\p{Cs}\\p{Zl}\\p{Zp}${BLANKS}]`;
const INSIDE = new RegExp(HIDDEN, "gu");
const ANYWHERE = new RegExp(`^ +| +$|${HIDDEN}`, "gu");
const SIGNS = { "\n": "\u23ce", "\t": "\u21e5", "\r": "\u240d", " ": "\u00b7" };

function sign(character) {
  return SIGNS[character] ?? `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** A text for names, labels and options: hidden characters are spelled out, `kept` ones stay. */
function spell(text, kept = "") {
  return String(text).replace(INSIDE, (found) => (kept.includes(found) ? found : `\u27e8${sign(found)}\u27e9`));
}

function name(text) {
  return element("bdi", { title: spell(text) }, spell(text));
}

/** The parts of a text, with a sign in the place of each character that cannot be seen. */
function visible(text, hidden = ANYWHERE) {
  const parts = [];
  let last = 0;
  for (const found of text.matchAll(hidden)) {
    parts.push(text.slice(last, found.index), span("sign", [...found[0]].map(sign).join("")));
    last = found.index + found[0].length;
  }
  return [...parts, text.slice(last)];
}

/** Marks what differs from `other`, where two longer texts share half or more: elsewhere marks are only noise. */
function marked(text, other) {
  const [one, two] = [[...text], [...other]];
  let [start, end] = [0, 0];
  while (start < one.length && one[start] === two[start]) start += 1;
  const most = Math.min(one.length, two.length) - start;
  while (end < most && one.at(-1 - end) === two.at(-1 - end)) end += 1;
  if (one.length < 8 || start + end < one.length / 2 || start + end === one.length) return visible(text);
  const piece = (from, to) => visible(one.slice(from, to).join(""), INSIDE);
  const middle = element("mark", {}, piece(start, one.length - end));
  return [...piece(0, start), middle, ...piece(one.length - end, one.length)];
}

function chip(words, title) {
  return element("span", { class: "sf-chip", title }, words);
}

function isLong(value) {
  return value !== null && typeof value === "object";
}

/** A cell's value as a node: NULL, empty text and blanks are told apart from texts that read the same. */
function shown(value, other = null) {
  if (value === null || value === undefined) return chip("NULL", "no value");
  const text = isLong(value) ? value.text : String(value);
  if (text === "") return chip("empty text", "a text without characters");
  if (/^ +$/.test(text)) return chip(many(text.length, "blank"), "a text of blanks only");
  if (isLong(value)) return element("bdi", {}, visible(text), span("cut", ` \u2026 ${count(value.chars)} characters`));
  return element("bdi", {}, other === null || isLong(other) ? visible(text) : marked(text, other));
}

/** A value with, where it was cut, a button that brings the whole of it. */
function readable(panel, value, other, where) {
  if (!isLong(value)) return shown(value, other);
  const label = `Show all of ${where.side} ${spell(where.column)}, ${count(value.chars)} characters`;
  const read = () => panel.read(where);
  const more = smallButton(`whole ${where.side} ${where.column}`, "Show all", read, { "aria-label": label });
  return [shown(value, other), " ", more];
}

// ---- asks to the kernel

/** Asks and their answers.  `tell` hears what a person should know of the kernel: "" while it answers. */
class Kernel {
  #open = new Map();
  #tag = Math.random().toString(36).slice(2);
  #asks = 0;
  #timer = null;
  #isGone = false;

  constructor(model, signal, tell) {
    Object.assign(this, { model, tell });
    hear(model, "msg:custom", (message) => this.#answer(message), signal);
    hear(model, "comm_live_update", () => this.#lose(), signal);
    signal.addEventListener("abort", () => clearInterval(this.#timer));
  }

  ask(what, args) {
    return new Promise((resolve, reject) => {
      this.#asks += 1;
      const message = { t: "ask", id: `${this.#tag}-${this.#asks}`, what, args };
      const now = performance.now();
      this.#open.set(message.id, { message, resolve, reject, since: now, again: now + 1000, wait: 1000 });
      if (this.#isGone) return this.#refuse();
      this.#send(message);
      this.#timer ??= setInterval(() => this.#watch(), 500);
    });
  }

  // The comm was lost with its kernel.  The model that anywidget hands out does not say whether it lives, so one more
  // hello is sent: should it be answered, the kernel is there after all.
  #lose() {
    this.#isGone = this.model.comm_live !== true;
    if (!this.#isGone) return this.#watch();
    this.#refuse();
    this.#send({ t: "ask", id: `${this.#tag}-probe`, what: "hello", args: {} });
  }

  // What was asked of a kernel that is gone will never be answered.
  #refuse() {
    this.tell(GONE);
    for (const { reject } of this.#open.values()) reject({ type: "KernelGone", message: GONE });
    this.#open.clear();
  }

  #send(message) {
    try {
      this.model.send(message);
    } catch {
      // A closed comm may throw: what was not sent is not answered, and is told as such.
    }
  }

  #answer(message) {
    this.#isGone = false;
    const open = message?.t === "answer" && this.#open.get(message.id);
    this.#open.delete(message?.id);
    this.#watch();
    if (!open) return;
    if (message.ok) open.resolve(message.data);
    else open.reject(message.error);
  }

  // Answers that come while anywidget still starts are lost, so what only reads is asked again, ever more rarely.
  #watch() {
    const now = performance.now();
    let longest = 0;
    for (const open of this.#open.values()) {
      longest = Math.max(longest, now - open.since);
      if (!READS.has(open.message.what) || now < open.again) continue;
      open.wait = Math.min(open.wait * 2, 60000);
      open.again = now + open.wait;
      this.#send(open.message);
    }
    if (!this.#isGone) this.tell(longest > 30000 ? SILENT : longest > 2000 ? BUSY : "");
    if (this.#open.size) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}

function hear(model, event, listener, signal) {
  model.on(event, listener);
  signal.addEventListener("abort", () => model.off(event, listener));
}

// ---- a list of which only the rows in sight are in the page

/** The rows of a panel, which says how to `load` a page, `drawRow`, `choose` a row (null: none) and `press` a key. */
class RowList {
  rev = 0;
  total = null; // not known yet
  leaving = null; // the row that an act in this view takes from the list
  #pages = new Map();
  #drawn = new Map();
  #round = 0;
  #active = -1;
  #activeId = null;
  #isFetching = false;
  #timer = null;

  constructor(panel, id, label, rowHeight, signal) {
    Object.assign(this, { panel, id, rowHeight });
    this.space = element("div", { class: "sf-space", role: "presentation" });
    const on = { keydown: (event) => this.#onKey(event), click: (event) => this.#onClick(event) };
    const properties = { class: "sf-list", role: "grid", tabindex: 0, "aria-label": label, hidden: "", on };
    this.box = element("div", properties, this.space);
    this.box.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    this.none = element("p", { class: "sf-none" }, "Loading \u2026");
    this.node = element("div", { class: "sf-listing" }, this.box, this.none);
    const observer = new ResizeObserver(() => this.total !== null && this.#see());
    observer.observe(this.box);
    signal.addEventListener("abort", () => (observer.disconnect(), clearTimeout(this.#timer)));
  }

  get activeRow() {
    const row = this.#row(this.#active);
    return row && row.id === this.#activeId ? row : null;
  }

  /** The chosen row went, and not by an act in this view: another has its place. */
  get isLost() {
    return this.#activeId !== null && Boolean(this.#row(this.#active)) && !this.activeRow;
  }

  focus() {
    if (this.box.hidden) this.panel.tables.focus();
    else this.box.focus();
  }

  setRowHeight(height) {
    if (this.rowHeight === height) return;
    const top = (this.box.scrollTop / this.rowHeight) * height;
    this.rowHeight = height;
    this.#size();
    this.box.scrollTop = top;
    for (const [index, { node }] of this.#drawn) this.#put(node, index);
    this.#see();
  }

  /** Starts anew, as for another filter. */
  reset() {
    this.#pages = new Map();
    this.#isFetching = false;
    this.#active = this.panel.firstActive;
    this.#activeId = null;
    this.total = null;
    this.box.scrollTop = 0;
    this.refresh();
  }

  /** Reads again what is in sight; the old rows stay until the new ones are there. */
  refresh() {
    this.#round += 1;
    const [first, last] = this.#pagesInSight();
    for (const page of this.#pages.keys()) if (page < first || page > last) this.#pages.delete(page);
    this.#fetch();
  }

  #row(index) {
    return this.#pages.get(Math.floor(index / ROWS_PER_PAGE))?.rows[index % ROWS_PER_PAGE];
  }

  #sight(around = 0) {
    const [top, height] = [this.box.scrollTop, this.box.clientHeight];
    if (!height) return [0, 0];
    const first = Math.floor(top / this.rowHeight) - around;
    const last = Math.ceil((top + height) / this.rowHeight) + around;
    return [Math.max(0, first), Math.min(this.total ?? 0, last)];
  }

  #pagesInSight(around) {
    const [first, last] = this.#sight(around);
    return [Math.floor(first / ROWS_PER_PAGE), Math.floor(Math.max(first, last - 1) / ROWS_PER_PAGE)];
  }

  #missingPage() {
    for (const around of [0, ROWS_AHEAD]) {
      const [first, last] = this.#pagesInSight(around);
      for (let page = first; page <= last; page += 1) if (this.#pages.get(page)?.round !== this.#round) return page;
    }
    return null;
  }

  // One page at a time: when its answer comes, places scrolled past meanwhile are out of sight and never asked for.
  async #fetch() {
    if (this.#isFetching) return;
    this.#isFetching = true;
    const pages = this.#pages;
    for (let page = this.#missingPage(); page !== null; page = this.#missingPage()) {
      const isThere = await this.#fetchPage(page, pages, this.#round);
      if (pages !== this.#pages) return; // reset meanwhile: another fetch is on its way
      if (!isThere) break;
    }
    this.#isFetching = false;
  }

  async #fetchPage(page, pages, round) {
    const data = await this.panel.load(page * ROWS_PER_PAGE, ROWS_PER_PAGE);
    if (!data || pages !== this.#pages) return false;
    pages.set(page, { rows: data.rows, round });
    for (const other of pages.keys()) if (Math.abs(other - page) > PAGES_AROUND) pages.delete(other);
    [this.total, this.rev] = [data.total, data.rev];
    this.#size();
    this.#keepActive();
    this.#paint();
    this.panel.loaded(this.total);
    if (this.#active < 0 || this.#row(this.#active)) this.panel.choose(this.activeRow, this.isLost);
    return true;
  }

  // The chosen row stays the same row when others above it go.  When it goes by an act in this view, the next one is
  // chosen; when it goes otherwise none is, so that no key and no button meets a row that nobody has looked at.
  #keepActive() {
    if (!this.total) this.#activeId = null;
    if (this.#active < 0) this.#active = Math.min(this.panel.firstActive, this.total - 1);
    const row = this.#row(this.#active);
    if (!row || row.id === this.#activeId) return;
    const found = this.#activeId === null ? null : this.#find(this.#activeId);
    if (found !== null) this.#active = found;
    else if (this.#activeId === null || this.#activeId === this.leaving) this.#activeId = row.id;
  }

  #find(id) {
    for (const [page, { rows }] of this.#pages) {
      const index = rows.findIndex((row) => row.id === id);
      if (index >= 0) return page * ROWS_PER_PAGE + index;
    }
    return null;
  }

  #size() {
    const total = this.total ?? 0;
    this.#active = Math.min(this.#active, total - 1);
    this.space.style.height = `${total * this.rowHeight}px`;
    this.box.style.setProperty("--rows", `${total * this.rowHeight + 2}px`); // a short list takes no blank space
    this.box.setAttribute("aria-rowcount", total);
    const hadFocus = focusedIn(this.box);
    this.box.hidden = total === 0;
    this.none.hidden = total !== 0;
    this.none.textContent = this.panel.noneWords();
    if (hadFocus && this.box.hidden) this.focus();
  }

  #see() {
    this.#paint();
    this.#fetch();
  }

  // Who reads on wants the next page now; who drags the bar wants only the place where they stop.
  #onScroll() {
    this.#paint();
    clearTimeout(this.#timer);
    const [first, last] = this.#sight();
    if (this.#row(first) || this.#row(last - 1)) this.#fetch();
    else this.#timer = setTimeout(() => this.#fetch(), 60);
  }

  #paint() {
    const hadFocus = focusedIn(this.space);
    const [first, last] = this.#sight(ROWS_AROUND);
    for (const [index, { node }] of this.#drawn) if (index < first || index >= last) this.#drop(index, node);
    for (let index = first; index < last; index += 1) this.#paintRow(index);
    const active = this.isLost ? null : this.#drawn.get(this.#active);
    if (active) this.box.setAttribute("aria-activedescendant", active.node.id);
    else this.box.removeAttribute("aria-activedescendant");
    if (hadFocus && !focusedIn(this.space)) this.box.focus({ preventScroll: true });
  }

  #drop(index, node) {
    node.remove();
    this.#drawn.delete(index);
  }

  #paintRow(index) {
    const drawn = this.#drawn.get(index) ?? this.#newRow(index);
    drawn.node.setAttribute("aria-selected", index === this.#active && !this.isLost);
    const row = this.#row(index);
    // Drawn again only if it differs: a button must not be changed for another between mouse down and up.
    const text = JSON.stringify(row ?? null);
    if (drawn.text === text) return;
    drawn.text = text;
    fill(drawn.node, row ? this.panel.drawRow(row) : rowCell("wait", "\u2026"));
  }

  #newRow(index) {
    const properties = { class: "sf-row", role: "row", id: `${this.id}-${index}`, "aria-rowindex": index + 1 };
    const drawn = { node: element("div", { ...properties, "data-index": index }), text: null };
    this.#put(drawn.node, index);
    this.#drawn.set(index, drawn);
    this.space.append(drawn.node);
    return drawn;
  }

  #put(node, index) {
    node.style.transform = `translateY(${index * this.rowHeight}px)`;
    node.style.height = `${this.rowHeight}px`;
  }

  go(index) {
    if (!this.total) return;
    this.#active = Math.max(0, Math.min(this.total - 1, index));
    this.#activeId = this.#row(this.#active)?.id ?? null;
    const top = this.#active * this.rowHeight;
    const lowest = top + this.rowHeight - this.box.clientHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (lowest > this.box.scrollTop) this.box.scrollTop = lowest;
    this.#see();
    this.panel.choose(this.activeRow);
  }

  leaveRow() {
    [this.#active, this.#activeId] = [-1, null];
    this.#paint();
    this.panel.choose(null);
    this.focus();
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.box) return;
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.rowHeight));
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step) this.go(this.#active + step - (this.isLost && step > 0 ? 1 : 0));
    // A key held down moves, and acts once: what comes next has not been looked at.
    if (step || event.repeat || this.panel.press(event.key)) event.preventDefault();
  }

  #onClick(event) {
    const node = event.target.closest(".sf-row");
    if (node && !event.target.closest("button")) this.go(Number(node.dataset.index));
  }
}

// ---- the panels: a list, and the chosen row of it in full

function rowCell(place, ...children) {
  return element("span", { class: `sf-cell sf-cell-${place}`, role: "gridcell" }, ...children);
}

function kindMark(kind) {
  return span(`kind sf-${kind}`, element("span", { "aria-hidden": "true" }, `${KINDS[kind]} `), kind);
}

function rowName(row) {
  return element("strong", { class: "sf-name" }, name(row.table), " \u00b7 ", name(row.key));
}

function columnHead(column, type, ...notes) {
  return element("th", { scope: "row" }, name(column), " ", element("small", {}, spell(type)), notes);
}

class Panel {
  firstActive = -1;
  row = null; // the one shown in full: what acts go to
  #drawn = "";

  constructor(desk, id, label, rowHeight, signal) {
    this.desk = desk;
    this.list = new RowList(this, id, label, rowHeight, signal);
    this.tables = chooser("Table", [["", "All tables"]], () => this.filter());
    this.counted = span("quiet");
    [this.question, this.reader] = [element("div"), element("div")];
    const keydown = (event) => this.pressInDetail(event);
    const properties = { class: "sf-detail", "aria-label": "The chosen row", hidden: "", on: { keydown } };
    this.detail = element("section", properties);
  }

  get shown() {
    return { table: this.tables.value || null };
  }

  // A question about all shown is of what was shown.
  filter() {
    this.question.answer?.(false);
    this.list.reset();
  }

  fillTables(tables) {
    const names = ["", ...tables.map((one) => one.name)];
    if (JSON.stringify(names) === JSON.stringify([...this.tables.options].map((option) => option.value))) return;
    const chosen = this.tables.value;
    fill(this.tables, names.map((one) => element("option", { value: one }, one ? spell(one) : "All tables")));
    this.tables.value = names.includes(chosen) ? chosen : "";
  }

  loaded(total) {
    this.counted.textContent = `${count(total)} shown`;
    for (const act of this.bulk) act.ariaDisabled = String(!total);
  }

  /** Shows a row in full; who had the focus there finds it on the button of the same name. */
  choose(row, isLost = false) {
    const text = JSON.stringify([row, isLost]);
    if (text === this.#drawn) return;
    this.#drawn = text;
    const focused = focusedIn(this.detail);
    const lost = isLost && this.row && element("p", { role: "status" }, rowName(this.row), LOST);
    this.row = row;
    this.detail.hidden = !row && !lost;
    fill(this.reader);
    fill(this.detail, row ? [...this.drawDetail(row), this.reader] : lost);
    if (!focused) return;
    const isSame = (one) => one.dataset.syncframe === focused.dataset.syncframe;
    ([...this.detail.querySelectorAll("button")].find(isSame) ?? this.list).focus();
  }

  /** Does something to the row shown, and to no other; the second click of a double one would meet the next row. */
  async toRow(event, row, what, args) {
    if (!row || event?.detail > 1) return;
    this.list.leaving = row.id;
    const data = await this.desk.act(what, args);
    if (!data?.rows && !data?.settled) this.list.leaving = null;
  }

  /** Shows the whole of a long value below the row it is of. */
  async read(where) {
    const data = await this.desk.ask("cell", where);
    if (!data || this.row?.id !== where.id) return;
    const text = data.value ?? "NULL";
    const cut = data.chars > [...text].length ? ", cut here" : "";
    const words = `${spell(where.column)}, ${where.side}: ${many(data.chars ?? text.length, "character")}${cut}`;
    const closed = () => (fill(this.reader), this.list.focus());
    const close = smallButton("close-whole", "Close", closed, { "aria-label": "Close the whole value" });
    const properties = { class: "sf-whole", role: "region", tabindex: 0, "aria-label": words };
    // One node of text, however many hidden characters there are: a million spans would stop the page.
    const whole = element("div", properties, spell(text, "\n\t"));
    fill(this.reader, element("div", { class: "sf-tools" }, element("strong", {}, words), grow(), close), whole);
    whole.focus();
  }

  press(key) {
    if (key !== "Enter" || !this.row) return false;
    this.detail.querySelector("button").focus();
    return true;
  }

  pressInDetail(event) {
    if (event.key === "Escape") this.list.focus();
  }

  /** Does something to all that is shown, and to nothing that came after it was. */
  async toAll(what, args, question, yes) {
    const { total, rev } = this.list;
    const shownNow = this.shown;
    if (!total) return this.desk.say("Nothing is shown.");
    const words = `${question}? "Undo last" takes it back.`;
    if (total > ASK_FIRST_OVER && !(await askFirst(this.question, words, yes))) return;
    await this.desk.act(what, { ...args, shown: shownNow, rev });
  }
}

class Pending extends Panel {
  constructor(desk, id, signal) {
    super(desk, id, "Pending operations", 30, signal);
    const kinds = [["", "All kinds"], ["insert", "Inserts"], ["update", "Updates"], ["delete", "Deletes"]];
    const states = [["rejected", "Rejected"], ["attempted", "Sent, no answer"]];
    this.kinds = chooser("Kind", [...kinds, ...states], () => this.filter());
    this.bulk = [button("discard-all", "Discard all shown", () => this.#discardShown())];
    const tools = element("div", { class: "sf-tools" }, this.tables, this.kinds, this.counted, grow(), this.bulk);
    this.nodes = [tools, this.question, this.list.node, this.detail];
  }

  get shown() {
    return { ...super.shown, kind: this.kinds.value || null };
  }

  load(offset, limit) {
    return this.desk.ask("pending", { ...this.shown, offset, limit });
  }

  noneWords() {
    const { table: chosen, kind } = this.shown;
    if (chosen || kind) return "No operation is of this table and kind.";
    return "Nothing is pending: what you stage shows here.";
  }

  drawRow(row) {
    const changes = row.cells.map((change) => changeNode(row.kind, change));
    return [
      rowCell("kind", kindMark(row.kind)),
      rowCell("table", name(row.table)),
      rowCell("key", name(row.key)),
      rowCell("changes", stateMark(row), changes, row.more > 0 && span("quiet", `${count(row.more)} more`)),
      rowCell("time", element("time", { datetime: row.staged_at, title: row.staged_at }, clock(row.staged_at))),
      // For the mouse: the keyboard has Delete, and the same buttons in the chosen row.
      rowCell("acts", this.#acts(row, { tabindex: -1 })),
    ];
  }

  #acts(row, properties = {}) {
    const act = (what, words) => {
      const label = `${words} ${spell(row.table)} ${spell(row.key)}`;
      return smallButton(what, words, (event) => this.#act(what, row, event), { "aria-label": label, ...properties });
    };
    return [row.state === "rejected" && act("retry", "Retry"), act("discard", "Discard")];
  }

  #act(what, row, event) {
    return this.toRow(event, row, what, { ids: [row.id], ...(what === "discard" && { rev: this.list.rev }) });
  }

  #discardShown() {
    const { total } = this.list;
    const question = `Discard ${many(total, "operation")} and go back to the rows as last pulled`;
    return this.toAll("discard", {}, question, `Discard ${count(total)}`);
  }

  press(key) {
    if (this.row && key === "Delete") this.#act("discard", this.row);
    else if (!this.detail.hidden && key === "Escape") this.list.leaveRow();
    else return super.press(key);
    return true;
  }

  drawDetail(row) {
    const close = smallButton("close", "Close", () => this.list.leaveRow());
    const time = span("quiet", `staged ${clock(row.staged_at)}`);
    const parts = [kindMark(row.kind), rowName(row), time, grow(), this.#acts(row), close];
    const head = element("div", { class: "sf-tools" }, parts);
    const lines = row.cells.map((change) => this.#cellLine(row, change));
    const cells = table(`Cells of ${spell(row.table)} ${spell(row.key)}`, ["Column", "Old", "New"], lines);
    const more = row.more > 0 && element("p", { class: "sf-quiet" }, `${many(row.more, "more column")}`);
    return [head, stateWords(row), cells, more];
  }

  #cellLine({ id, kind }, [column, type, base, local]) {
    const side = (one, value, other, isThere) => {
      const where = { of: "pending", id, column, side: one };
      return element("td", {}, isThere ? readable(this, value, other, where) : span("quiet", "\u2014"));
    };
    const old = side("base", base, null, kind !== "insert");
    return element("tr", {}, columnHead(column, type), old, side("local", local, base, kind !== "delete"));
  }
}

function changeNode(kind, [column, , base, local]) {
  const old = kind !== "insert" && element("del", {}, shown(base));
  const now = kind !== "delete" && element("ins", {}, shown(local, base));
  return span("change", span("column", name(column)), " ", old, kind === "update" && " \u2192 ", now);
}

function reason(error) {
  return spell(error?.message || error?.code || "no reason was given", "\n");
}

function stateMark({ state, error, attempted }) {
  if (state === "conflict") return span("state sf-bad", "! in conflict");
  if (state === "rejected") {
    const column = error?.column && [name(error.column), ": "];
    return span("state sf-bad", element("strong", {}, "\u2715 rejected: "), column, reason(error));
  }
  return attempted && span("state sf-warn", "sent, no answer");
}

function stateWords({ state, error, attempted }) {
  const words = (mood, ...children) => element("p", { class: `sf-words sf-${mood}` }, ...children);
  if (state === "conflict") return words("bad", "In conflict: it waits to be settled under Conflicts.");
  if (state === "rejected") {
    const head = element("strong", {}, `Rejected by the back end${error?.code ? ` (${spell(error.code)})` : ""}`);
    const column = error?.column && [", column ", span("code", name(error.column))];
    return words("bad", head, column, ": ", element("bdi", {}, reason(error)));
  }
  return attempted && words("warn", "Sent, and the answer was lost: the next push asks again; nothing is done twice.");
}

// What happened, on which side, by the kinds of mine and theirs.
const CONFLICTS = {
  "edit/edit": { brief: "", words: "Both sides changed this row.", mine: "", theirs: "" },
  "edit/delete": {
    brief: "you edited, they deleted",
    words: "You edited this row; in the back end it was deleted.",
    mine: " (the edited row)",
    theirs: " (deleted)",
  },
  "delete/edit": {
    brief: "you deleted, they edited",
    words: "You deleted this row; in the back end it was edited.",
    mine: " (deleted)",
    theirs: " (the edited row)",
  },
  "insert/insert": {
    brief: "both inserted",
    words: "Both sides inserted a row with this key.",
    mine: " (my row)",
    theirs: " (their row)",
  },
};
const SIDES = { mine: "Keep mine", theirs: "Take theirs" };

class Conflicts extends Panel {
  firstActive = 0;

  constructor(desk, id, signal) {
    super(desk, id, "Conflicts", 46, signal);
    this.bulk = Object.keys(SIDES).map((side) => {
      return button(`all-${side}`, `${SIDES[side]}: all shown`, () => this.#settleShown(side));
    });
    const keys = span("quiet sf-keys", "\u2191\u2193 move \u00b7 M mine \u00b7 T theirs \u00b7 U undo");
    const tools = element("div", { class: "sf-tools" }, this.tables, this.counted, keys, grow(), this.bulk);
    this.nodes = [tools, this.question, element("div", { class: "sf-split" }, this.list.node, this.detail)];
  }

  load(offset, limit) {
    return this.desk.ask("conflicts", { ...this.shown, offset, limit });
  }

  noneWords() {
    return this.shown.table ? "No conflicts in this table." : "No conflicts.";
  }

  drawRow(row) {
    const clashes = row.cells.filter((change) => change[5]).map((change) => spell(change[0]));
    const what = CONFLICTS[row.kind]?.brief || clashes.join(", ") || "in different columns";
    const mark = element("span", { class: "sf-bad", "aria-hidden": "true" }, "!");
    const names = [rowCell("key", name(row.key)), rowCell("table", name(row.table))];
    return [rowCell("mark", mark), names, rowCell("what", what)];
  }

  drawDetail(row) {
    const kind = CONFLICTS[row.kind] ?? CONFLICTS["edit/edit"];
    const settle = (side) => button(side, `${SIDES[side]}${kind[side]}`, (event) => this.#settle(side, event));
    const head = element("div", { class: "sf-tools" }, rowName(row), grow(), settle("mine"), settle("theirs"));
    const heads = ["Column", "Base (last pull)", "Mine", "Theirs (back end)"];
    const lines = row.cells.map((change) => this.#cellLine(row, change));
    const cells = table(`Conflict on ${spell(row.key)} in ${spell(row.table)}`, heads, lines);
    const region = { class: "sf-scroll", role: "region", tabindex: 0, "aria-label": "Base, mine and theirs" };
    const more = row.more > 0 && element("p", { class: "sf-quiet" }, many(row.more, "more differing column"));
    const isApart = row.kind === "edit/edit" && !row.more && !row.cells.some((change) => change[5]);
    const words = isApart ? `${kind.words} In different columns: "Keep mine" keeps both changes.` : kind.words;
    return [head, element("p", { class: "sf-words" }, words), element("div", region, cells), more];
  }

  #cellLine(row, [column, type, base, mine, theirs, isClash]) {
    const [here, there] = row.kind.split("/");
    const side = (one, value, other, absent) => {
      const where = { of: "conflicts", id: row.id, column, side: one };
      return element("td", {}, absent ? chip(absent) : readable(this, value, other, where));
    };
    const note = span("verdict", verdict(row.kind, base, mine, theirs, isClash));
    return element(
      "tr",
      { class: isClash && "sf-clash" },
      columnHead(column, type, note),
      side("base", base, null, here === "insert" && "not there"),
      side("mine", mine, base, here === "delete" && "row deleted"),
      side("theirs", theirs, base, there === "delete" && "row deleted"),
    );
  }

  #settle(side, event) {
    const { row } = this;
    return this.toRow(event, row, "settle", { side, rows: [[row?.id, row?.version]], rev: this.list.rev });
  }

  #settleShown(side) {
    const { total } = this.list;
    const act = `${SIDES[side]} in`;
    return this.toAll("settle", { side }, `${act} ${many(total, "conflict")}`, `${act} ${count(total)}`);
  }

  press(key) {
    const acts = { m: () => this.#settle("mine"), t: () => this.#settle("theirs"), u: () => this.desk.undo() };
    const act = acts[key.toLowerCase()];
    act?.();
    return Boolean(act) || super.press(key);
  }

  pressInDetail(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (/^[mtu]$/i.test(event.key)) this.press(event.key);
    else super.pressInDetail(event);
  }
}

function verdict(kind, base, mine, theirs, isClash) {
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  if (isClash) return "\u2260 both changed it";
  if (kind !== "edit/edit") return "";
  if (same(mine, theirs)) return "the same on both sides";
  return same(base, theirs) ? "only you changed it" : "only they changed it";
}

// ---- the header

class Head {
  constructor(desk) {
    this.desk = desk;
    this.where = span("where");
    this.pill = element("span", { "data-syncframe": "online" });
    this.note = element("span", { class: "sf-note", role: "status", "data-syncframe": "kernel" });
    this.undo = button("undo", "Undo last", () => desk.undo());
    this.pull = button("pull", "Pull", () => this.#start("pull"));
    this.push = button("push", "Push", () => this.#start("push"), { class: "sf-button sf-primary" });
    this.brief = element("summary");
    this.tables = element("div", { class: "sf-scroll", role: "region", tabindex: 0, "aria-label": "Tables" });
    const title = element("strong", { class: "sf-title" }, "syncframe");
    const acts = span("acts", this.undo, this.pull, this.push);
    const line = element("div", { class: "sf-head" }, title, this.where, this.pill, this.note, grow(), acts);
    this.nodes = [line, element("details", { class: "sf-details" }, this.brief, this.tables)];
  }

  draw({ back_end: url, store, online, asked_at: askedAt, tables = [], can_undo: canUndo }, progress) {
    this.where.textContent = spell(url ?? "no back end");
    this.where.title = `back end: ${spell(url ?? "none")}, store: ${spell(store ?? "")}`;
    this.#drawPill(online, askedAt);
    const held = sum(tables, "conflicts", "rejected");
    this.sent = Math.max(0, sum(tables, ...Object.keys(KINDS)) - held);
    this.running = progress?.what ?? null;
    this.push.textContent = `Push ${count(this.sent)}`;
    this.push.title = held ? `${count(held)} in conflict or rejected stay here` : "";
    this.push.ariaDisabled = String(this.running !== null || this.sent === 0);
    this.pull.ariaDisabled = String(this.running !== null);
    this.undo.ariaDisabled = String(!canUndo);
    this.#drawTables(tables);
  }

  #drawPill(online, askedAt) {
    const states = { true: ["\u25cf online", "good"], false: ["\u25cb offline", "warn"] };
    const [words, mood] = states[online] ?? ["\u25cc not asked yet", "quiet"];
    this.pill.textContent = words;
    this.pill.className = `sf-pill sf-${mood}`;
    this.pill.title = askedAt ? `last asked ${clock(askedAt)}` : "the first pull or push asks";
  }

  #drawTables(tables) {
    const marks = Object.entries(KINDS).map(([kind, mark]) => {
      const number = sum(tables, kind);
      return [span(`kind sf-${kind}`, `${mark}${count(number)}`, span("hidden", ` ${kind}s`)), " "];
    });
    const rejected = sum(tables, "rejected");
    const bad = rejected > 0 && span("bad", `${count(rejected)} rejected, `);
    const last = tables.map((one) => one.last_pull).filter(Boolean).sort().at(-1);
    fill(this.brief, marks, bad, `${many(tables.length, "table")}, last pull ${clock(last)}`);
    const heads = ["Table", "Rows", "Inserts", "Updates", "Deletes", "Conflicts", "Rejected", "Last pull", "Last push"];
    fill(this.tables, table("Pending operations by table", heads, tables.map(tableLine)));
  }

  async #start(what) {
    if (this.running) return this.desk.say(`A ${this.running} is running: wait for its end or cancel it.`);
    if (what === "push" && !this.sent) return this.desk.say("There is nothing to push.");
    this.desk.say(what === "push" ? "Pushing \u2026" : "Pulling \u2026");
    if (!(await this.desk.act(what, { tables: null }))) this.desk.say("");
  }
}

function tableLine(one) {
  const numbers = [one.rows, one.insert, one.update, one.delete, one.conflicts, one.rejected];
  const cells = numbers.map((number) => element("td", { class: "sf-number" }, count(number ?? 0)));
  const times = [one.last_pull, one.last_push].map((time) => element("td", {}, clock(time)));
  return element("tr", {}, element("th", { scope: "row" }, name(one.name)), cells, times);
}

/** The progress of work with its Cancel, and else the last result in words. */
class Activity {
  constructor(desk) {
    this.desk = desk;
    this.bar = element("progress", { class: "sf-bar", "aria-label": "Progress" });
    this.words = span("progress-words");
    this.cancel = smallButton("cancel", "Cancel", () => this.#stop());
    this.work = element("span", { class: "sf-work", hidden: "" }, this.bar, this.words, this.cancel);
    this.status = element("span", { class: "sf-status", role: "status", "data-syncframe": "status" });
    this.node = element("div", { class: "sf-activity" }, this.work, this.status);
  }

  // A new node each time, so that the same words twice are read out twice.
  say(words) {
    if (!words) return fill(this.status);
    const lines = spell(words, "\n").split("\n");
    const rest = lines.splice(STATUS_LINES);
    const summary = element("summary", {}, many(rest.length, "more line"));
    const more = rest.length > 0 && element("details", {}, summary, rest.join("\n"));
    fill(this.status, element("span", {}, lines.join("\n"), more));
  }

  async #stop() {
    if (this.isCancelling) return;
    this.#drawCancel(true);
    if (!(await this.desk.act("cancel", {}))) this.#drawCancel(false);
  }

  #drawCancel(isCancelling) {
    this.isCancelling = isCancelling;
    this.cancel.textContent = isCancelling ? "Cancelling \u2026" : "Cancel";
    this.cancel.ariaDisabled = String(isCancelling);
  }

  draw(progress) {
    const hadFocus = focusedIn(this.work);
    this.work.hidden = !progress;
    this.status.hidden = Boolean(progress);
    this.#drawCancel(Boolean(progress) && Boolean(this.isCancelling || progress.is_cancelling));
    if (!progress && hadFocus) this.desk.head.push.focus();
    if (progress) this.#drawBar(progress);
  }

  #drawBar({ what, done, total, words }) {
    const verb = what === "push" ? "Pushing" : "Pulling";
    const number = `${count(done)}${total ? ` of ${count(total)}` : ""}`;
    this.words.textContent = done || total ? `${verb} ${spell(words ?? "")}: ${number}` : `${verb} \u2026`;
    if (total) [this.bar.max, this.bar.value] = [total, done];
    else this.bar.removeAttribute("value");
  }
}

// ---- the view

/** Light or dark as the page around it: the host says so, else its background does, else the system. */
function followTheme(root, signal) {
  const look = () => (root.dataset.theme = isDark(root) ? "dark" : "light");
  const observer = new MutationObserver(look);
  const attributeFilter = ["class", "style", "theme", "data-theme", "data-jp-theme-light", "data-jp-theme-name"];
  for (const node of [document.body, document.documentElement]) observer.observe(node, { attributeFilter });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look, { signal });
  signal.addEventListener("abort", () => observer.disconnect());
  look();
}

function isDark(root) {
  const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
  if (jpThemeLight) return jpThemeLight === "false";
  if (vscodeThemeKind) return !vscodeThemeKind.includes("light");
  for (let node = root.parentElement; node; node = node.parentElement ?? node.getRootNode().host) {
    const parts = getComputedStyle(node).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [];
    const [red, green, blue, alpha = 1] = parts;
    if (parts.length > 2 && alpha > 0.5) return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 110;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Hides the summary shown just above for pages without a kernel; gives what shows it again. */
function hideStatic(place) {
  for (let node = place; node && node !== document.body; node = node.parentElement) {
    const before = node.previousElementSibling;
    const summary = before?.matches(STATIC) ? before : before?.querySelector(STATIC);
    if (!summary) continue;
    // Of a cell above this one that has more in it than a summary, nothing is hidden.
    if (before.textContent.trim() !== summary.textContent.trim()) return null;
    const { display } = before.style;
    before.style.display = "none";
    return () => (before.style.display = display);
  }
  return null;
}

class View {
  #tab = "pending";
  #lastEnded = 0;

  constructor(model, place, signal) {
    Object.assign(this, { model, signal });
    this.id = `syncframe-${Math.random().toString(36).slice(2)}`;
    this.head = new Head(this);
    this.activity = new Activity(this);
    this.alert = element("div", { class: "sf-alert", role: "alert", "data-syncframe": "alert" });
    this.pending = new Pending(this, `${this.id}-pending`, signal);
    this.conflicts = new Conflicts(this, `${this.id}-conflicts`, signal);
    this.kernel = new Kernel(model, signal, (words) => this.#note(words));
    this.root = this.#build();
    place.append(this.root);
    this.#follow(place);
    this.#draw();
    this.#show("pending");
    this.#hello();
  }

  #build() {
    [this.tabs, this.boxes] = [{}, {}];
    for (const one of ["pending", "conflicts"]) {
      const [tab, box] = [`${this.id}-tab-${one}`, `${this.id}-panel-${one}`];
      const properties = { type: "button", class: "sf-tab", role: "tab", id: tab, "aria-controls": box };
      this.tabs[one] = element("button", { ...properties, on: { click: () => this.#show(one) } });
      this.boxes[one] = element("div", { role: "tabpanel", id: box, "aria-labelledby": tab }, this[one].nodes);
    }
    const keydown = (event) => /^Arrow(Left|Right)$/.test(event.key) && this.#otherTab();
    const list = { class: "sf-tabs", role: "tablist", "aria-label": "Lists", on: { keydown } };
    const tabs = element("div", list, Object.values(this.tabs));
    const line = element("div", { class: "sf-tabline" }, tabs, this.activity.node);
    // JupyterLab and Notebook 7 leave all keys below this attribute alone; other hosts see no plain ones.
    const keys = { "data-lm-suppress-shortcuts": "true", on: { keydown: keepPlainKeys } };
    const properties = { class: "syncframe", "aria-label": "syncframe", ...keys };
    return element("section", properties, this.head.nodes, this.alert, line, ...Object.values(this.boxes));
  }

  #follow(place) {
    // Hears too when the view comes into the page, which is after it was made.
    const shape = new ResizeObserver(() => this.#shape(place));
    shape.observe(this.root);
    followTheme(this.root, this.signal);
    // Out of its place, for ipywidgets keeps the place of each view as long as the model lives.
    this.signal.addEventListener("abort", () => (shape.disconnect(), this.root.remove(), this.showStatic?.()));
    hear(this.model, "change:summary", () => this.#draw(), this.signal);
    hear(this.model, "change:progress", () => this.#draw(), this.signal);
    hear(this.model, "change:rev", () => this.#refresh(), this.signal);
    hear(this.model, "msg:custom", (message) => message?.t === "ended" && this.#ended(message), this.signal);
  }

  // In a narrow page a row has two lines, its changes on the second.
  #shape(place) {
    this.showStatic ??= hideStatic(place);
    this.pending.list.setRowHeight(this.root.clientWidth < NARROW_PX ? 54 : 30);
  }

  // What ended before this view opened is told in words; its error was shown where it was asked for.
  async #hello() {
    const data = await this.ask("hello", {});
    if (data?.ended && data.ended.n > this.#lastEnded) this.say(endedWords(data.ended));
  }

  #show(chosen) {
    this.#tab = chosen;
    for (const one of ["pending", "conflicts"]) {
      this.tabs[one].ariaSelected = String(one === chosen);
      this.tabs[one].tabIndex = one === chosen ? 0 : -1;
      this.boxes[one].hidden = one !== chosen;
    }
    if (this[chosen].list.total === null) this[chosen].list.reset();
    else this.#refresh();
  }

  #otherTab() {
    this.#show(this.#tab === "pending" ? "conflicts" : "pending");
    this.tabs[this.#tab].focus();
  }

  #draw() {
    const [summary, progress] = [this.model.get("summary") ?? {}, this.model.get("progress") ?? null];
    const { tables = [] } = summary;
    this.head.draw(summary, progress);
    this.activity.draw(progress);
    this.pending.fillTables(tables);
    this.conflicts.fillTables(tables);
    const conflicts = sum(tables, "conflicts");
    fill(this.tabs.pending, "Pending ", span("count", count(sum(tables, ...Object.keys(KINDS)))));
    fill(this.tabs.conflicts, "Conflicts ", span(conflicts ? "count sf-bad" : "count", count(conflicts)));
  }

  #refresh() {
    this[this.#tab].list.refresh();
  }

  #ended(message) {
    this.#lastEnded = Math.max(this.#lastEnded, message.n);
    this.say(endedWords(message));
    if (message.error) this.#fail(message.error);
    else this.#dismiss();
    this.#refresh();
  }

  #note(words) {
    if (this.head.note.textContent !== words) this.head.note.textContent = words;
  }

  say(words) {
    this.activity.say(words);
  }

  // Stays until it is dismissed or the next act goes well.
  #fail({ type, message, hint }) {
    if (type === "KernelGone") return; // the note says it
    const advice = hint && span("hint", spell(hint, "\n"));
    const words = span("grow", element("strong", {}, `${spell(type)}: `), spell(message, "\n"), advice);
    fill(this.alert, words, smallButton("dismiss", "Dismiss", () => this.#dismiss()));
  }

  #dismiss() {
    if (focusedIn(this.alert)) this.tabs[this.#tab].focus();
    fill(this.alert);
  }

  /** Asks; null where there was no good answer, which has then been shown. */
  async ask(what, args) {
    try {
      return await this.kernel.ask(what, args);
    } catch (error) {
      this.#fail(error);
      return null;
    }
  }

  /** Asks for something to be done, and says what was. */
  async act(what, args) {
    const data = await this.ask(what, args);
    if (!data?.words) return data;
    this.#dismiss();
    this.say(data.words);
    this.#refresh();
    return data;
  }

  undo() {
    return this.act("undo", {});
  }
}

function keepPlainKeys(event) {
  if (event.repeat && event.key === "Enter") event.preventDefault(); // a button is pressed once
  if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
}

function endedWords({ what, words }) {
  return `${what === "push" ? "Push" : "Pull"}: ${words}`;
}

function render({ model, el, signal }) {
  const ending = new AbortController();
  signal?.addEventListener("abort", () => ending.abort());
  new View(model, el, ending.signal);
  return () => ending.abort();
}

export default { render };

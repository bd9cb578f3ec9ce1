/* The widget in the page: what waits in the queue, what is in conflict, push and pull.

The kernel holds the truth: lists come from it by messages, a page of rows at a time, and every ask has an id and an
answer.  Whatever comes from rows, names or errors reaches the page as text, never as markup, and nothing here asks
anything of a network.  In order: words, values, asks, the list, the panel, values typed by a person, what is pending,
one conflict, the conflicts, the header, the history, the view. */

const ROWS_PER_PAGE = 100;
const PAGES_AROUND = 6; // kept on either side of the page in sight
const ROWS_AROUND = 6; // drawn above and below what is in sight
const ROWS_AHEAD = 30; // fetched before they come in sight
const ASK_FIRST_OVER = 20;
const STATUS_LINES = 4;
const HISTORY_ROWS = 20;
const RESULT_CHARACTERS = 240;
const LINE_CHARACTERS = 60; // a longer text is typed in several lines
const NARROW_PX = 640;
const GONE = "The kernel is gone: run this cell again";
const BUSY = "The kernel is busy";
const SILENT = "No answer yet: the kernel is busy, or was restarted (then run this cell again)";
const LOOK_AGAIN = "A newer row or edit has come since this was shown: look again.";
const TOO_LONG = "This value has over a million characters: settle it in code.";
const LOST = " has left this list: it was sent, settled or discarded elsewhere. Choose another row.";
// Harmless to ask twice.
const READS = new Set(["hello", "pending", "conflicts", "conflict", "cell", "value", "history"]);
const ASKS = "button[data-syncframe]:not([data-syncframe^=close], [data-syncframe=dismiss])";
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

function table(label, heads, rows, properties = {}) {
  const head = element("tr", {}, heads.map((words) => element("th", { scope: "col" }, words)));
  const caption = element("caption", { class: "sf-hidden" }, label);
  return element("table", properties, caption, element("thead", {}, head), element("tbody", {}, rows));
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

let ids = 0;
const OF_THIS_PAGE = `syncframe-${Math.random().toString(36).slice(2)}`;

function uniqueId() {
  ids += 1;
  return `${OF_THIS_PAGE}-${ids}`;
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
const CUT = new RegExp(`^ +|${HIDDEN}`, "gu"); // a blank where a text was cut is not at its end
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

/** Words, and what they mean, for a value that would read as nothing, or as another. */
function standIn(value) {
  if (value === null || value === undefined) return ["NULL", "no value"];
  if (value === "") return ["empty text", "a text without characters"];
  if (/^ +$/.test(value)) return [many(value.length, "blank"), "a text of blanks only"];
  return null;
}

/** A cell's value as a node: NULL, empty text and blanks are told apart from texts that read the same. */
function shown(value, other = null) {
  const words = standIn(value);
  if (words) return chip(...words);
  if (isLong(value)) return element("bdi", {}, visible(value.text, CUT), span("cut", ` \u2026 ${characters(value)}`));
  const text = String(value);
  return element("bdi", {}, other === null || isLong(other) ? visible(text) : marked(text, other));
}

/** A cell's value in the name of a control. */
function spoken(value) {
  const words = standIn(value);
  if (words) return words[0];
  return isLong(value) ? `${spell(value.text)} \u2026 ${characters(value)}` : spell(value);
}

function characters({ chars }) {
  return many(chars, "character");
}

/** A text as a page would give it: a long one cut. */
function cut(text) {
  const all = [...(text ?? "")];
  if (all.length <= RESULT_CHARACTERS) return text;
  return { text: all.slice(0, RESULT_CHARACTERS).join(""), chars: all.length };
}

/** A value with, where it was cut, a button that brings the whole of it. */
function readable(panel, value, other, where) {
  return [shown(value, other), " ", wholeButton(panel, value, where)];
}

function wholeButton(panel, value, where) {
  if (!isLong(value)) return null;
  const label = `Show all of ${where.side} ${spell(where.column)}, ${characters(value)}`;
  const read = () => panel.read(where);
  return smallButton(`whole ${where.side} ${where.column}`, "Show all", read, { "aria-label": label });
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
  leaving = null; // the row that an act in this view is about to take from the list
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

  /** The revision at which the chosen row was read. */
  get activeRev() {
    return this.#pages.get(Math.floor(this.#active / ROWS_PER_PAGE))?.rev ?? this.rev;
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
    pages.set(page, { rows: data.rows, rev: data.rev, round });
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
    else if (this.#activeId !== null && this.#activeId !== this.leaving) return;
    else [this.#activeId, this.leaving] = [row.id, null];
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
    [this.#activeId, this.leaving] = [this.#row(this.#active)?.id ?? null, null];
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
  return element("th", { scope: "row" }, name(column), " ", element("small", {}, spell(type)), " ", notes);
}

class Panel {
  firstActive = -1;
  row = null; // the one shown in full: what acts go to
  rev = 0; // at which it was as it is shown
  #drafts = new Map();
  #drawn = "";
  #acting = null; // the row that an act is on its way to, or that it has not gone from yet

  constructor(desk, of, label, rowHeight, kinds, signal) {
    Object.assign(this, { desk, of });
    this.list = new RowList(this, `${desk.id}-${of}`, label, rowHeight, signal);
    this.tables = chooser("Table", [["", "All tables"]], () => this.filter());
    this.kinds = chooser("Kind", [["", "All kinds"], ...kinds], () => this.filter());
    this.counted = span("quiet");
    [this.question, this.reader, this.news] = [element("div"), element("div"), element("div", { role: "alert" })];
    const keydown = (event) => this.pressInDetail(event);
    const properties = { class: "sf-detail", "aria-label": "The chosen row", hidden: "", tabindex: -1 };
    this.detail = element("section", { ...properties, on: { keydown } });
  }

  get shown() {
    return { table: this.tables.value || null, kind: this.kinds.value || null };
  }

  load(offset, limit) {
    return this.desk.ask(this.of, { ...this.shown, offset, limit });
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

  /** Shows a row in full; who had the focus there finds it in the same place. */
  choose(row, isLost = false) {
    if (row) this.rev = this.list.activeRev;
    this.#acting = null;
    const text = JSON.stringify([row, isLost]);
    if (text === this.#drawn) return;
    this.#drawn = text;
    const focused = focusedIn(this.detail);
    const lost = isLost && this.row && element("p", { role: "status" }, rowName(this.row), LOST);
    this.row = row;
    this.detail.hidden = !row && !lost;
    fill(this.reader);
    fill(this.news);
    fill(this.detail, row ? [...this.drawDetail(row), this.reader] : lost);
    if (focused) this.#focusAgain(focused);
  }

  // Who was typing must not go on to type where letters act.
  #focusAgain(focused) {
    const isSame = (one) => one.dataset.syncframe === focused.dataset.syncframe;
    const place = [...this.detail.querySelectorAll("[data-syncframe]")].find(isSame);
    const caret = focused.matches(".sf-typed:not(select)") && [focused.selectionStart, focused.selectionEnd];
    if (place) place.focus();
    if (place && caret) place.setSelectionRange(...caret);
    else if (place) return;
    else if (focused.matches(".sf-typed") && !this.detail.hidden) this.detail.focus();
    else this.list.focus();
  }

  /** What was chosen for this row and not sent; it waits here while other rows are looked at. */
  draft({ id }) {
    if (!this.#drafts.has(id)) this.#drafts.set(id, new Draft());
    return this.#drafts.get(id);
  }

  /** Says that a newer row or edit has come, and what was given up for it: a typed text can be read and copied. */
  tellNews({ dropped }) {
    const lines = [...dropped].map(([column, text]) => {
      const label = `Dropped: ${spell(column)}`;
      const box = { class: "sf-whole", role: "region", tabindex: 0, "aria-label": label };
      return [label, element("div", box, spell(text, "\n\t"))];
    });
    fill(this.news, element("div", { class: "sf-words sf-news" }, element("p", {}, `\u27f3 ${LOOK_AGAIN}`), lines));
  }

  /** Does something to the row shown, and to no other; the second click of a double one would meet the next row. */
  async toRow(event, row, what, args) {
    if (!row || event?.detail > 1 || this.#acting === row.id) return false;
    this.#acting = this.list.leaving = row.id;
    const data = await this.desk.act(what, args);
    const isDone = Boolean(data?.rows || data?.settled);
    if (isDone) this.#drafts.delete(row.id);
    else this.#acting = this.list.leaving = null;
    return isDone;
  }

  /** The whole of a value as text; undefined, with words, where it is too long to be typed at. */
  async wholeOf(value, where) {
    if (!isLong(value)) return value ?? null;
    const data = await this.desk.ask("cell", where);
    if (!data) return undefined;
    if (data.chars === undefined) return data.value; // it came uncut
    this.desk.say(TOO_LONG);
    return undefined;
  }

  /** Shows the whole of a long value below the row it is of. */
  async read(where) {
    const from = focusedIn(this.detail);
    const data = await this.desk.ask("cell", where);
    if (!data || this.row?.id !== where.id) return;
    const text = data.value ?? "NULL";
    const end = data.chars > [...text].length ? ", cut here" : "";
    const words = `${spell(where.column)}, ${where.side}: ${many(data.chars ?? text.length, "character")}${end}`;
    const closed = () => (fill(this.reader), (from?.isConnected ? from : this.list).focus());
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

// ---- values typed by a person

/** What was chosen and typed for one row; what it was about may change meanwhile, and then that part is dropped. */
class Draft {
  choices = new Map(); // by column: a side, a text or NULL
  typing = new Map(); // by column: what stands in an open editor
  dropped = new Map(); // by column: the side or text that was given up, until the column is decided again
  fate = null; // "keep" or "delete", for a row that one side deleted
  isWhole = false; // unchanged columns are shown too
  #cells = new Map();
  #row = null;

  /** The columns that a person has decided, or is about to. */
  get touched() {
    return new Set([...this.choices.keys(), ...this.typing.keys()]);
  }

  decide(column, choice) {
    this.choices.set(column, choice);
    this.dropped.delete(column);
  }

  /** Says whether the row is another than when it was looked at last. */
  look(row) {
    const text = JSON.stringify(row);
    const isOther = this.#row !== null && this.#row !== text;
    this.#row = text;
    if (isOther) this.fate = null;
    return this.lookAt(row) || isOther;
  }

  lookAt(row) {
    return row.cells.filter((cell) => this.#lookAtCell(cell[0], cellText(cell, row))).length > 0;
  }

  #lookAtCell(column, now) {
    const was = this.#cells.get(column);
    this.#cells.set(column, now);
    if (was === undefined || was === now) return false;
    this.#drop(column);
    return true;
  }

  #drop(column) {
    const [choice, typing] = [this.choices.get(column), this.typing.get(column)];
    if (typing?.isTouched) this.dropped.set(column, typing.text);
    else if (choice) this.dropped.set(column, choice.side ?? choice.text ?? "NULL");
    this.choices.delete(column);
    this.typing.delete(column);
  }
}

/** By which a cell is known again; what is behind the cut of a long one may be another when its row is. */
function cellText(cell, { version, edited, staged_at: stagedAt }) {
  return JSON.stringify(cell.some(isLong) ? [cell, version, edited, stagedAt] : cell);
}

function isText(type) {
  return /^VARCHAR/i.test(type);
}

function isLines(value) {
  return isLong(value) || /[\n\r]/.test(value ?? "") || String(value ?? "").length > LINE_CHARACTERS;
}

/** The control in which a value of this type is typed. */
function control(type, text, isOfLines, properties) {
  const tag = /^BOOL/i.test(type) ? "select" : isOfLines && isText(type) ? "textarea" : "input";
  const options = tag === "select" ? ["", "true", "false"] : [];
  const nodes = options.map((value) => element("option", { value }, value || "\u2026"));
  const node = element(tag, { class: "sf-typed", autocomplete: "off", spellcheck: "false", ...properties }, nodes);
  node.value = text ?? "";
  return node;
}

/** An Edit button for a line of a table; below the line a value is typed.  What does not fit is refused in words.

`cell` says of it: `where` it is and its `type`, the `sides` that may be put in, the `draft`, with which text of which
side to `begin`, whether it `isNullable`, what to do when a value is `given`, when something has `changed`, and when the
editor is `left`. */
class Editor {
  constructor(panel, line, cell) {
    Object.assign(this, { panel, line, cell, row: null });
    const { column } = cell.where;
    this.button = smallButton(`edit ${column}`, "Edit", () => this.begin(), { "aria-label": `Edit ${spell(column)}` });
    if (cell.draft.typing.has(column)) this.#open(cell.draft.typing.get(column));
  }

  /** The line, and the editor where it is open. */
  get nodes() {
    return this.row ? [this.line, this.row] : [this.line];
  }

  // At once, whatever the kernel takes: the letters that follow are text, and would be commands elsewhere.
  begin() {
    if (!this.row) {
      this.#open({ ...this.cell.begin(), isTouched: false, ends: new Set() });
      this.line.after(this.row);
      this.cell.changed();
    }
    this.control.focus();
    this.control.select?.();
  }

  #open(typing) {
    const { column } = this.cell.where;
    this.typing = typing;
    this.cell.draft.typing.set(column, typing);
    const id = uniqueId();
    const names = { "aria-label": `New value of ${spell(column)}`, "aria-describedby": id };
    const hint = { placeholder: typing.text === null && "NULL" };
    const properties = { ...names, ...hint, "data-syncframe": `value ${column}`, on: { input: () => this.#touch() } };
    const isOfLines = [...Object.values(this.cell.sides), typing.text].some(isLines);
    this.control = control(this.cell.type, typing.text?.text ?? typing.text, isOfLines, properties);
    this.words = element("span", { class: "sf-quiet", role: "status" });
    this.refusal = element("p", { class: "sf-refusal", role: "alert", id });
    const box = { class: "sf-editor", on: { keydown: (event) => this.#onKey(event) } };
    const tools = element("div", { class: "sf-tools" }, this.#buttons());
    const cell = { colspan: this.cell.columns, role: "cell" };
    const parts = element("td", cell, element("div", box, this.control, tools, this.refusal));
    this.row = element("tr", { class: "sf-editing", role: "row" }, parts);
    this.#fill();
    this.#offerNull();
  }

  // The whole of a text that was cut comes later, and is not typed at before.
  async #fill() {
    const { typing, row, control: field } = this;
    if (isLong(typing.text)) {
      field.readOnly = true;
      this.#say("Loading \u2026");
      const text = await this.panel.wholeOf(typing.text, { ...this.cell.where, side: typing.side });
      if (this.row !== row || !row.isConnected) return; // given up meanwhile
      if (text === undefined) return this.leave();
      typing.text = field.value = text;
      field.readOnly = false;
    }
    this.#heed(typing.text);
    this.#say();
  }

  async #offerNull() {
    const { typing, null: offer } = this;
    typing.isNullable ??= (await this.cell.isNullable?.()) ?? true;
    offer.hidden = !typing.isNullable;
  }

  /** Says what the editor waits for, or what comes of its line ends. */
  #say(words) {
    const isMixed = this.typing.ends.size > 1;
    this.words.textContent = words ?? (isMixed ? "Its line ends differ: once edited, all are \\n." : "");
  }

  // A control turns each line end into \n; those of a text that has but one kind are put back.
  #heed(text) {
    for (const end of text?.match(/\r\n?|\n/g) ?? []) this.typing.ends.add(end);
  }

  get #hasLines() {
    return this.control.matches("textarea");
  }

  #buttons() {
    const { column } = this.cell.where;
    const small = (what, words, act) => smallButton(`${what} ${column}`, words, act);
    const sides = isText(this.cell.type) ? Object.keys(this.cell.sides) : [];
    this.null = small("null", "NULL", () => this.#take(null));
    this.null.hidden = true;
    return [
      small("take", "Use this value", () => this.#take(this.typing.text)),
      this.null,
      sides.map((side) => small(`add ${side}`, `+ ${side}`, () => this.#putIn(side))),
      small("leave", "Cancel", () => this.leave()),
      span("quiet sf-keys", this.#hasLines ? "Ctrl+" : "", "Enter takes it, Escape leaves it"),
      this.words,
    ];
  }

  // A control cannot hold each text, so one that was not touched is taken as it came.
  #touch() {
    const [end, isMixed] = this.typing.ends;
    const text = isMixed ? this.control.value : this.control.value.replaceAll("\n", end ?? "\n");
    Object.assign(this.typing, { text, isTouched: true });
    this.control.placeholder = ""; // emptied it is an empty text
  }

  async #putIn(side) {
    const text = await this.panel.wholeOf(this.cell.sides[side], { ...this.cell.where, side });
    if (!text || !this.row || this.control.readOnly) return;
    const at = this.control.selectionEnd;
    this.control.setRangeText(text, at, at, "end");
    this.#heed(text);
    this.#touch();
    this.#say();
    this.control.focus();
  }

  async #take(text) {
    if (isLong(text)) return; // the whole of it is on its way
    const [{ of, id, column }, { row, typing }] = [this.cell.where, this];
    const before = typing.text;
    this.#say("Checking \u2026");
    const asked = this.panel.desk.kernel.ask("value", { of, id, column, text });
    const answer = await asked.catch((error) => ({ error }));
    if (this.row !== row || !row.isConnected) return; // given up meanwhile
    this.#say();
    if (typing.text !== before) return; // what was typed since has not been checked
    if (answer.error) return this.#refuse(answer.error);
    this.cell.draft.decide(column, text === null ? { isNull: true } : { text, value: answer.value });
    this.cell.given?.();
    this.leave();
  }

  #refuse({ message, hint }) {
    const sign = element("span", { "aria-hidden": "true" }, "\u2715 ");
    fill(this.refusal, sign, spell(message), hint && span("hint", spell(hint)));
    this.control.ariaInvalid = "true";
    this.control.focus();
  }

  /** Closes it; what stands in it is given up. */
  leave() {
    if (!this.row) return;
    const hadFocus = focusedIn(this.row);
    this.row.remove();
    this.row = null;
    this.cell.draft.typing.delete(this.cell.where.column);
    this.cell.changed();
    if (hadFocus) (this.cell.left ?? this.button).focus();
  }

  // No letter that is typed here is a command, neither of the widget nor of the host.
  #onKey(event) {
    const isBare = !event.ctrlKey && !event.metaKey && !event.altKey;
    const takes = event.key === "Enter" && event.target === this.control && (!isBare || !this.#hasLines);
    const leaves = event.key === "Escape" && !event.isComposing;
    if (isBare || takes) event.stopPropagation();
    if (event.isComposing || event.repeat || !(takes || leaves)) return;
    event.preventDefault();
    if (takes) this.#take(this.typing.text);
    else this.leave();
  }
}

/** What a choice makes of a cell, as nodes: a side's value, or what was typed. */
function chosen(choice, sides) {
  if (choice.side) return shown(sides[choice.side]);
  return [shown(choice.isNull ? null : cut(choice.value)), " ", span("edited", "edited")];
}

/** A choice as an answer to the kernel. */
function told({ side, isNull, text }) {
  return side ? { side } : isNull ? { null: true } : { text };
}

// ---- what is pending

class Pending extends Panel {
  mending = []; // the editors of a rejected operation

  constructor(desk, signal) {
    const kinds = [["insert", "Inserts"], ["update", "Updates"], ["delete", "Deletes"]];
    const states = [["rejected", "Rejected"], ["attempted", "Sent, no answer"]];
    super(desk, "pending", "Pending operations", 30, [...kinds, ...states], signal);
    this.bulk = [button("discard-all", "Discard all shown", () => this.#discardShown())];
    const tools = element("div", { class: "sf-tools" }, this.tables, this.kinds, this.counted, grow(), this.bulk);
    this.nodes = [tools, this.question, this.list.node, this.detail];
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
    const rev = row === this.row ? this.rev : this.list.rev;
    return this.toRow(event, row, what, { ids: [row.id], ...(what === "discard" && { rev }) });
  }

  #discardShown() {
    const { total } = this.list;
    const question = `Discard ${many(total, "operation")} and go back to the rows as last pulled`;
    return this.toAll("discard", {}, question, `Discard ${count(total)}`);
  }

  press(key) {
    if (this.row && key === "Delete") this.#act("discard", this.row);
    else if (this.mending.length && /^e$/i.test(key)) this.mending[0].begin();
    else if (!this.detail.hidden && key === "Escape") this.list.leaveRow();
    else return super.press(key);
    return true;
  }

  drawDetail(row) {
    const draft = this.draft(row);
    draft.look(row);
    if (draft.dropped.size) this.tellNews(draft);
    this.mending = [];
    const close = smallButton("close", "Close", () => this.list.leaveRow());
    const time = span("quiet", `staged ${clock(row.staged_at)}`);
    const parts = [kindMark(row.kind), rowName(row), time, grow(), this.#acts(row), close];
    const head = element("div", { class: "sf-tools" }, parts);
    const canMend = row.state === "rejected" && row.kind !== "delete";
    const lines = row.cells.map((change) => this.#cellLine(row, change, canMend));
    const cells = table(`Cells of ${spell(row.table)} ${spell(row.key)}`, ["Column", "Old", "New"], lines);
    const more = row.more > 0 && element("p", { class: "sf-quiet" }, `${many(row.more, "more column")}`);
    return [head, this.news, stateWords(row), cells, more, canMend && this.#mendFoot(row)];
  }

  #cellLine(row, [column, type, base, local], canMend) {
    const where = { of: "pending", id: row.id, column };
    const side = (one, value, other, isThere) => {
      return isThere ? readable(this, value, other, { ...where, side: one }) : span("quiet", "\u2014");
    };
    const old = element("td", {}, side("base", base, null, row.kind !== "insert"));
    const value = span("value", side("local", local, base, row.kind !== "delete"));
    const now = element("td", { class: "sf-result" }, element("div", {}, value));
    const line = element("tr", {}, columnHead(column, type), old, now);
    return canMend ? this.#mendable(this.draft(row), where, type, local, value, line) : line;
  }

  #mendable(draft, where, type, local, value, line) {
    const choice = () => draft.choices.get(where.column);
    const draw = () => choice() && fill(value, chosen(choice()));
    const begin = () => (choice() ? { text: choice().text ?? null } : { text: local, side: "local" });
    const changed = () => (draw(), this.#drawMend(draft));
    const editor = new Editor(this, line, { where, type, columns: 3, sides: {}, draft, begin, changed });
    value.after(editor.button);
    this.mending.push(editor);
    draw();
    return editor.nodes;
  }

  #mendFoot(row) {
    const mend = (event) => this.#mend(row, event);
    this.mend = button("mend", "Mend", mend, { class: "sf-button sf-primary" });
    this.mendWords = element("span", { class: "sf-quiet", role: "status" });
    this.#drawMend(this.draft(row));
    return element("div", { class: "sf-tools sf-foot" }, this.mendWords, grow(), this.mend);
  }

  #drawMend({ choices, typing }) {
    if (!this.mend) return;
    const ready = `${many(choices.size, "new value")}, to go out with the next push`;
    const words = choices.size ? ready : "Edit a value; the next push sends it.";
    this.mendWords.textContent = typing.size ? editingWords([...typing.keys()]) : words;
    this.mend.ariaDisabled = String(!choices.size || typing.size > 0);
  }

  #mend(row, event) {
    const { choices, typing } = this.draft(row);
    if (!choices.size || typing.size) return (this.mending.find((editor) => editor.row) ?? this.mending[0])?.begin();
    const cells = Object.fromEntries([...choices].map(([column, choice]) => [column, told(choice)]));
    return this.toRow(event, row, "mend", { id: row.id, rev: this.rev, cells });
  }
}

function editingWords(columns) {
  const verb = columns.length > 1 ? "are" : "is";
  return `${columns.map((one) => spell(one)).join(", ")} ${verb} being edited: use the value or cancel it.`;
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

// ---- one conflict

// What happened, on which side, by the kinds of mine and theirs.
const CONFLICTS = {
  "edit/edit": { name: "Both edited", brief: "", words: "Both sides changed this row.", mine: "", theirs: "" },
  "edit/delete": {
    name: "You edited, they deleted",
    brief: "you edited, they deleted",
    words: "You edited this row; in the back end it was deleted.",
    mine: " (the edited row)",
    theirs: " (deleted)",
    keep: "Keep the row, as the result shows",
    delete: "Delete the row, as they did",
  },
  "delete/edit": {
    name: "You deleted, they edited",
    brief: "you deleted, they edited",
    words: "You deleted this row; in the back end it was edited.",
    mine: " (deleted)",
    theirs: " (the edited row)",
    keep: "Keep the row, as the result shows",
    delete: "Delete the row, as you did",
  },
  "insert/insert": {
    name: "Both inserted",
    brief: "both inserted",
    words: "Both sides inserted a row with this key.",
    mine: " (my row)",
    theirs: " (their row)",
  },
};
const ABSENT = {
  "edit/delete": { theirs: "row deleted" },
  "delete/edit": { mine: "row deleted" },
};
const SIDES = { mine: "Keep mine", theirs: "Take theirs" };
const COLUMNS = { base: "Base (last pull)", mine: "Mine", theirs: "Theirs (back end)", result: "Result" };
const STATES = {
  clash: "\u2260 both changed it",
  mine: "only you changed it",
  theirs: "only they changed it",
  same: "the same on both sides",
  unchanged: "unchanged",
};
// Of one row inserted by two, nobody changed a column.
const INSERTED = { ...STATES, clash: "\u2260 the two differ", mine: "only you gave it", theirs: "only they gave it" };
const DECIDED = "All is decided";
const RANKS = { clash: 0, unchanged: 2 };

/** One conflict: what each side says, what is chosen, and the result, which is what will be pushed. */
class Resolution {
  #lines = new Map();
  #whole = null;
  #asked = null;

  constructor(panel, row, draft) {
    Object.assign(this, { panel, row, draft, kind: CONFLICTS[row.kind] ?? CONFLICTS["edit/edit"] });
    this.isHalf = Boolean(this.kind.keep); // one side deleted the row, so first of all it is kept or deleted
    if (draft.look(row) || draft.dropped.size) panel.tellNews(draft);
    this.body = element("tbody");
    this.words = element("span", { role: "status", class: "sf-open-words" });
    this.button = button("resolve", "Resolve", (event) => panel.resolve(event), { class: "sf-button sf-primary" });
    this.nodes = [panel.news, this.isHalf && this.#fateChooser(), this.#table(), this.#foot()];
    this.#build();
    if (this.#needsWhole) this.bring();
  }

  #table() {
    const label = `Conflict on ${spell(this.row.key)} in ${spell(this.row.table)}`;
    const node = table(label, ["Column", ...Object.values(COLUMNS)], [], { class: "sf-resolution", role: "table" });
    node.tBodies[0].replaceWith(this.body);
    // In a narrow page the cells are stacked, and would be no cells any more for who does not see them.
    for (const part of [node.tHead, this.body]) part.setAttribute("role", "rowgroup");
    node.tHead.rows[0].setAttribute("role", "row");
    for (const head of node.tHead.rows[0].cells) head.setAttribute("role", "columnheader");
    return node;
  }

  #fateChooser() {
    const name = uniqueId();
    this.fates = {};
    const choice = (fate) => {
      const on = { change: () => this.#decideFate(fate) };
      this.fates[fate] = element("input", { type: "radio", name, value: fate, "data-syncframe": `row ${fate}`, on });
      return element("label", {}, this.fates[fate], " ", this.kind[fate]);
    };
    const properties = { class: "sf-fate", role: "radiogroup", "aria-label": "The row" };
    return element("div", properties, choice("keep"), choice("delete"));
  }

  #decideFate(fate) {
    this.draft.fate = fate;
    this.draw();
  }

  #foot() {
    const change = () => this.#showAll();
    this.all = element("input", { type: "checkbox", "data-syncframe": "unchanged", on: { change } });
    this.all.checked = this.draft.isWhole;
    const words = `Show unchanged columns (${count(this.row.same ?? 0)})`;
    const all = this.row.same > 0 && element("label", { class: "sf-all" }, this.all, " ", words);
    return element("div", { class: "sf-tools sf-foot" }, all, grow(), this.words, this.button);
  }

  async #showAll() {
    this.draft.isWhole = this.all.checked;
    if (this.#whole) this.#build();
    else await this.bring();
  }

  get lines() {
    return [...this.#lines.values()];
  }

  // The columns that were decided are always shown, so that the result is what will be pushed.
  get #needsWhole() {
    const { isWhole, touched } = this.draft;
    const isHidden = (column) => !this.row.cells.some((cell) => cell[0] === column);
    return this.row.more > 0 || isWhole || [...touched].some(isHidden);
  }

  /** The row with all that is known of its columns. */
  get #shown() {
    return this.#whole ?? this.row;
  }

  get cells() {
    return this.#shown.cells;
  }

  #cellsShown() {
    const { isWhole, touched } = this.draft;
    const isShown = (cell) => isWhole || cell[5] !== "unchanged" || touched.has(cell[0]);
    const rank = (cell) => RANKS[cell[5]] ?? 1;
    return this.cells.filter(isShown).sort((one, other) => rank(one) - rank(other));
  }

  // A line that is as before stays the same line, for the focus may be in it.
  #build() {
    const [before, hadFocus] = [this.#lines, focusedIn(this.body)];
    const lines = this.#cellsShown().map((cell) => {
      const line = before.get(cell[0]);
      const text = cellText(cell, this.#shown);
      return line?.text === text ? line : new Line(this, cell, text);
    });
    this.#lines = new Map(lines.map((line) => [line.column, line]));
    const nodes = lines.flatMap((line) => line.editor.nodes);
    for (const node of [...this.body.children]) if (!nodes.includes(node)) node.remove();
    nodes.forEach((node, at) => {
      if (this.body.children[at] !== node) this.body.insertBefore(node, this.body.children[at] ?? null);
    });
    if (hadFocus && !focusedIn(this.body)) this.panel.detail.focus();
    this.draw();
  }

  /** Brings all columns; what was decided on cells that have changed meanwhile is dropped, with words. */
  bring() {
    this.#asked ??= this.#bring().finally(() => (this.#asked = null));
    return this.#asked;
  }

  async #bring() {
    const whole = await this.panel.desk.ask("conflict", { id: this.row.id });
    if (!whole || this.panel.resolution !== this) return;
    if (this.draft.lookAt(whole)) this.panel.tellNews(this.draft);
    this.#whole = whole;
    this.#build();
  }

  async isNullable(column) {
    if (!this.#whole) await this.bring();
    return this.#whole?.columns?.[column]?.nullable;
  }

  /** What has to be done before it can be resolved, in words; "" where nothing has. */
  get openWords() {
    if (this.draft.fate === "delete") return "";
    if (this.isHalf && !this.draft.fate) return "Decide: keep the row or delete it";
    if (this.#needsWhole && !this.#whole) return "The other columns are on their way \u2026";
    if (this.draft.typing.size) return editingWords([...this.draft.typing.keys()]);
    const open = this.lines.filter((line) => !line.choice);
    return open.length ? `${many(open.length, "column")} to decide` : "";
  }

  /** What `resolve` is asked: all that the result shows. */
  get answer() {
    const { id, version } = this.#shown;
    const { fate } = this.draft;
    const lines = fate === "delete" ? [] : this.lines;
    const cells = Object.fromEntries(lines.map((line) => [line.column, told(line.choice)]));
    return { id, version, rev: this.#whole?.rev ?? this.panel.rev, cells, ...(this.isHalf && { row: fate }) };
  }

  /** Chooses a side for a column and those kept together with it, but for what was typed there. */
  choose(chosenLine, side) {
    const { group } = chosenLine;
    const isOf = (line) => line === chosenLine || (group !== null && line.group === group && !line.isTyped);
    for (const line of this.lines.filter(isOf)) if (line.radios[side]) this.#take(line, side);
    this.given();
    this.draw();
  }

  #take({ column, editor }, side) {
    editor.leave();
    this.draft.decide(column, { side });
  }

  /** A row of which a cell is decided is kept. */
  given() {
    if (this.isHalf) this.draft.fate = "keep";
  }

  draw() {
    for (const line of this.lines) line.draw();
    for (const [fate, radio] of Object.entries(this.fates ?? {})) radio.checked = this.draft.fate === fate;
    const words = this.openWords;
    if (this.words.textContent !== (words || DECIDED)) this.words.textContent = words || DECIDED;
    this.words.classList.toggle("sf-warn", Boolean(words));
    this.button.ariaDisabled = String(Boolean(words));
  }

  /** Puts the focus on what is to be done first. */
  goToOpen() {
    if (this.isHalf && !this.draft.fate) return this.fates.keep.focus();
    if (this.#needsWhole && !this.#whole) return this.bring(); // once more, for it may have failed
    const typed = this.lines.find((line) => line.editor.row);
    if (typed) return typed.editor.control.focus();
    this.#next?.focus();
  }

  /** The first line to decide, else the first. */
  get #next() {
    return this.lines.find((line) => !line.choice) ?? this.lines[0];
  }

  edit(line = this.#next) {
    if (this.draft.fate !== "delete") line?.editor.begin();
  }

  /** A key pressed in the table; whether it was for it. */
  press({ key, target }) {
    const line = this.lines.find(({ node }) => node.contains(target));
    const side = { b: "base", m: "mine", t: "theirs" }[key.toLowerCase()];
    const isRadio = target.matches("input[type=radio]");
    if (line && side) line.radios[side]?.click(), line.radios[side]?.focus();
    else if (line && /^e$/i.test(key)) this.edit(line);
    else if (isRadio && key === "Enter") this.panel.resolve();
    else return false;
    return true;
  }
}

/** One column of a conflict. */
class Line {
  radios = {};
  #drawn = "";

  constructor(resolution, cell, text) {
    const [column, type, base, mine, theirs, state, group = null] = cell;
    Object.assign(this, { resolution, text, column, group, state, sides: { base, mine, theirs } });
    this.draft = resolution.draft;
    this.where = { of: "conflicts", id: resolution.row.id, column };
    this.name = uniqueId();
    const absent = { ...(!resolution.row.has_base && { base: "not there" }), ...ABSENT[resolution.row.kind] };
    const sides = Object.keys(this.sides).map((side) => this.#side(side, absent[side]));
    [this.value, this.verdict] = [span("value"), span("verdict")];
    const head = columnHead(column, type, this.verdict);
    head.setAttribute("role", "rowheader");
    this.node = element("tr", { class: `sf-${state}`, role: "row" }, head, sides);
    this.editor = new Editor(resolution.panel, this.node, this.#typed(type));
    const result = element("div", {}, this.value, this.editor.button);
    this.node.append(element("td", { class: "sf-result", role: "cell", "data-side": COLUMNS.result }, result));
  }

  #stateWords() {
    const words = (this.resolution.row.kind === "insert/insert" ? INSERTED : STATES)[this.state];
    if (this.group === null) return words;
    const others = this.resolution.cells.filter((cell) => cell[0] !== this.column && cell[6] === this.group);
    return others.length ? `${words}; together with ${others.map((cell) => spell(cell[0])).join(", ")}` : words;
  }

  #typed(type) {
    const { resolution, where, draft, column } = this;
    const sides = Object.keys(this.radios).filter((side) => side !== "base");
    return {
      where,
      type,
      columns: 5,
      draft,
      sides: Object.fromEntries(sides.map((side) => [side, this.sides[side]])),
      begin: () => this.#begin(),
      isNullable: () => resolution.isNullable(column),
      given: () => resolution.given(),
      changed: () => resolution.draw(),
      left: this,
    };
  }

  // An undecided one begins with what is mine.
  #begin() {
    const choice = this.draft.choices.get(this.column) ?? this.#default ?? { side: "mine" };
    return choice.side ? { text: this.sides[choice.side], side: choice.side } : { text: choice.text ?? null };
  }

  #side(side, absent) {
    const properties = { role: "cell", "data-side": COLUMNS[side] };
    if (absent) return element("td", properties, chip(absent));
    const value = this.sides[side];
    this.radios[side] = element("input", {
      type: "radio",
      name: this.name,
      "aria-label": `${spell(this.column)}, ${side}: ${spoken(value)}`,
      "data-syncframe": `choose ${side} ${this.column}`,
      on: { change: () => this.resolution.choose(this, side) },
    });
    const other = side === "base" ? null : this.sides.base;
    const label = element("label", { class: "sf-side" }, this.radios[side], element("span", {}, shown(value, other)));
    return element("td", properties, label, wholeButton(this.resolution.panel, value, { ...this.where, side }));
  }

  get #default() {
    if (this.state === "clash") return null;
    return { side: this.state === "theirs" || !this.radios.mine ? "theirs" : "mine" };
  }

  /** What was chosen, or goes without saying; null where it is to be decided. */
  get choice() {
    if (this.resolution.isHalf && this.draft.fate !== "keep") return null;
    return this.draft.choices.get(this.column) ?? this.#default;
  }

  get isTyped() {
    const choice = this.draft.choices.get(this.column);
    return this.draft.typing.has(this.column) || Boolean(choice && !choice.side);
  }

  focus() {
    const radios = Object.values(this.radios);
    (radios.find((radio) => radio.checked) ?? radios[0]).focus();
  }

  draw() {
    const { choice } = this;
    const [words, isDeleted] = [this.#stateWords(), this.draft.fate === "delete"];
    const text = JSON.stringify([choice, words, isDeleted]);
    if (this.#drawn === text) return; // a choice is of one line, and there may be 500
    this.#drawn = text;
    this.verdict.textContent = words;
    for (const [side, radio] of Object.entries(this.radios)) radio.checked = choice?.side === side;
    const open = isDeleted ? chip("row deleted") : span("undecided", "? not decided");
    fill(this.value, choice ? chosen(choice, this.sides) : open);
    this.node.classList.toggle("sf-open", !choice && !isDeleted);
    this.editor.button.hidden = isDeleted;
    if (this.editor.row) this.editor.row.hidden = isDeleted;
  }
}

// ---- the conflicts

const KEYS = "\u2191\u2193 move \u00b7 M mine \u00b7 T theirs \u00b7 E edit \u00b7 Enter resolve \u00b7 U undo";

class Conflicts extends Panel {
  firstActive = 0;
  resolution = null; // of the row shown

  constructor(desk, signal) {
    const kinds = Object.entries(CONFLICTS).map(([kind, { name: words }]) => [kind, words]);
    super(desk, "conflicts", "Conflicts", 46, kinds, signal);
    const all = (side, words) => button(`all-${side}`, `${words}: all shown`, () => this.#settleShown(side));
    this.bulk = [all("merge", "Merge what is apart"), ...Object.entries(SIDES).map((side) => all(...side))];
    const acts = span("acts", this.bulk);
    const tools = element("div", { class: "sf-tools" }, this.tables, this.kinds, this.counted, grow(), acts);
    this.list.node.append(element("p", { class: "sf-quiet sf-keys" }, KEYS));
    this.nodes = [tools, this.question, element("div", { class: "sf-split" }, this.list.node, this.detail)];
  }

  noneWords() {
    const { table: chosen, kind } = this.shown;
    return chosen || kind ? "No conflict is of this table and kind." : "No conflicts.";
  }

  drawRow(row) {
    const clashes = row.cells.filter((cell) => cell[5] === "clash").map((cell) => spell(cell[0]));
    const what = CONFLICTS[row.kind]?.brief || clashes.join(", ") || "in different columns";
    const mark = element("span", { class: "sf-bad", "aria-hidden": "true" }, "!");
    const names = [rowCell("key", name(row.key)), rowCell("table", name(row.table))];
    return [rowCell("mark", mark), names, rowCell("what", what)];
  }

  drawDetail(row) {
    this.resolution = new Resolution(this, row, this.draft(row));
    const { kind, nodes } = this.resolution;
    const settle = (side) => button(side, `${SIDES[side]}${kind[side]}`, (event) => this.#settle(side, event));
    const head = element("div", { class: "sf-tools" }, rowName(row), grow(), settle("mine"), settle("theirs"));
    const isApart = row.kind === "edit/edit" && !row.clashes;
    const words = isApart ? `${kind.words} In different columns: the result keeps both changes.` : kind.words;
    return [head, element("p", { class: "sf-words" }, words), ...nodes];
  }

  #settle(side, event) {
    const { row } = this;
    return this.toRow(event, row, "settle", { side, rows: [[row?.id, row?.version]], rev: this.rev });
  }

  /** Settles the row shown as its result shows, and goes on to the next; what is open is asked for first. */
  async resolve(event) {
    if (!this.row) return;
    if (this.resolution.openWords) return this.resolution.goToOpen();
    if (await this.toRow(event, this.row, "resolve", this.resolution.answer)) this.list.focus();
  }

  #settleShown(side) {
    const { total } = this.list;
    const words = many(total, "conflict");
    if (side === "merge") {
      const question = `Keep both changes in those of ${words} that were changed in different columns`;
      return this.toAll("settle", { side }, question, `Merge, of ${count(total)}`);
    }
    const act = `${SIDES[side]} in`;
    return this.toAll("settle", { side }, `${act} ${words}`, `${act} ${count(total)}`);
  }

  press(key) {
    const acts = {
      m: () => this.#settle("mine"),
      t: () => this.#settle("theirs"),
      e: () => this.row && this.resolution.edit(),
      enter: () => this.resolve(),
      u: () => this.desk.undo(),
    };
    const act = acts[key.toLowerCase()];
    act?.();
    return Boolean(act);
  }

  // In the table letters are of a column; of the whole row they are only on the two buttons that settle it.
  pressInDetail(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (this.resolution.press(event)) event.preventDefault();
    else if (event.target.dataset.syncframe in SIDES && /^[mtu]$/i.test(event.key)) this.press(event.key);
    else super.pressInDetail(event);
  }
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

// ---- the history

/** What was done last, in one line that opens to the last few. */
class History {
  #isAsking = false;
  #isStale = false;

  constructor(desk) {
    this.desk = desk;
    this.brief = element("summary");
    this.lines = element("div", { class: "sf-scroll", role: "region", tabindex: 0, "aria-label": "History" });
    const properties = { class: "sf-details sf-history", "data-syncframe": "history", hidden: "" };
    this.node = element("details", properties, this.brief, this.lines);
  }

  // It is no act of a person, so an error of it is not shown: it comes again with the next change.
  async refresh() {
    this.#isStale = true;
    if (this.#isAsking) return;
    this.#isAsking = true;
    while (this.#isStale) {
      this.#isStale = false;
      const data = await this.desk.kernel.ask("history", { limit: HISTORY_ROWS }).catch(() => null);
      if (data) this.#draw(data.rows);
    }
    this.#isAsking = false;
  }

  #draw(rows) {
    this.node.hidden = rows.length === 0;
    if (!rows.length) return;
    const [{ time, action, table: of, rows: number }] = rows;
    const where = of !== null && [name(of), ", "];
    fill(this.brief, `Last: ${clock(time)} ${spell(action)}, `, where, many(number, "row"));
    const heads = ["Time", "What", "Table", "Rows", "Note", "Undo"];
    fill(this.lines, table("What was done, newest first", heads, rows.map(historyLine)));
  }
}

function historyLine({ time, action, table: of, rows, note, can_undo: canUndo }) {
  const cell = (...children) => element("td", {}, ...children);
  const number = element("td", { class: "sf-number" }, count(rows));
  const words = [cell(spell(note ?? "")), cell(canUndo ? "can be undone" : "")];
  return element("tr", {}, cell(clock(time)), cell(spell(action)), cell(name(of ?? "")), number, words);
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
    const [red, green, blue, alpha] = channels(getComputedStyle(node).backgroundColor);
    if (alpha > 127) return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 110;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Red, green, blue and alpha of a colour, however it is written, each from 0 to 255. */
function channels(color) {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
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
    this.id = uniqueId();
    this.head = new Head(this);
    this.activity = new Activity(this);
    this.history = new History(this);
    this.alert = element("div", { class: "sf-alert", role: "alert", "data-syncframe": "alert" });
    this.pending = new Pending(this, signal);
    this.conflicts = new Conflicts(this, signal);
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
    const boxes = Object.values(this.boxes);
    return element("section", properties, this.head.nodes, this.alert, line, boxes, this.history.node);
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
    hear(this.model, "change:rev", () => (this.#refresh(), this.history.refresh()), this.signal);
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
    this.history.refresh();
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
    if (this.head.note.textContent === words) return;
    this.head.note.textContent = words;
    this.head.pill.hidden = words === GONE; // whether the back end answers nobody knows now
    this.#switchOff(words === GONE);
  }

  // What asks the kernel is off while there is none, and comes back as it was.
  #switchOff(isGone) {
    for (const node of this.root.querySelectorAll(ASKS)) {
      if (isGone && node.ariaDisabled !== "true") [node.dataset.off, node.ariaDisabled] = ["", "true"];
      else if (!isGone && "off" in node.dataset) node.ariaDisabled = "false";
      if (!isGone) delete node.dataset.off;
    }
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

// The JavaScript client of Azure Mobile Apps with its offline store, told what to do by lines of JSON.
//
//     node client.js URL STORE        STORE: a SQLite file; a line in, a line out: {"ok": ...} or {"error": ...}
//
// The client takes the platform's objects for granted: three stand-ins come before it.

const path = require("path");
const { createRequire } = require("module");
const readline = require("readline");
const installed = createRequire(path.join(process.cwd(), "package.json"));
const sqlite3 = installed("sqlite3");
const [url, store] = process.argv.slice(2);

global.XMLHttpRequest = installed("xhr2");
global.XMLHttpRequest.prototype.withCredentials = false;
global.cordova = { version: "12.0.0" };
global.window = { sqlitePlugin: { openDatabase } };

function openDatabase(_, opened, failed) {
  const file = new sqlite3.Database(store, (error) => (error ? failed(error) : setImmediate(opened)));
  let last = Promise.resolve();
  const run = (sql, values = []) =>
    new Promise((done, fail) => file.all(sql, values, (error, rows) => (error ? fail(error) : done(rows))));
  const shown = (rows) => ({ rows: { length: rows.length, item: (at) => rows[at] } });

  async function transaction(work) {
    const waiting = [];
    const handle = { executeSql: (sql, values, then, fail) => waiting.push({ sql, values, then, fail }) };
    await run("begin");
    try {
      work(handle);
      while (waiting.length) {
        const { sql, values, then } = waiting.shift();
        const rows = await run(sql, values);
        if (then) then(handle, shown(rows));
      }
      await run("commit");
    } catch (error) {
      await run("rollback");
      throw error;
    }
  }

  const next = (work, done, fail) => {
    last = last.then(work).then((result) => done && done(result), (error) => fail && fail(error));
  };
  return {
    transaction: (work, fail, done) => next(() => transaction(work), done, fail),
    executeSql: (sql, values, done, fail) => next(() => run(sql, values).then(shown), done, fail),
    close: (done, fail) => next(() => new Promise((yes, no) => file.close((e) => (e ? no(e) : yes()))), done, fail),
  };
}

const mobile = installed("azure-mobile-apps-client");
const client = new mobile.MobileServiceClient(url);
const context = client.getSyncContext();
const local = new mobile.MobileServiceSqliteStore("store");
const SYSTEM = { id: "string", version: "string", createdAt: "date", updatedAt: "date", deleted: "boolean" };

// What is done with a row that another has changed: theirs is taken, or mine sent with their version.
const HANDLERS = {
  leave: undefined,
  theirs: (error) => {
    const theirs = dated(error.getServerRecord());
    return theirs.deleted || error.getAction() === "delete" ? error.cancelAndDiscard() : error.cancelAndUpdate(theirs);
  },
  mine: async (error) => {
    await error.update(dated({ ...error.getClientRecord(), version: error.getServerRecord().version }));
    error.isHandled = true; // as `update` means to say, and does not: it sets it to an unbound `this`
  },
};

// The client hands rows out with their dates as texts, and does not take them back like that.
function dated(row) {
  for (const name of ["createdAt", "updatedAt"]) if (row[name]) row[name] = new Date(row[name]);
  return row;
}

const DO = {
  async open({ tables }) {
    for (const [name, columns] of Object.entries(tables)) {
      await local.defineTable({ name, columnDefinitions: { ...SYSTEM, ...columns } });
    }
    await context.initialize(local);
  },
  insert: ({ table, row }) => client.getSyncTable(table).insert(row),
  update: ({ table, row }) => client.getSyncTable(table).update(row),
  del: ({ table, id }) => client.getSyncTable(table).del({ id }),
  rows: ({ table }) => client.getSyncTable(table).read(),
  queue: () => local.read(new mobile.Query("__operations")),
  pull({ table, id, where, pageSize }) {
    const query = new mobile.Query(table);
    return context.pull(where ? query.where(where) : query, id || null, pageSize ? { pageSize } : undefined);
  },
  async push({ conflicts }) {
    const handler = HANDLERS[conflicts || "leave"];
    context.pushHandler = handler && { onConflict: handler };
    const left = await context.push();
    return left.map((error) => ({
      id: error.getClientRecord() ? error.getClientRecord().id : null,
      action: error.getAction(),
      status: error.getError().request.status,
      theirs: error.getServerRecord() || null,
      body: error.getError().request.responseText,
    }));
  },
  online: ({ method, table, argument }) => client.getTable(table)[method](argument),
};

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    let answer;
    try {
      answer = { ok: (await DO[asked.do](asked)) ?? null };
    } catch (error) {
      answer = { error: String(error.message || error), status: error.request ? error.request.status : null };
    }
    console.log(JSON.stringify(answer));
  }
})();

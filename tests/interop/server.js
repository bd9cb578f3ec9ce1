// The Node.js back end of Azure Mobile Apps over SQLite, with the contract's tables as far as it can declare them.
//
//     node server.js FOLDER [PORT]        prints its port, then answers until it is ended
//
// `PUT /NAME` mounts the service there over FOLDER/NAME.db, a fresh one if there is none.  What a service cannot
// declare it says in the code of its tables: a default, and what it refuses with a 400.

const path = require("path");
const { createRequire } = require("module");
const installed = createRequire(path.join(process.cwd(), "package.json"));
const express = installed("express");
const mobile = installed("azure-mobile-apps");
const sqlite3 = installed("sqlite3");
const winston = installed("winston");
const { badRequest } = installed("azure-mobile-apps/src/utilities/errors");

const [folder, port] = process.argv.slice(2);
const logging = { level: "warn", transports: [new winston.transports.Console({ timestamp: true })] };

const TABLES = {
  items: { columns: { n: "number", name: "string" } },
  kinds: {
    columns: {
      flag: "boolean", small: "number", whole: "number", big: "number", real: "number", exact: "number",
      text: "string", bytes: "string", day: "date", clock: "string", moment: "date", instant: "date", guid: "string",
    },
  },
  parents: { columns: { code: "string" } },
  children: { columns: { parent: "string", name: "string", amount: "number" } },
  weather: { columns: { origin: "string", hour: "date", temp: "number" } },
  fixed: { columns: { n: "number" }, dynamicSchema: false },
  forgetful: { columns: { n: "number" }, softDelete: false },
  strict: { columns: { name: "string" } },
  numbered: { columns: { name: "string" }, autoIncrement: true },
};

// What a service's owner may have added to its database by hand.
const BY_HAND = [
  "create unique index if not exists [parents code] on [parents] ([code]) where [deleted] = 0",
  `create trigger if not exists [strict name] before insert on [strict] when new.name is null
     begin select raise(abort, 'NOT NULL constraint failed: strict.name'); end`,
];

function tables() {
  const made = {};
  for (const [name, definition] of Object.entries(TABLES)) {
    made[name] = Object.assign(mobile.table(), { softDelete: true }, definition);
  }
  made.items.insert((context) => {
    if (!("name" in context.item)) context.item.name = "new";
    return context.execute();
  });
  made.children.insert(async (context) => {
    const { name, amount, parent } = context.item;
    if (name === undefined || name === null) throw badRequest("name is missing");
    if (amount < 0) throw badRequest("amount is less than 0");
    if (parent !== undefined && (await context.tables("parents").where({ id: parent }).read()).length === 0) {
      throw badRequest("there is no such parent");
    }
    return context.execute();
  });
  return made;
}

async function service(name) {
  const filename = path.join(folder, `${name}.db`);
  const app = mobile({ homePage: false, logging, data: { provider: "sqlite", filename } });
  for (const [table, definition] of Object.entries(tables())) app.tables.add(table, definition);
  const database = new sqlite3.cached.Database(filename);
  const run = (sql) => new Promise((done, fail) => database.run(sql, (error) => (error ? fail(error) : done())));
  await run("pragma synchronous = off"); // nobody pulls the plug of a test
  await run("pragma journal_mode = memory");
  await app.tables.initialize();
  for (const sql of BY_HAND) await run(sql);
  return app;
}

const root = express();
root.put("/:name", (request, response, next) => {
  const { name } = request.params;
  service(name).then((app) => { root.use(`/${name}`, app); response.status(201).end(); }).catch(next);
});
const server = root.listen(Number(port || 0), "127.0.0.1", () => console.log(`port ${server.address().port}`));

// npm's own `sqlite3` compiles SQLite for minutes; this fork of it brings the same driver ready made, as an ES module.
module.exports = require("@appthreat/sqlite3").default;

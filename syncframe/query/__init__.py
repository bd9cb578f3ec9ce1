"""The one filter language: what rows a pull, a frame or a back end is asked for.

A `where` is a SQL condition with the meaning that DuckDB gives it; a `$filter` is the same in the words
of OData.  Either is parsed, held against a white list and typed by the table's schema into one small
tree, and each engine has a writer that renders this tree with bound parameters.  A writer reproduces the
meaning or raises QueryError, for a filter that means one thing here and another there would lose rows:
SQLite alone holds 7/2 = 3 and 'JFK' like 'jfk' to be true.  What SQLite's own operators do differently is
done by functions that `register_sqlite_functions` puts on the connection.

Settled here for every engine: NaN is NULL, as everywhere in syncframe; a time without an offset,
compared with an instant, is UTC; whole numbers are computed with 127 bits, so that a sum overflows
nowhere that it does not in DuckDB; a number becomes the nearest double.

    tree                 the tree, and Query and Read
    values, patterns     literals and what they become; the patterns of `like`
    rules                what may stand with what: both readers build by it
    sql, odata           the readers of SQL and of `$filter` (and odata_tokens, its words)
    canonical            the language's own text of a tree
    duckdb, sqlite       the writers of SQL
    odata_text           the writer of OData
"""

from __future__ import annotations

from .duckdb import to_duckdb
from .odata import parse_filter, parse_orderby
from .odata_text import to_odata
from .postgres import to_postgres
from .rules import FUNCTIONS, RANK, Function
from .sql import parse
from .sqlite import to_sqlite
from .sqlite_functions import register_sqlite_functions
from .tree import (
    ARGUMENTS_MAX,
    DEPTH_MAX,
    DIGITS_MAX,
    SYSTEM_KINDS,
    TEXT_BYTES_MAX,
    Call,
    Column,
    Condition,
    Literal,
    Node,
    Order,
    Query,
    Read,
)

__all__ = [
    "ARGUMENTS_MAX",
    "DEPTH_MAX",
    "DIGITS_MAX",
    "FUNCTIONS",
    "RANK",
    "SYSTEM_KINDS",
    "TEXT_BYTES_MAX",
    "Call",
    "Column",
    "Condition",
    "Function",
    "Literal",
    "Node",
    "Order",
    "Query",
    "Read",
    "parse",
    "parse_filter",
    "parse_orderby",
    "register_sqlite_functions",
    "to_duckdb",
    "to_odata",
    "to_postgres",
    "to_sqlite",
]

"""Any back end behind HTTP: as a Datasync service in both of its dialects, and to our own client by an extension.

    import syncframe as sf

    with sf.serve("sqlite:///flights.db", track=True) as server:
        print(server.url)                                # http://127.0.0.1:41283; tables under /tables/<name>

This page is the protocol.  `access` says who asks, by a key or one of `tokens`, `rights` what they may do and
`guard` shows them a back end that has nothing else; `tables` says what is served, `plain`, `lists` and `rows`
speak the dialects, `extension` the rest; `app` reads a request within `limits`, has it worked on in a thread
(`work`) and answers; `failures` makes an answer of what went wrong; `run` and `http` keep it all running.


Both dialects, in short
=======================
One path, ``/tables/<name>``; a request whose ``ZUMO-API-VERSION``, a header or a parameter in any case, is
2.x is answered in v2 (Azure Mobile Apps), any other in v3 (Datasync Community Toolkit).

    what        v2                                         v3
    list        GET /        200 [..], or with             GET /        200 {"items": [..], "count": n or null,
                $inlinecount=allpages                                   "nextLink": "query string" or null}
                {"results": [..], "count": n}; Link: <url>; rel=next
    read        GET /id      200, 404 (also if deleted)    GET /id      200, 404, 410 (deleted)
    insert      POST /       201, 409 + row                POST /       201, 409 + row
    change      PATCH /id, or / with id in the body        PUT /id      the whole row: what is not sent is NULL
                200, 404, 412 or 409 + row                              200, 404, 410, 412 + row
    delete      DELETE /id   200 + row, 404, 412 + row     DELETE /id   204, 404, 410, 412 + row
    undelete    POST /id, no body: 201 + row               PUT /id?__includedeleted=true, "deleted": false

A list takes ``$filter``, ``$orderby``, ``$select``, ``$top``, ``$skip``, ``$count=true`` (v3) or
``$inlinecount=allpages`` (v2); ties are sorted by the key.  A page has 50 rows in v2 and 100 in v3, or `page_rows`;
v2 honours a larger ``$top`` up to 1,000; v3 goes on by its link, and has pages of up to 10,000 rows for a
client that says ``Prefer: maxpagesize=n``.  The link of a list by ``updatedAt`` goes on behind its last row
(``$skiptoken``), so that none is missed when rows are changed between two pages.  Deleted rows are listed with
``__includedeleted=true`` (v2: any value).  `syncframe.query.odata` reads all dialects of the filter.

A row has ``id``, the columns, and ``updatedAt``, ``version``, ``deleted``, in v2 ``createdAt`` besides.  ``id`` is
text: that of a key which is not one text column is made of the key's values (`syncframe.wire`), and the
columns stand beside it.  The ``ETag`` is the version, always strong.  ``If-Match``, ``If-None-Match``,
``If-Unmodified-Since`` and ``If-Modified-Since`` are those of RFC 9110, section 13; dates have whole seconds, a
row's is cut to them.  In v2 a ``version`` in the body of a PATCH without If-Match is a condition too (409).
Without a condition the last writer wins.

Before a list by ``updatedAt`` all rows get stamps that are unique and rise in the order in which they were
committed, in whole milliseconds; what is written after that is not in it.  A single row may be shown with an
earlier stamp than it gets so.

Where we differ from other servers, on purpose: a column that the table has not is refused with 400 unless it is
null (they drop it, and what was written in it is lost without a word); a query option with ``$`` that is not known is
refused; a 409 of an insert has the row that is there in v2 too; ``$top=0`` is no rows; a conditional read is
answered with 304 in v2 too; and nothing that is sent is answered with a 500.

Errors are JSON: ``{"error": words, "hint": words, "kind": a class of syncframe.errors, "status": n}``, with ``code``
("unique", "reference", "not null", "check", "type") and ``column`` where the back end refuses a row, and
with ``id`` where the server's log has more. 400 wrong, 401 no key, 403 not for you, or the back end says no,
404 no such thing, 405 not done here (``Allow``), 408 too slow, 409 and 412 another row than you think, 410
deleted, or a checkpoint that is lost, 413, 414 and 431 too large, 415 another kind of body, 421 another host,
501 not of this back end, 502 the back end failed, 503 not now (``Retry-After``).


Who may
=======
With `tokens` or `jwt`, each request has a key or a token: ``X-ZUMO-AUTH: key``, or else ``Authorization: Bearer
key``; without a good one all is answered with 401.  Without both a server listens on this machine alone, answers
only under an address or ``localhost`` as its host (421), and not to the scripts of pages that came from elsewhere
(403).

A token is a JSON Web Token that is signed with a key of `jwt` (HS256 to 512, RS and PS, ES256 to 512, EdDSA; the key
says which, and ``none`` is never taken).  It has ``exp``; ``nbf``, ``iss`` and ``aud`` are held against what is set,
and a token with an ``aud`` is refused where no audience is.

`rights` say who may read, insert, update and delete in which table, and on which rows:

    rights = {"flights": [
        {"who": "*", "may": ["read"]},                        # everybody with a token
        {"who": {"role": "editor"}, "may": ["insert", "update"], "where": "carrier in (:carriers)"},
        {"who": "key:robot", "may": ["read"]},                # a key with a name; "ann" is the subject of a token
    ]}

Rules add up; what none of them allows is not allowed.  A key without a name is one of everybody; one that may do all
has a rule for it: ``"*": [{"who": "key:admin", "may": ["read", "insert", "update", "delete"]}]``.  In a `where`,
``:sub`` and other claims stand for one literal each; a claim that is missing or does not fit is answered with 403.

-   A table in which somebody may do nothing is not there for them (404); one in which they may do something else
    is there, and says 403.
-   A row that they may not read is not there: 404, in no list, count, pull or look-up, and no conflict shows it.
    Of a deleted row its last values say whether it may be read.  To change a row takes the right to read it.
-   An insert, or a change whose result would lie outside, is 403 in the plain protocol; in the extension it is an
    outcome, "rejected" with the code "access", and the others of its batch are applied.  Where nothing of a request
    is allowed by its table and verb, that is 403.  An insert asks for `insert`, and so does bringing a row back; a
    column that is not given counts as NULL for the filter, whatever its default is.
-   That a key is taken by a row that they may not read shows when they insert under it (403), as a unique value and
    a reference do: give keys that nobody guesses.
-   A pull goes on from its checkpoint while nothing changes outside what they may read.  When something does, one of
    their rows may have been taken away; which, only their store could say.  So the checkpoint is lost (410), a client
    of ours pulls in full, and no key of another row is ever sent.  ``"name_leavers": true`` in a rule has the keys of
    all rows that change outside sent instead, and pulls stay short.


The extension
=============
All of it is under ``/syncframe``; a service without it answers 404 or anything else there, and is a plain one.
Arrow is ``application/vnd.apache.arrow.stream``.  A table is named by ``?table=NAME``.

    GET /syncframe
        {"syncframe": 1, "identity": text or null, "promises": {"sees_deletes": ..,
         "sees_late_commits": .., "exact_types": .., "atomic_push": ..}, "tables": [names],
         "push_rows": n, "body_bytes": n, "read_only": false}
        `identity` names the data, however it is reached.  `push_rows` is how many operations a request may
        have, `body_bytes` how large it may be.

    GET /syncframe/schema?table=NAME
        {"schema": {"key": [..], "columns": [[name, type, nullable, labels, held as], ..]}, "tracked": true}
        Types bear DuckDB's names; they give the columns of all streams (`syncframe.schema.TYPES`).

    POST /syncframe/pull?table=NAME          {"where": text or null, "columns": [..] or null, "page_rows": n,
                                              "since": checkpoint or null, "others": [text or null, ..]}
        -> one Arrow stream.  `where` is a condition in syncframe's own language; `others` are the table's other
        queries, so that a row that left this one can say whether one of them still holds it.
        Columns: the key, those asked for, _syncframe_version (text), _syncframe_deleted (a tombstone),
        _syncframe_operation (who wrote it last), _syncframe_created, _syncframe_updated, _syncframe_left (the row
        changed and does not match any more: only its key is there) and _syncframe_held.
        A page is one batch or several; its last batch has the metadata {"checkpoint": text, "held_back_s": n},
        an empty page is an empty batch with them, and checkpoint "" says that there is none.  What stands
        before a checkpoint is whole: a pull that was cut goes on from the last one.

    POST /syncframe/push?atomic=0            Arrow streams, one after another: each a table's operations
        -> as many streams of outcomes, in the same order.  Operations: operation_id, kind ("insert",
        "update", "delete"), base_version, given (the columns to write), k_<name> for each column of the key and
        l_<name> for each other; the schema's metadata have {"table": NAME}.  Outcomes: operation_id,
        status ("accepted", "conflicted", "rejected"), code, column, message, version, deleted, operation, created,
        updated, and r_<name>, the row as it is now.  They are sent as they are committed.
        All is checked before anything is applied: ids of operations are [A-Za-z0-9][!-~]{0,127} and unique in
        a stream, so are keys; batches are not compressed and have no dictionaries.
        An operation is known by its id, so that a batch that is sent again does no harm.
        atomic=1: all or nothing, where the back end promises it; if anything is conflicted or rejected, only
        those outcomes come, and nothing was applied.
        As JSON: {"table": NAME, "operations": [{"operation_id", "kind", "base_version", "key": {column: value} or the
        text id, "values": {column: value}, "given": [names], by default those of values}, ..]}, answered by an
        array of outcomes, `row` for r_.  If it broke off, the error has "outcomes", those committed before.

    POST /syncframe/rows?table=NAME          an Arrow stream of the key's columns
        -> the rows that are there, and tombstones, as in a page
    POST /syncframe/read?table=NAME          {"where", "columns", "order_by": [[name, descending], ..], "limit",
                                              "offset", "include_deleted"}
        -> rows as in a page
    POST /syncframe/count?table=NAME         the same body
        -> {"count": n}

The last batch of a stream is an empty one with the metadata {"end": "1"}.  A stream without it was cut: what came
in whole pages, or as outcomes, counts.  One that breaks in the middle ends with an empty batch that has {"error": the
JSON of an error}.  An empty batch without metadata is a sign of life, and may stand anywhere.
``compression=lz4`` packs the batches of the answer.
"""

from __future__ import annotations

from ..errors import SyncError

try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    raise SyncError(f"a server needs {error.name}", hint='pip install "syncframe[server]"') from error

from .access import Identity
from .app import App
from .limits import Limits
from .rights import Right
from .run import Server, make_app, serve
from .tokens import Jwt

__all__ = ["App", "Identity", "Jwt", "Limits", "Right", "Server", "make_app", "serve"]

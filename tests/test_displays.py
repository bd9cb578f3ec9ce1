"""What people see of the queue, of conflicts and of results: in words, and as HTML in which nothing of a row is markup."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import sqlite3
import subprocess
import sys
from decimal import Decimal
from html.parser import HTMLParser

import pandas as pd
import pytest
from stories import Line, lost_answers, synced, todo_database

import syncframe as sf
from syncframe import words
from syncframe.cli import main

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")
TAGS = {"div", "p", "table", "caption", "thead", "tbody", "tr", "th", "td", "code", "em", "br"}
PAYLOADS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></tr></table><h1>x", "\"><svg onload=alert(1)>",
    "' onmouseover='alert(1)", "javascript:alert(1)", "<a href='javascript:alert(1)'>x</a>", "&lt;b&gt;", "&#60;b&#62;",
    "<!-- x", "<![CDATA[<b>]]>", "<style>*{display:none}</style>", "<iframe srcdoc='<b>'>", "</code><b>x</b>",
    "$\\href{javascript:alert(1)}{x}$", "{{constructor}}", "a\u202eb<i>", "two\nlines<b>", "\x1b[31mred<u>", "<B" + "x" * 300,
]  # fmt: skip


class Page(HTMLParser):
    """The tags, attributes and text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.body_rows = 0
        self._open = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self._open += [tag] if tag != "br" else []
        self.body_rows += tag == "tr" and "tbody" in self._open

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"{tag} is closed and was not open"

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    handle_decl = handle_pi = unknown_decl = handle_comment


def in_conflict(database) -> sf.SyncContext:
    """A context whose push has met three conflicts: edit against edit, delete against edit, edit against delete."""
    context = synced(database.url)
    database.run("update todo set n = 8, title = 'oat milk' where id = 'a'; update todo set n = 7 where id = 'b'; "
                 "delete from todo where id = 'c'")  # fmt: skip
    context["todo"].update("a", n=9)
    context["todo"].delete("b")
    context["todo"].update("c", title="eggs, brown")
    context.push(progress=False)
    return context


# How things are said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "NULL"),
        (float("nan"), "NULL"),
        (pd.NA, "NULL"),
        (pd.NaT, "NULL"),
        ("", "''"),
        ("NULL", "'NULL'"),
        ("7", "'7'"),
        (7, "7"),
        (True, "True"),
        (2**63 - 1, "9223372036854775807"),
        (Decimal("0.0000000001"), "0.0000000001"),
        (0.1, "0.1"),
        (b"\x00\xff", "x'00ff'"),
        (b"", "x''"),
        (dt.date(2013, 1, 2), "2013-01-02"),
        (dt.datetime(2013, 1, 2, 6, tzinfo=dt.UTC), "2013-01-02T06:00:00Z"),
        ("two\nlines \u202e", "'two\\nlines \\u202e'"),
        ("y" * 1_000_000, "'" + "y" * 36 + "... (1,000,000 characters)"),
        (b"\x00" * 50, "x'" + "0" * 35 + "... (50 bytes)"),
    ],
)
def test_a_cell_is_said_on_one_line_and_types_are_told_apart(value, said):
    assert words.cell(value) == said


def test_keys_counts_sizes_and_times_are_said_one_way():
    at = dt.datetime(2013, 1, 2, 6, 7, 8, 999_999, tzinfo=dt.UTC)

    assert words.key("kiwi") == "'kiwi'"
    assert words.key(("kiwi", 7, at)) == "('kiwi', 7, 2013-01-02T06:07:08.999999Z)"
    assert [words.many(n, "row") for n in (0, 1, 2, 2_000)] == ["0 rows", "1 row", "2 rows", "2,000 rows"]
    assert [words.figure(v) for v in (None, 1_234, at, pd.Timestamp(at))] == [
        "-", "1,234", "2013-01-02 06:07:08 UTC", "2013-01-02 06:07:08 UTC"]  # fmt: skip
    assert [words.size(n) for n in (0, 999, 262_144, 1_840_000, 3_000_000_000)] == [
        "0 bytes", "999 bytes", "262 KB", "1.84 MB", "3 GB"]  # fmt: skip
    assert [words.name(n) for n in ("todo", "", "a b", " a", "a\nb")] == ["todo", "''", "a b", "' a'", "'a\\nb'"]


# What is queued


def test_pending_shows_counts_then_the_operations_with_old_and_new_cells(database):
    context = synced(database.url)
    context["todo"].update("a", title="oat milk", n=None)
    context["todo"].delete("b")
    context["lists"].insert({"id": "new", "name": ""})

    assert repr(context.pending).splitlines() == [
        "Pending: 3 operations",
        "table  insert  update  delete",
        "lists       1       0       0",
        "todo        0       1       1",
        "",
        "update todo 'a': n 1 -> NULL, title 'milk' -> 'oat milk'",
        "delete todo 'b'",
        "insert lists 'new': name ''",
    ]
    assert repr(context["todo"].pending).splitlines()[:3] == [
        "Pending: 2 operations", "table  insert  update  delete", "todo        0       1       1"]  # fmt: skip
    assert repr(sf.connect(store=":memory:").pending) == "Pending: nothing"


def test_pending_says_what_was_sent_what_was_rejected_and_why_and_what_is_in_conflict(database):
    line = Line(database.url)
    context = synced(line)
    context["todo"].update("a", n=-1)
    context.push(progress=False)
    database.run("update todo set n = 7 where id = 'b'")
    context["todo"].update("b", n=8)
    context.push(progress=False)
    context["todo"].update("c", n=9)
    with lost_answers(line), pytest.raises(sf.TransientError):
        context.push(progress=False)

    text, page = repr(context.pending).splitlines(), Page(context.pending._repr_html_())

    assert text[1:3] == [
        "table  insert  update  delete  conflicts  rejected", "todo        0       3       0          1         1"]  # fmt: skip
    assert text[4:] == [
        "update todo 'a': n 1 -> -1",
        "  rejected: CHECK constraint failed: n >= 0 (check)",
        "update todo 'b': n 2 -> 8",
        "  in conflict",
        "update todo 'c': n 3 -> 9",
        "  sent, and its answer is not known",
    ]
    for said in ("rejected: CHECK constraint failed", "in conflict", "its answer is not known", "n 1 -> -1"):
        assert said in page.text


def test_of_many_operations_the_first_twenty_are_shown_and_how_many_more_there_are(database):
    context = synced(database.url)
    context["todo"].insert([{"id": f"k{n:03}", "title": "x", "n": n} for n in range(50)])

    text, page = repr(context.pending).splitlines(), Page(context.pending._repr_html_())

    assert text[4] == "insert todo 'k000': n 0, title 'x'"
    assert text[-2:] == [
        "insert todo 'k019': n 19, title 'x'", "... and 30 more (ctx.pending.frame() has all)"]  # fmt: skip
    assert page.body_rows == 1 + 20
    assert "'k019'" in page.text
    assert "'k020'" not in page.text


def test_an_operation_is_one_readable_line(database):
    context = synced(database.url)
    context["todo"].update("a", title="y" * 1_000)
    context["todo"].delete("b")
    context["todo"].insert({"id": "e", "title": "jam"})

    assert [repr(operation) for operation in context.pending] == [
        "Operation(update todo 'a': title 'milk' -> '" + "y" * 36 + "... (1,000 characters))",
        "Operation(delete todo 'b')",
        "Operation(insert todo 'e': title 'jam')",
    ]
    assert "title" in Page(next(iter(context.pending))._repr_html_()).text


# Conflicts


def test_conflicts_show_the_cells_that_differ_what_happened_and_how_to_settle_them(database):
    context = in_conflict(database)

    assert repr(context.conflicts).splitlines() == [
        "Conflicts: 3",
        "",
        "todo 'a': changed on both sides",
        "         base    mine    theirs",
        "  title  'milk'  'milk'  'oat milk'",
        "  n      1       9       8",
        "",
        "todo 'b': you have deleted it, they have changed it",
        "     base  mine  theirs",
        "  n     2  -          7",
        "",
        "todo 'c': you have changed it, they have deleted it",
        "         base    mine           theirs",
        "  title  'eggs'  'eggs, brown'  -",
        "",
        "settle one: ctx.conflicts['todo', 'a'].keep_mine(), .take_theirs() or .resolve({column: value})",
        "settle all: ctx.conflicts.keep_mine() or .take_theirs()",
    ]
    assert repr(context.conflicts["todo", "b"]) == "Conflict(todo 'b': you have deleted it, they have changed it)"
    assert repr(context.conflicts["todo", "a"]) == (
        "Conflict(todo 'a': title: base 'milk', mine 'milk', theirs 'oat milk'; n: base 1, mine 9, theirs 8)"
    )
    assert repr(synced(database.url).conflicts) == "Conflicts: none"


def test_conflicts_as_html_have_a_row_for_each_cell_and_at_most_twenty(database):
    context = in_conflict(database)

    page = Page(context.conflicts._repr_html_())

    assert page.body_rows == 4
    for said in ("Conflicts: 3", "changed on both sides", "you have deleted it", "'oat milk'", "keep_mine()"):
        assert said in page.text
    assert "'home'" not in page.text  # the same on all sides


def test_two_rows_of_one_key_are_said_to_be_made_by_both(database):
    context = synced(database.url)
    context["todo"].insert({"id": "z", "title": "mine"})
    database.run("insert into todo (id, title) values ('z', 'theirs')")
    context.push(progress=False)

    assert "todo 'z': both have made it" in repr(context.conflicts)
    assert "title: base NULL, mine 'mine', theirs 'theirs'" in repr(next(iter(context.conflicts)))


def test_of_many_conflicts_a_few_are_read_and_the_rest_counted(database):
    context = synced(database.url)
    context["lists"].insert([{"id": f"k{n:03}", "name": "mine"} for n in range(50)])
    for n in range(50):
        database.run(f"insert into lists values ('k{n:03}', 'theirs')")
    context.push(progress=False)

    text, page = repr(context.conflicts), Page(context.conflicts._repr_html_())

    assert "... and 30 more (ctx.conflicts.frame() has all)" in text.splitlines()
    assert text.count("both have made it") == page.body_rows == 20


# Results


def test_a_push_result_has_its_headline_then_reasons(database):
    context = synced(database.url)
    database.run("update todo set n = 8 where id = 'a'")
    context["todo"].update("a", n=9)
    context["todo"].update("b", n=-1)
    context["todo"].update("c", n=4)

    result = context.push(progress=False)

    assert repr(result).splitlines() == [
        "PushResult: 1 accepted, 1 conflicts, 1 rejected",
        "  rejected: update of todo 'b': CHECK constraint failed: n >= 0 (check)",
        "  ctx.pending has them; edit the row, or revert it; push(retry_rejected=True) sends it again",
        "  conflict: todo 'a': n: base 1, mine 9, theirs 8",
        "  ctx.conflicts has base, mine and theirs; keep_mine(), take_theirs() or resolve(...) settles them",
    ]
    assert repr(result.accepted) == "Sent: 1 operation\n  Operation(update todo 'c': n 3 -> 4)"
    assert [repr(operation) for operation in result.rejected] == [
        "Operation(update todo 'b': n 2 -> -1; rejected: CHECK constraint failed: n >= 0 (check))"
    ]
    for piece in (result._repr_html_(), result.accepted._repr_html_()):
        assert Page(piece).tags <= TAGS


def test_a_pull_says_what_came_of_each_table_and_what_was_here_already(database):
    context = synced(database.url)
    database.run("update todo set n = 8 where id = 'a'")

    result = context.pull(full=True, progress=False)

    head, lists, todo = repr(result).splitlines()
    assert head.startswith("PullResult: 0 inserted, 1 updated, 0 deleted, 0 conflicts (5 rows in ")
    assert head.endswith("; 4 as here already)")
    assert lists == "  lists: 0 inserted, 0 updated, 0 deleted, 0 conflicts"
    assert todo == "  todo: 0 inserted, 1 updated, 0 deleted, 0 conflicts"
    assert Page(result._repr_html_()).body_rows == 2


def test_changes_name_what_an_undo_left_and_why(database):
    context = synced(database.url)
    context["todo"].update("a", n=9)
    context.push(progress=False)

    taken_back = context.undo()

    assert repr(taken_back).splitlines() == [
        "Changes: 0 deletes, 0 inserts, 0 updates",
        "  left alone, for they were sent or settled since: 'a'",
    ]


def test_changes_show_deletes_first_and_up_to_ten_rows_with_old_and_new_cells(database):
    context = synced(database.url)
    context["todo"].insert([{"id": f"k{n:03}", "title": "x", "n": n} for n in range(30)])
    context.push(progress=False)
    frame = context["todo"].frame().drop(["a", "k003"])
    frame["n"] += 1

    changes = context["todo"].diff(frame)

    text, page = repr(changes).splitlines(), Page(changes._repr_html_())
    assert text[:3] == [
        "Changes: 2 deletes, 0 inserts, 31 updates",
        "  deletes: 'a', 'k003'",
        "  updates: 'b': n 2 -> 3",
    ]
    assert text[-1] == "  updates: and 21 more"
    assert page.body_rows == 1 + 10 + 1
    assert "keycolumnoldnew" in page.text and "updates'b'n23" in page.text


LONG = "of the flight to Boston that left so late " * 30


def test_changes_show_each_cell_as_the_widget_does(database):
    """NULL, empty, blanks and what cannot be seen are told apart; long texts have their length and show what differs."""
    context = synced(database.url)
    context["todo"].update("a", title=LONG + "is fog")
    frame = context["todo"].frame()
    frame.loc["a", "title"] = LONG + "was fog"
    frame.loc["b", ["title", "code"]] = ["", "NULL"]
    frame.loc["c", ["title", "list"]] = [" \u202e<b>\n", None]
    frame.loc["d"] = ["home", "tea  ", 7, None, None]

    changes = context["todo"].diff(frame)

    assert repr(changes).splitlines() == [
        "Changes: 0 deletes, 1 inserts, 3 updates",
        "  inserts: 'd': list 'home', title 'tea  ', n 7",
        "  updates: 'a': title ...'so late is fog' (1,266 characters) -> ...'so late was fog' (1,267 characters)",
        "  updates: 'b': title 'bread' -> '', code NULL -> 'NULL'",
        "  updates: 'c': list 'work' -> NULL, title 'eggs' -> ' \\u202e<b>\\n'",
    ]
    page = Page(changes._repr_html_())
    assert page.body_rows == 3 + 1 + 2 + 2
    assert "<em>NULL</em>" in changes._repr_html_() and "&#x27;NULL&#x27;" in changes._repr_html_()
    assert "&lt;b&gt;" in changes._repr_html_() and "<b>" not in changes._repr_html_()


def test_long_texts_side_by_side_show_where_they_differ():
    assert words.cells("y" * 99, "y" * 99 + "z") == ["...'yyyyyyyy' (99 characters)", "...'yyyyyyyyz' (100 characters)"]
    assert words.cells(LONG, LONG, None) == [words.cell(LONG)] * 2 + ["NULL"]
    assert words.cells("milk", "y" * 99) == ["'milk'", words.cell("y" * 99)]
    assert words.cells("y" * 50 + "a", "y" * 50 + "b", "y") == [
        "...'yyyyyyyya' (51 characters)", "...'yyyyyyyyb' (51 characters)", "'y'"]  # fmt: skip


# Tables of what is here


def test_status_stays_a_frame_and_is_shown_in_words(database):
    context = synced(database.url)
    context["todo"].update("a", n=9)

    status = context.status()

    assert list(status.columns) == [
        "rows", "pending", "conflicts", "rejected", "last_pull", "last_push", "bytes", "promises"]  # fmt: skip
    assert status.index.name == "table"
    assert status.loc["todo", "pending"] == 1
    head, lists, todo, promises = repr(status).splitlines()
    assert head.split("  ")[0] == "table"
    assert todo.split()[:5] == ["todo", "3", "1", "0", "0"]
    assert len(STAMP.findall(todo)) == 1
    assert lists.split()[-3] == "-"  # never pushed
    assert promises.startswith("lists, todo: reads only what changed, ")
    assert Page(status._repr_html_()).body_rows == 2


def renamed(frame: pd.DataFrame) -> None:
    frame.index.name = None


def called_alike(frame: pd.DataFrame) -> None:
    frame.columns = ["rows"] * len(frame.columns)


def given_the_name_of_its_index(frame: pd.DataFrame) -> None:
    frame["table"] = frame.index


@pytest.mark.parametrize("change", [renamed, called_alike, given_the_name_of_its_index])
def test_status_is_shown_whatever_was_made_of_it_in_place(database, change):
    status = synced(database.url).status()

    change(status)

    assert "rows" in repr(status)
    assert "rows" in status._repr_html_()


def test_whatever_is_made_of_status_and_history_is_a_plain_frame(database):
    context = synced(database.url)

    for frame in (context.status(), context.history):
        assert isinstance(frame, pd.DataFrame)
        for made in (frame.head(1), frame.reset_index(), frame[frame["rows"] > 0], frame.copy(), frame[["rows"]]):
            assert type(made) is pd.DataFrame
        pd.testing.assert_frame_equal(pd.DataFrame(frame), frame.copy())


def test_history_is_shown_newest_last_to_the_second_and_without_nan(database):
    context = synced(database.url)
    for n in range(25):
        context["todo"].update("a", n=100 + n)
    context.push(progress=False)

    history = context.history
    head, *lines, more = repr(history).splitlines()

    assert list(history.columns) == ["time", "action", "table", "rows", "note"]
    assert len(history) == 28
    assert head.split() == ["time", "action", "table", "rows", "note"]
    assert len(lines) == 20
    assert all(STAMP.match(line) for line in lines)
    assert lines[-1][25:].split() == ["push", "-", "1", "0", "conflicts,", "0", "rejected"]
    assert more == "these are the last 20 of 28 lines"
    assert "NaN" not in repr(history) + history._repr_html_()


def test_a_schema_says_types_what_may_be_null_and_the_key(database):
    schema = synced(database.url)["todo"].schema

    assert repr(schema).splitlines()[:4] == [
        "Schema: 6 columns, key id",
        "column  type     null      key",
        "id      VARCHAR  NOT NULL  key",
        "list    VARCHAR",
    ]
    assert Page(schema._repr_html_()).body_rows == 6


def test_a_table_a_remote_table_and_a_server_say_what_they_are(database):
    context = synced(database.url)
    context["todo"].update("a", n=9)

    assert repr(context["todo"]) == ("SyncTable 'todo': 3 rows, 1 pending, key id, columns list, title, n, stars, code")
    assert repr(context["nowhere"]) == "SyncTable 'nowhere': no schema is known yet; pull it, or give one"
    assert repr(context.remote("todo")).startswith(f"RemoteTable 'todo' of {database.url}: ")
    with sf.serve(database.url, tables=["todo"]) as server:
        page = Page(server._repr_html_())
    assert f"{server.url}/tables/todo" in page.text
    for thing in (context["todo"], context["nowhere"], context.remote("todo")):
        assert Page(thing._repr_html_()).tags <= TAGS


# The context


def test_a_context_shows_counts_for_each_table_and_no_cells(database):
    context = in_conflict(database)
    context["todo"].insert({"id": "secret key", "title": "secret cell"})

    text, page = repr(context).splitlines(), Page(context._repr_html_())

    assert text[0] == f"syncframe  {database.url}  store :memory:"
    assert text[1].split("  ")[1:2] == ["table"]
    assert text[3].split()[:7] == ["todo", "3", "1", "2", "1", "3", "0"]
    assert page.body_rows == 2
    for said in (database.url, "todo", "last pull", "conflicts"):
        assert said in page.text
    assert "secret" not in page.text + "".join(text)
    assert repr(sf.connect(store=":memory:")).splitlines()[1] == "  no tables yet"


def test_no_secret_is_shown():
    url = "https://user:pa55word@example.net/app"
    context = sf.connect(url, store=":memory:", token="t0ken", headers={"X-Key": "h3ader"})
    context.table("todo", schema={"id": "VARCHAR"})

    shown = [repr(thing) + thing._repr_html_() for thing in (context, context["todo"], context.remote("todo"))]

    assert all("example.net" in text for text in (shown[0], shown[2]))
    for secret in ("pa55word", "t0ken", "h3ader"):
        assert not any(secret in text for text in shown)


def test_a_table_s_name_is_completed():
    from IPython.core.completer import provisionalcompleter
    from IPython.core.interactiveshell import InteractiveShell

    context = sf.connect(store=":memory:")
    for name in ("flights", "weather"):
        context.table(name, schema={"id": "VARCHAR"})
    shell = InteractiveShell()
    shell.user_ns["ctx"] = context

    with provisionalcompleter():
        _, found = shell.complete("", line='ctx["', cursor_pos=5)
        _, narrowed = shell.complete("", line='ctx["we', cursor_pos=7)

    assert {"flights", "weather"} <= {text.strip('"]') for text in found}
    assert [text.strip('"]') for text in narrowed] == ["weather"]


# Hostile text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Every display of a back end whose tables, columns, keys and cells are hostile texts, in conflict and rejected.

    Each with its text and its markup.
    """
    path = tmp_path_factory.mktemp("hostile") / "far.db"
    quoted = ['"' + name.replace('"', '""') + '"' for name in PAYLOADS]
    named = list(enumerate(PAYLOADS))[::2]  # every other one is a table's, and the one before it a column's
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for at, _ in named:
            name = quoted[at]
            connection.execute(
                f"create table {name} (id text primary key, {quoted[at - 1]} text, n bigint constraint {name} check (n >= 0))"
            )
            connection.executemany(f"insert into {name} values (?, ?, 1)", [(key, key) for key in PAYLOADS[:3]])
    context = sf.connect(f"sqlite:///{path}", store=":memory:")
    for at, name in named:
        table = context[name]
        table.pull(progress=False)
        table.update(PAYLOADS[0], {PAYLOADS[at - 1]: "mine " + PAYLOADS[at]})
        table.update(PAYLOADS[1], n=-1)
        table.delete(PAYLOADS[2])
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"update {quoted[at]} set {quoted[at - 1]} = ? where id <> ?", ["<u>", PAYLOADS[1]])
    pushed = context.push(progress=False)
    for _, name in named:
        context[name].insert({"id": "new " + name, "n": 1})
    changes = [context[n].diff(context[n].frame().assign(**{PAYLOADS[at - 1]: n})) for at, n in named]
    pulled = context.pull(push_first=False, progress=False)
    tables = [context[name] for _, name in named]
    things = [
        pushed, pulled, *changes, context.pending, context.conflicts, *(t.pending for t in tables),
        *(t.conflicts for t in tables), *context.conflicts, *context.pending, context.status(), context.history, context,
        *tables, *(t.schema for t in tables), *(context.remote(n) for _, n in named), context.push(progress=False).accepted,
    ]  # fmt: skip
    assert pushed.counts == {"accepted": 0, "conflicts": 20, "rejected": 10}
    return [(thing, repr(thing), thing._repr_html_()) for thing in things]


def test_no_hostile_text_becomes_markup(hostile):
    for thing, _, html in hostile:
        page = Page(html)
        assert page.tags <= TAGS, (type(thing), page.tags)
        assert page.attributes <= {"class", "style", "scope"}, type(thing)
        assert page.body_rows <= 2 * words.SHOWN_ROWS


def test_hostile_text_cannot_steer_a_terminal_or_turn_the_line_round(hostile):
    for thing, text, html in hostile:
        assert not [c for c in text if not c.isprintable() and c != "\n"], type(thing)
        assert not set("\x1b\u202e") & set(html), type(thing)


def test_hostile_text_is_there_to_be_read_and_no_typesetter_touches_it(hostile):
    html = next(html for thing, _, html in hostile if type(thing).__name__ == "PendingView")

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.startswith('<div class="tex2jax_ignore mathjax_ignore">')


def test_headers_have_a_scope_and_null_is_told_from_text(database):
    context = synced(database.url)
    context["todo"].insert({"id": "e", "title": "NULL", "n": None, "code": ""})

    html = next(iter(context.pending))._repr_html_()

    assert '<th scope="col"' in html
    assert '<th scope="row"' in html
    assert "<em>NULL</em>" in html
    assert "&#x27;NULL&#x27;</code>" in html
    assert "&#x27;&#x27;</code>" in html
    assert not re.search(r"color|background|<style", html)


# Errors, the command line, and importing


def test_another_back_end_is_named_by_its_url_and_nothing_else(database, tmp_path):
    store = tmp_path / "mine.duckdb"
    synced(database.url, store)["todo"].update("a", n=9)
    (tmp_path / "other").mkdir()
    other = todo_database(tmp_path / "other")

    with pytest.raises(sf.PendingError) as elsewhere:
        sf.connect(other.url, store=store).push(progress=False)
    database.path.unlink()
    todo_database(tmp_path)
    with pytest.raises(sf.PendingError) as anew:
        sf.connect(database.url, store=store).push(progress=False)

    assert elsewhere.value.message == f"1 operations are pending for {database.url}, and this is {other.url}"
    assert anew.value.message.endswith("and this is another database at the same place, made anew or restored")


def test_a_wrong_key_is_named_and_not_its_place(database):
    todo = synced(database.url)["todo"]

    with pytest.raises(sf.KeyColumnError) as one:
        todo.delete(5)
    with pytest.raises(sf.KeyColumnError) as several:
        todo.delete(["a", 5])

    assert "counted from 0" not in str(one.value) + str(several.value)
    assert "takes text, as UUID or str: 1 value does not fit: 5\n" in str(one.value)
    assert "5 in key 5\n" in str(several.value)


def told(capsys, *arguments):
    """The exit code and the one JSON object that a command prints."""
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_commands_that_change_something_tell_it_as_one_json_object(database, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCFRAME_URL", database.url)
    nothing = {"pending": 0, "conflicts": 0, "rejected": 0}

    _, tracked = told(capsys, "track", database.url, "lists")
    code, pulled = told(capsys, "pull", "mine.duckdb", "todo", "lists")
    todo = sf.connect(store="mine.duckdb")["todo"]
    assert (code, pulled["left"], pulled["error"]) == (0, nothing, None)
    assert (pulled["tables"]["todo"]["inserted"], pulled["tables"]["lists"]["inserted"]) == (3, 2)
    assert [(t["table"], t["was_tracked"], t["is_tracked"]) for t in tracked["tables"]] == [("lists", True, True)]
    assert all(isinstance(statement, str) for statement in tracked["tables"][0]["sql"])

    database.run("update todo set n = 8 where id = 'a'")
    todo.update("a", n=9)
    todo.update("b", n=-1)
    todo.update("c", n=4)
    code, pushed = told(capsys, "push", "mine.duckdb")
    assert code == 1
    assert {name: pushed[name] for name in ("accepted", "conflicts", "rejected", "error")} == {
        "accepted": 1, "conflicts": 1, "rejected": 1, "error": None}  # fmt: skip
    assert pushed["left"] == {"pending": 2, "conflicts": 1, "rejected": 1}

    code, resolved = told(capsys, "resolve", "mine.duckdb", "todo", "a", "--mine")
    assert (code, resolved["settled"], resolved["side"], resolved["left"]["conflicts"]) == (0, 1, "mine", 0)


def test_an_error_is_in_the_json_object_with_what_is_left(database, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synced(database.url, "mine.duckdb")["todo"].update("a", n=9)

    for command in ("push", "pull"):
        code, said = told(capsys, command, "mine.duckdb", "--url", "sqlite:///nowhere.db")
        assert code == 3
        assert said["error"]["type"] == "TransientError"
        assert "nowhere.db does not exist" in said["error"]["message"]
        assert said["left"] == {"pending": 1, "conflicts": 0, "rejected": 0}


def test_push_sends_rejected_operations_again_when_told(database, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    context = synced(database.url, "mine.duckdb")
    context["todo"].update("b", code="taken")
    database.run("update todo set code = 'taken' where id = 'c'")
    context.push(progress=False)
    database.run("update todo set code = null where id = 'c'")

    code, without = told(capsys, "push", "mine.duckdb", "--url", database.url)
    assert (code, without["accepted"], without["rejected"]) == (1, 0, 1)
    code, again = told(capsys, "push", "mine.duckdb", "--url", database.url, "--retry-rejected")

    assert (code, again["accepted"], again["rejected"]) == (0, 1, 0)
    assert database.rows("select code from todo where id = 'b'") == [("taken",)]


def test_pull_brings_the_rows_of_a_condition_and_remembers_it(database, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--url", database.url, "--where", "n >= 2", "--query-id", "many"]

    code, first = told(capsys, "pull", "mine.duckdb", "todo", *words)
    _, second = told(capsys, "pull", "mine.duckdb", "--url", database.url)
    refused = main(["pull", "mine.duckdb", "todo", "lists", *words])

    assert (code, first["tables"]["todo"]["inserted"]) == (0, 2)
    assert second["tables"]["todo"]["rows"] == 0
    assert refused == 2
    assert "a condition is of one table" in capsys.readouterr().err


def test_importing_has_no_side_effects(tmp_path):
    code = """
        import sys, os, threading
        seen = []
        def watch(event, arguments):
            if event == "open" and (set(str(arguments[1])) & set("wax+") or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                seen.append(arguments[0])
            if event in ("socket.connect", "socket.bind", "subprocess.Popen", "sqlite3.connect", "os.mkdir"):
                seen.append(event)
        sys.addaudithook(watch)
        import syncframe
        assert not {"pandas", "duckdb"} & set(sys.modules)
        for name in syncframe.__all__:
            getattr(syncframe, name)
        print(seen, [t.name for t in threading.enumerate()], {"IPython", "anywidget", "ipywidgets"} & set(sys.modules))
    """
    lines = "\n".join(line.removeprefix("        ") for line in code.splitlines())

    done = subprocess.run(
        [sys.executable, "-B", "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )

    assert done.stdout == "[] ['MainThread'] set()\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_in_a_notebook_an_error_shows_one_s_own_lines_and_not_the_frames_between():
    with (
        sf.connect("http://127.0.0.1:9", store=":memory:", timeout_s=1) as ctx,
        pytest.raises(sf.TransientError) as told,
    ):
        ctx["todo"].pull()

    shown = "\n".join(told.value._render_traceback_())
    assert 'ctx["todo"].pull()' in shown
    assert "TransientError: GET http://127.0.0.1:9/syncframe: no connection" in shown
    assert "hint: is the server running" in shown
    assert "httpcore" not in shown and len(shown.splitlines()) < 12


def test_a_push_that_reaches_nobody_says_that_what_is_queued_stays_queued(tmp_path):
    with sf.connect("http://127.0.0.1:9", store=":memory:", timeout_s=1, protocol="v3") as ctx:
        todo = ctx.table("todo", schema={"id": "VARCHAR", "n": "BIGINT"})
        todo.insert(pd.DataFrame({"id": ["a", "b"], "n": [1, 2]}))
        with pytest.raises(sf.TransientError) as told:
            ctx.push()

        assert told.value.hint.endswith("; 2 operations still queued")
        assert len(ctx.pending) == 2


@pytest.mark.parametrize(
    "values",
    [
        ("a" * 100, "a" * 99 + "b", "a" * 30 + "c" * 70),
        ("\0" * 20 + "1", "\0" * 20 + "2"),
        ("\U000e0001" * 60 + "1", "\U000e0001" * 60 + "2"),
        (b"\0" * 30 + b"1", b"\0" * 30 + b"2"),
        ("x" * 38, "x" * 38 + "..."),
        (None, "NULL", "", "7", 7),
    ],
)
def test_unlike_values_side_by_side_are_told_apart(values):
    said = [text.partition(" (")[0] for text in words.cells(*values)]  # how long they are is no help

    assert len(set(said)) == len(values)

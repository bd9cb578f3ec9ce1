"""The command line: a store looked at, pushed and pulled without a notebook, and tables tracked.

Each command is a function from its arguments to an exit code.  What it prints on standard output is
the answer; errors go to standard error, as words with their hint.  pandas, pyarrow and duckdb are
imported by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import AccessError, KeyColumnError, SchemaError, SyncError, TransientError
from .secrets import without_password
from .words import SHOWN_ROWS, figure, many, plain
from .words import line as one_line
from .words import name as name_words
from .words import table as table_lines

if TYPE_CHECKING:
    from .context import SyncContext
    from .operation import Operation
    from .pull import PullResult
    from .push import PushResult
    from .schema import Column
    from .server import Server
    from .views import Conflict

DONE, LEFT, WRONG, UNREACHABLE, STOPPED = 0, 1, 2, 3, 130
SERVE_PORT = 8000
SERVE_STOP_S = 10
HELP_WIDTH = 96

_EPILOG = """\
examples:
  syncframe demo --check                                    real flights, the whole journey, every step checked
  syncframe serve sqlite:///shop.db --track                 a database as a service for others
  syncframe track sqlite:///shop.db orders items            so that a pull brings only what has changed
  syncframe pull mine.duckdb orders --url sqlite:///shop.db
  syncframe pending mine.duckdb
  SYNCFRAME_URL=sqlite:///shop.db syncframe push mine.duckdb

exit codes:
  0  done                       1  conflicts or rejections are left after a push or a pull
  2  wrong usage or an error    3  the back end could not be reached, or refused
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; wrong usage exits with 2 as argparse does."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console that cannot show a letter shows its number
        sys.stdout.reconfigure(errors="backslashreplace")
    options.told = {}
    try:
        code: int = options.run(options)
        _print_told(options, None)
        sys.stdout.flush()
        return code
    except SyncError as error:
        _print_told(options, error)
        print(f"syncframe: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return UNREACHABLE if isinstance(error, (TransientError, AccessError)) else WRONG
    except BrokenPipeError:  # `syncframe pending ... | head`; what Python flushes at its end has no place to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("syncframe: stopped; what was finished stays", file=sys.stderr)
        return STOPPED


def _say(options: Any, *lines: str) -> None:
    """Print lines for people; with --json, what was done is told at the end."""
    if not options.json:
        print(*lines, sep="\n", flush=True)


def _print_told(options: Any, error: SyncError | None) -> None:
    """What a command that changes something has done, as one JSON object; also where an error stopped it."""
    if not (getattr(options, "json", False) and options.does_something):
        return
    what = error and {"type": type(error).__name__, "message": error.message, "hint": error.hint}
    print(json.dumps(plain(options.told | {"error": what})))


# What can be said


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="syncframe",
        description="Shared tables in notebooks: pull, edit as DataFrames offline, push, settle conflicts.",
        epilog=_EPILOG,
        formatter_class=_help,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_serve(commands)
    _add_track(commands)
    _add_looking(commands)
    _add_resolve(commands)
    _add_moving(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[[Any], int], words: str, more: str, examples: str) -> Any:
    """A command with its help: one line for the list, more for its own page, and examples."""
    parser = commands.add_parser(
        name,
        help=words,
        description=textwrap.fill(f"{words[0].upper()}{words[1:]}.  {more}", HELP_WIDTH),
        epilog="examples:\n" + "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines()),
        formatter_class=_help,
    )
    parser.set_defaults(run=run, does_something=False)
    return parser


def _add_json(parser: Any) -> None:
    """Of a command that changes something: it prints one object."""
    parser.add_argument("--json", action="store_true", help="what was done and what is left, as one JSON object")
    parser.set_defaults(does_something=True)


def _help(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, width=HELP_WIDTH)


def _add_demo(commands: Any) -> None:
    demo = _command(
        commands,
        "demo",
        _demo,
        "real flights in a shared database behind a server, and JupyterLab on a notebook to try things in",
        'Needs pip install "syncframe[demo]".',
        """
        syncframe demo                        builds the database, serves it and opens the quickstart in JupyterLab
        syncframe demo --check                the whole journey, printed and checked
        syncframe demo --check --small 2000   the same with the first 2,000 flights
        """,
    )
    demo.add_argument("--check", action="store_true", help="go through the whole journey and check every step")
    demo.add_argument("--port", type=_port, default=0, help="of the server; a free one if it is left out")
    demo.add_argument("--no-browser", action="store_true", help="print where JupyterLab is, and open no browser")
    demo.add_argument("--folder", help="where the files go; else a temporary folder")
    demo.add_argument("--small", type=_count, metavar="N", help="only the first N flights (1000 or more)")


def _add_serve(commands: Any) -> None:
    serve = _command(
        commands,
        "serve",
        _serve,
        "a database as a Datasync service, until Ctrl-C",
        "Each table is at /tables/NAME, for clients of Azure Mobile Apps and the Datasync toolkit too; / shows a page "
        "for people, /openapi.json describes the tables, /healthz says whether it can serve.  Ctrl-C or SIGTERM lets "
        'requests under way end and exits with 0; a second one ends at once.  Needs pip install "syncframe[server]".',
        """
        syncframe serve sqlite:///shop.db --track                    all tables, on this machine only
        syncframe serve sqlite:///shop.db --tables orders items --read-only
        syncframe serve sqlite:///shop.db --host 0.0.0.0 --port 8000 --tokens keys.txt
        syncframe serve sqlite:///shop.db --log requests.log --stop-s 30
        """,
    )
    serve.add_argument(
        "url",
        metavar="URL",
        help="sqlite:///path, duckdb:///path (four slashes for an absolute path) or postgresql://user@host/database",
    )
    serve.add_argument("--tables", metavar="TABLE", nargs="+", help="only these; else all that have a primary key")
    serve.add_argument("--track", action="store_true", help="add the change log to tables that have none")
    serve.add_argument(
        "--tokens",
        metavar="FILE",
        help="keys, one a line, with a name and a blank before it or not; these or --jwt are needed where --host lets "
        "other machines in",
    )
    serve.add_argument("--jwt", metavar="FILE", help="which JSON Web Tokens are taken: TOML or JSON with their keys")
    serve.add_argument("--rights", metavar="FILE", help="who may do what: TOML or JSON with rules for each table")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=_port, default=SERVE_PORT, help=f"the port ({SERVE_PORT}); 0: a free one")
    serve.add_argument("--read-only", action="store_true", help="nothing can be written")
    serve.add_argument(
        "--log",
        metavar="FILE",
        help="a line of JSON for each request, without values or keys, at the end of FILE; - is standard error",
    )
    serve.add_argument(
        "--stop-s",
        type=_seconds,
        metavar="SECONDS",
        default=SERVE_STOP_S,
        help=f"how long requests under way may go on when it is stopped ({SERVE_STOP_S})",
    )


def _add_track(commands: Any) -> None:
    track = _command(
        commands,
        "track",
        _track,
        "log the changes of SQL tables, so that a pull brings only what has changed, deletes too",
        "The SQL is shown, then run; what is printed can be run as it stands.",
        """
        syncframe track sqlite:///shop.db orders items
        syncframe track sqlite:///shop.db orders --dry-run        shows its SQL only
        syncframe track sqlite:///shop.db orders --undo           removes the log
        syncframe track sqlite:///shop.db --keep-deleted-days 30  forgets what was deleted before
        """,
    )
    track.add_argument(
        "url",
        metavar="URL",
        help="sqlite:///path, duckdb:///path (an absolute path makes four slashes) or postgresql://user@host/database",
    )
    track.add_argument("tables", metavar="TABLE", nargs="*")
    track.add_argument("--undo", action="store_true", help="remove what tracking has added")
    track.add_argument("--dry-run", action="store_true", help="show the SQL and do not run it")
    track.add_argument(
        "--keep-deleted-days",
        type=_days,
        metavar="DAYS",
        help="forget rows that were deleted longer ago, in all tracked tables; "
        "a store that was last pulled before that pulls in full the next time",
    )
    _add_json(track)


def _add_looking(commands: Any) -> None:
    for name, run, words in (
        ("status", _status, "the tables of a store: rows, pending, conflicts, last pull and push"),
        ("pending", _pending, "what is queued in a store for the next push"),
        ("conflicts", _conflicts, "what waits in a store for a decision"),
    ):
        looking = _command(
            commands,
            name,
            run,
            words,
            "Asks the network nothing.",
            f"""
            syncframe {name} mine.duckdb
            syncframe {name} mine.duckdb --json
            """,
        )
        looking.add_argument("store", metavar="STORE", help="the DuckDB file")
        looking.add_argument("--json", action="store_true", help="as JSON")


def _add_resolve(commands: Any) -> None:
    resolve = _command(
        commands,
        "resolve",
        _resolve,
        "settle conflicts by your row or by theirs",
        "Yours goes out with the next push.",
        """
        syncframe resolve mine.duckdb flights UA-1545-EWR-2013010110 --mine
        syncframe resolve mine.duckdb weather EWR 2013-01-01T06:00:00Z --theirs   a key of two columns
        syncframe resolve mine.duckdb --all --theirs
        """,
    )
    resolve.add_argument("store", metavar="STORE", help="the DuckDB file")
    resolve.add_argument("table", metavar="TABLE", nargs="?")
    resolve.add_argument("key", metavar="KEY", nargs="*", help="the row's key; of several columns, one after the other")
    resolve.add_argument("--all", action="store_true", help="all conflicts instead of one row's")
    side = resolve.add_mutually_exclusive_group(required=True)
    side.add_argument("--mine", dest="side", action="store_const", const="mine", help="what was edited here")
    side.add_argument("--theirs", dest="side", action="store_const", const="theirs", help="what is there")
    _add_json(resolve)


def _add_moving(commands: Any) -> None:
    for name, run, words, more, example in (
        (
            "push",
            _push,
            "send what is queued in a store",
            "Nothing is overwritten that you have not seen.",
            "syncframe push mine.duckdb --url sqlite:///shop.db --retry-rejected --json",
        ),
        (
            "pull",
            _pull,
            "bring what has changed into a store",
            "What is queued is pushed first.  A TABLE never pulled before comes whole, into a new store if need be.",
            'syncframe pull mine.duckdb orders --url sqlite:///shop.db --where "n > 1" --query-id many',
        ),
    ):
        moving = _command(
            commands,
            name,
            run,
            words,
            more,
            f"""
            syncframe {name} mine.duckdb --url sqlite:///shop.db
            syncframe {name} mine.duckdb orders items --url sqlite:///shop.db --on-conflict theirs
            SYNCFRAME_URL=sqlite:///shop.db syncframe {name} mine.duckdb
            {example}
            """,
        )
        moving.add_argument("store", metavar="STORE", help="the DuckDB file")
        moving.add_argument("tables", metavar="TABLE", nargs="*", help="only these tables; else all of the store")
        moving.add_argument("--url", help="the back end; else from SYNCFRAME_URL")
        moving.add_argument("--token-file", metavar="FILE", help="a file with the token for the back end")
        moving.add_argument(
            "--on-conflict",
            choices=("fail", "merge", "mine", "theirs"),
            help="fail (the default): a row that was changed on both sides waits for a decision",
        )
        if name == "push":
            moving.add_argument("--retry-rejected", action="store_true", help="send what was rejected again, too")
        else:
            moving.add_argument("--where", metavar="CONDITION", help="of one TABLE, only rows that match; in SQL")
            moving.add_argument(
                "--query-id", metavar="NAME", help="the name under which the condition is remembered; made if left out"
            )
        _add_json(moving)


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days < 1_000_000:
        raise ValueError(text)
    return days


_days.__name__ = "number of days"  # what argparse calls it: "invalid number of days value"


def _count(text: str) -> int:
    count = int(text)
    if count < 1_000:
        raise ValueError(text)
    return count


_count.__name__ = "number of flights"


def _seconds(text: str) -> int:
    seconds = int(text)
    if not 0 <= seconds <= 86_400:
        raise ValueError(text)
    return seconds


_seconds.__name__ = "number of seconds"


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65_536:
        raise ValueError(text)
    return port


_port.__name__ = "port"


# The demo, and tracking


def _demo(options: Any) -> int:
    from . import demo

    if options.check:
        return demo.check(options.folder, small=options.small)
    _stop_at_sigterm()
    return demo.lay_out(options.folder, small=options.small, port=options.port, browser=not options.no_browser)


def _stop_at_sigterm() -> None:
    """What ends a service on most machines is to end it as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def _serve(options: Any) -> int:
    try:
        from .server import serve
    except ModuleNotFoundError as error:
        raise SyncError(f"{error.name} is not installed", hint='pip install "syncframe[server]"') from error

    _stop_at_sigterm()
    _log_requests(options.log)
    choices = {"tables": options.tables, "track": options.track, "tokens": options.tokens and Path(options.tokens)}
    choices |= {"read_only": options.read_only, "stop_s": options.stop_s}
    choices |= {"jwt": options.jwt and Path(options.jwt), "rights": options.rights and Path(options.rights)}
    with serve(options.url, host=options.host, port=options.port, **choices) as server:
        _stop_in_order(server, options.stop_s)
        shown = without_password(options.url)
        print(f"serving {many(len(server.tables), 'table')} of {shown} at {server.url}/tables/NAME")
        print(f"  {', '.join(server.tables)}")
        if options.track:
            print(f"each has a change log beside it; syncframe track {shown} TABLE --undo removes one")
        print(f"connect with sf.connect({server.url!r}, store=...); Ctrl-C stops it", flush=True)
        server.wait()
    if server.is_busy:  # Python would wait for what the back end goes on with
        _end_now(DONE)
    return DONE


def _log_requests(path: str | None) -> None:
    """Have a line for each request written to a file, which may be moved away and is made anew then."""
    from logging.handlers import WatchedFileHandler

    from .server.journal import write_to

    if path == "-":
        write_to(logging.StreamHandler())
    elif path is not None:
        try:
            write_to(WatchedFileHandler(path, encoding="utf-8"))
        except OSError as error:
            raise SyncError(
                f"the log cannot be written: {error}", hint="--log takes a file, or - for standard error"
            ) from error


def _stop_in_order(server: Server, stop_s: int) -> None:
    """At the first Ctrl-C or SIGTERM let what is under way end; at the second end at once."""
    signs = 0

    def stop(*_: object) -> None:
        nonlocal signs
        signs += 1
        if signs > 1:
            _end_now(STOPPED)
        server.stop()
        os.write(2, f"syncframe: requests under way have {stop_s} s to end; once more ends at once\n".encode())

    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, stop)


def _end_now(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, RuntimeError):
            stream.flush()
    os._exit(code)


def _track(options: Any) -> int:
    from .backends import open as open_backend

    days = options.keep_deleted_days
    if not options.tables and (days is None or options.undo):
        raise SyncError("which tables?", hint="syncframe track URL TABLE ...; syncframe track --help has examples")
    backend: Any = open_backend(options.url)
    try:
        shown = backend.untrack_sql if options.undo else backend.track_sql
        for table in options.tables:
            shown(table)  # a table that cannot be is found before anything is changed
        for table in options.tables:
            _track_one(backend, table, shown(table), options)
        if days is not None and not options.dry_run:
            forgotten = backend.purge_deleted(days)
            options.told["forgotten"] = forgotten
            _say(options, f"-- {many(forgotten, 'row')} deleted more than {days:g} days ago forgotten")
    finally:
        backend.close()
    return DONE


def _track_one(backend: Any, table: str, statements: Sequence[str], options: Any) -> None:
    was, sql = backend.is_tracked(table), list(map(_as_shown, statements))
    told = {"table": table, "was_tracked": was, "is_tracked": was, "sql": sql}
    options.told.setdefault("tables", []).append(told)
    if options.undo and not was:
        _say(options, f"-- {table}: is not tracked; this removes what may be left of a log")
    elif was and not options.undo:
        _say(options, f"-- {table}: is tracked already; this makes its triggers anew")
    elif not options.undo and (cost := getattr(backend, "tracking_cost", "")):
        _say(options, f"-- {table}: {cost}")
    _say(options, "begin;", *sql, "commit;")
    if options.dry_run:
        return
    (backend.untrack if options.undo else backend.track)([table])
    told["is_tracked"] = not options.undo
    _say(options, f"-- {table}: {'not tracked any more' if options.undo else 'tracked'}")


def _as_shown(sql: str) -> str:
    """A statement indented by its brackets; how it was indented in the source means nothing here."""
    lines, depth = [], 0
    for line in filter(None, map(str.strip, sql.splitlines())):
        lines.append("    " * (depth - line.startswith((")", "end"))) + line)
        depth += line.count("(") - line.count(")") + line.endswith("begin") - line.startswith("end")
    return "\n".join(lines) + ";"


# Looking


def _status(options: Any) -> int:
    with _opened(options) as ctx:
        rows = _status_rows(ctx)
    if options.json:
        _print_json(rows)
    elif not rows:
        print(f"{options.store}: no tables yet")
    else:
        names = ["table", "rows", "pending", "conflicts", "rejected", "last_pull", "last_push"]
        _print_table(
            [name.replace("_", " ") for name in names], [[figure(row[name]) for name in names] for row in rows]
        )
    return DONE


def _status_rows(ctx: SyncContext) -> list[dict[str, Any]]:
    found = ctx.status().reset_index().astype(object)
    rows: list[Any] = found.where(found.notna(), None).to_dict("records")
    return rows


def _pending(options: Any) -> int:
    with _opened(options) as ctx:
        if options.json:
            _print_json(_operation_json(operation) for operation in ctx.pending)
            return DONE
        total, counts = len(ctx.pending), ctx.pending.summary()
        if not total:
            print("nothing is pending")
            return DONE
        print(f"{many(total, 'operation')} pending")
        kinds = ("insert", "update", "delete")
        _print_table(
            ["table", *kinds], [[name_words(t), *(figure(int(counts.loc[t, k])) for k in kinds)] for t in counts.index]
        )
        print()
        for _, operation in zip(range(SHOWN_ROWS), ctx.pending, strict=False):
            print(_operation_words(operation))
        if total > SHOWN_ROWS:
            print(f"... and {total - SHOWN_ROWS:,} more (--json shows all)")
    return DONE


def _operation_words(operation: Operation) -> str:
    from .operation import cell_words, state_words

    said = f"{operation.kind} {name_words(operation.table)} {_key_words(operation.key)}"
    if operation.kind == "update":
        said += f": {', '.join(cell_words(operation))}"
    return "\n  ".join([said, *state_words(operation)])


def _operation_json(operation: Operation) -> dict[str, Any]:
    error = operation.error
    return {
        "id": operation.id,
        "table": operation.table,
        "key": operation.key,
        "kind": operation.kind,
        "changed": list(operation.changed),
        "base": operation.base,
        "local": operation.local,
        "attempted": operation.attempted,
        "staged_at": operation.staged_at,
        "error": error and {"code": error.code, "column": error.column, "message": error.message},
    }


def _conflicts(options: Any) -> int:
    with _opened(options) as ctx:
        if options.json:
            _print_json(_conflict_json(conflict) for conflict in ctx.conflicts)
            return DONE
        total = len(ctx.conflicts)
        if not total:
            print("no conflicts")
            return DONE
        print(many(total, "conflict"))
        for _, conflict in zip(range(SHOWN_ROWS), ctx.conflicts, strict=False):
            _print_conflict(conflict)
        if total > SHOWN_ROWS:
            print(f"\n... and {total - SHOWN_ROWS:,} more (--json shows all)")
        print(f"\nsettle them: syncframe resolve {options.store} TABLE KEY --mine|--theirs, or --all")
    return DONE


def _print_conflict(conflict: Conflict) -> None:
    from .views import conflict_table, one_sided

    what = one_sided(conflict)
    head = f"\n{name_words(conflict.table)} {_key_words(conflict.key)}{f': {what}' if what else ''}"
    print(head, *conflict_table(conflict), sep="\n")


def _conflict_json(conflict: Conflict) -> dict[str, Any]:
    names = ("table", "key", "kind", "base", "mine", "theirs")
    return {name: getattr(conflict, name) for name in names} | {"columns": list(conflict.columns)}


# Settling


def _resolve(options: Any) -> int:
    if options.all == bool(options.table) or bool(options.table) != bool(options.key):
        raise SyncError(
            "which conflict?", hint="syncframe resolve STORE TABLE KEY --mine|--theirs, or --all instead of TABLE KEY"
        )
    with _opened(options) as ctx:
        settled = _resolve_all(ctx, options) if options.all else _resolve_one(ctx, options)
        whose = "yours, to be sent with the next push" if options.side == "mine" else "theirs"
        _say(options, f"{many(settled, 'conflict')} settled" + f": {whose}" * bool(settled))
        options.told = {"settled": settled, "side": options.side, "left": _left(ctx)}
        if left := len(ctx.conflicts):
            _say(options, f"{many(left, 'conflict')} left")
    return DONE


def _resolve_all(ctx: SyncContext, options: Any) -> int:
    return ctx.conflicts.keep_mine() if options.side == "mine" else ctx.conflicts.take_theirs()


def _resolve_one(ctx: SyncContext, options: Any) -> int:
    key = _key(ctx, options.table, options.key)
    try:
        conflict = ctx.conflicts[options.table, key]
    except KeyColumnError as error:
        raise SyncError(
            f"{options.table} {_key_words(key)} is not in conflict",
            hint=f"syncframe conflicts {options.store} lists those that are",
        ) from error
    (conflict.keep_mine if options.side == "mine" else conflict.take_theirs)()
    return 1


def _key(ctx: SyncContext, table: str, words: Sequence[str]) -> Any:
    """A key in its columns' types, from words as they stand on the command line."""
    schema = ctx[table].schema
    if len(words) != len(schema.key):
        raise SchemaError(
            f"a key of {table!r} has {many(len(schema.key), 'part')} ({', '.join(schema.key)}), not {len(words)}",
            hint="a part with blanks in it goes into quotes",
        )
    parts = [_key_part(column, word) for column, word in zip(schema.key_columns, words, strict=True)]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _key_part(column: Column, word: str) -> Any:
    import pyarrow as pa

    from .texts import parsed

    try:
        return parsed([word], column)[0].as_py()
    except (pa.ArrowException, ValueError) as error:
        raise SchemaError(f"key {word!r}: {column.name} is of type {column.type}") from error


# Pushing and pulling


def _push(options: Any) -> int:
    url = _url(options)
    with _opened(options, url) as ctx:
        options.told = {"accepted": 0, "conflicts": 0, "rejected": 0, "seconds": 0.0, "left": {}}
        with _counting_left(ctx, options):
            result = ctx.push(
                options.tables or None,
                on_conflict=options.on_conflict,
                retry_rejected=options.retry_rejected,
                progress=_progress(),
            )
        options.told |= _pushed_json(result)
        _print_pushed(options, result)
        return _after(ctx, options, result)


def _pull(options: Any) -> int:
    url = _url(options)
    if (options.where is not None or options.query_id is not None) and len(options.tables) != 1:
        raise SyncError("a condition is of one table", hint="syncframe pull STORE TABLE --where CONDITION")
    if not options.tables:
        _check_store(options)
    with _opened(options, url, may_make=bool(options.tables)) as ctx:
        names = options.tables or ctx.tables
        if not names:
            raise SyncError(
                f"the store {options.store} has no tables yet",
                hint=f"name some: syncframe pull {options.store} TABLE ...",
            )
        options.told = {"tables": {}, "skipped": [], "left": {}}
        with _counting_left(ctx, options):
            for name in names:
                result = _pull_one(ctx, name, options)
                if result is None:
                    options.told["skipped"].append(name)
                    _say(options, f"{name}: was never pulled; `syncframe pull {options.store} {name}` brings it")
                else:
                    options.told["tables"][name] = _pulled_json(result)
                    _print_pulled(options, name, result)
        return _after(ctx, options, None)


def _pull_one(ctx: SyncContext, name: str, options: Any) -> PullResult | None:
    """A table with its stored queries; one that was never pulled is pulled whole if it was named."""
    policy, progress = options.on_conflict, _progress()
    if options.where is not None or options.query_id is not None:
        query_id = options.query_id or True
        return ctx[name].pull(options.where, query_id=query_id, on_conflict=policy, progress=progress)
    if name in ctx.tables:
        result = ctx.pull(name, on_conflict=policy, progress=progress)
        if name not in result.skipped:
            return result
    if name not in options.tables:
        return None
    # With a query id the next pull brings only what has changed.
    return ctx[name].pull(query_id=True, on_conflict=policy, progress=progress)


def _print_pushed(options: Any, result: PushResult) -> None:
    if options.json:
        return
    counts = result.counts
    if not any(counts.values()) and result.ok:
        print("nothing to push")
        return
    said = f"pushed {many(counts['accepted'], 'operation')} in {result.seconds:.1f} s"
    said += f"; {many(counts['conflicts'], 'conflict')}" if counts["conflicts"] else ""
    print(said + (f"; {counts['rejected']:,} rejected" if counts["rejected"] else ""), flush=True)
    for operation, _ in zip(result.rejected, range(SHOWN_ROWS), strict=False):
        key = _key_words(operation.key)
        print(f"  rejected: {operation.kind} {name_words(operation.table)} {key}: {one_line(operation.error)}")


def _print_pulled(options: Any, name: str, result: PullResult) -> None:
    if result.pushed is not None and result.pushed.accepted:  # what stands is told at the end
        _print_pushed(options, result.pushed)
    said = ", ".join(result.brought()) or "nothing new"
    _say(options, f"{name_words(name)}: {said} ({many(result.rows, 'row')} read in {result.seconds:.1f} s)")
    for note in result.notes:
        _say(options, f"  {note}")


def _pushed_json(result: PushResult) -> dict[str, Any]:
    return {**result.counts, "seconds": result.seconds}


def _pulled_json(result: PullResult) -> dict[str, Any]:
    names = ("inserted", "updated", "deleted", "conflicts", "unchanged", "rows", "requests", "bytes", "seconds")
    pushed = result.pushed and result.pushed.did_anything and _pushed_json(result.pushed)
    return {name: getattr(result, name) for name in names} | {"notes": result.notes, "pushed": pushed or None}


@contextlib.contextmanager
def _counting_left(ctx: SyncContext, options: Any) -> Iterator[None]:
    """Know what is left, also where an error stops the work."""
    try:
        yield
    finally:
        options.told["left"] = _left(ctx, options.tables)


def _left(ctx: SyncContext, tables: Sequence[str] = ()) -> dict[str, int]:
    """What is left of these tables, or of all."""
    rows = [row for row in _status_rows(ctx) if not tables or row["table"] in tables]
    return {name: sum(row[name] for row in rows) for name in ("pending", "conflicts", "rejected")}


def _after(ctx: SyncContext, options: Any, pushed: PushResult | None) -> int:
    """Say what is left, and return the exit code."""
    left = options.told["left"]
    conflicts, rejected = left["conflicts"], left["rejected"]
    if conflicts:
        _say(options, f"{many(conflicts, 'conflict')} to settle: syncframe conflicts {options.store}")
    if rejected:
        _say(options, f"{many(rejected, 'operation')} rejected: syncframe pending {options.store}")
    if pushed is not None and pushed.stopped_by is not None:
        _say(options, f"{many(left['pending'], 'operation')} still pending")
        raise pushed.stopped_by
    return LEFT if conflicts or rejected else DONE


def _url(options: Any) -> str:
    url = options.url or os.environ.get("SYNCFRAME_URL")
    if not url:
        raise SyncError("which back end?", hint="--url sqlite:///path, or the same in SYNCFRAME_URL")
    return str(url)


def _progress() -> object:
    """A bar for people; none where standard error goes into a file."""
    return None if sys.stderr.isatty() else False


# The store


def _opened(options: Any, url: str | None = None, *, may_make: bool = False) -> SyncContext:
    if not may_make:
        _check_store(options)
    from .context import connect

    return connect(url, store=options.store, token_file=getattr(options, "token_file", None))


def _check_store(options: Any) -> None:
    """A name that was mistyped must not make an empty store."""
    if not Path(options.store).expanduser().exists():
        raise SyncError(
            f"there is no store {options.store}", hint=f"syncframe pull {options.store} TABLE --url URL makes one"
        )


# Words


def _key_words(key: Any) -> str:
    """A key as `resolve` takes it."""
    texts = [str(plain(part)) for part in (key if isinstance(key, tuple) else (key,))]
    return " ".join(shlex.quote(text) if text.isprintable() else repr(text) for text in texts)


def _print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(*table_lines(names, rows), sep="\n")


def _print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """A list, one object a line, written as it is read: a queue may be long."""
    lead = "["
    for row in rows:
        print(f"{lead}\n{json.dumps(plain(row))}", end="")
        lead = ","
    print("\n]" if lead == "," else "[]")

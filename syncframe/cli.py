"""The command line: a store looked at, pushed and pulled without a notebook, and tables tracked.

Each command is a function from its arguments to an exit code.  What it prints on standard output is
the answer; errors go to standard error, as words with their hint.  pandas, pyarrow and duckdb are
imported by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import AccessError, KeyColumnError, SchemaError, SyncError, TransientError

if TYPE_CHECKING:
    import datetime as dt

    from .context import SyncContext
    from .operation import Operation
    from .pull import PullResult
    from .push import PushResult
    from .schema import Column
    from .views import Conflict

DONE, LEFT, WRONG, UNREACHABLE, STOPPED = 0, 1, 2, 3, 130
SHOWN_ROWS = 20
SERVE_PORT = 8000
CELL_WIDTH = 40
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
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except SyncError as error:
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
    parser.set_defaults(run=run)
    return parser


def _help(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, width=HELP_WIDTH)


def _add_demo(commands: Any) -> None:
    demo = _command(
        commands,
        "demo",
        _demo,
        "real flights in a shared database behind a server, to try things with",
        'Needs pip install "syncframe[demo]".',
        """
        syncframe demo                        builds the database, serves it and prints what to try
        syncframe demo --check                the whole journey, printed and checked
        syncframe demo --check --small 2000   the same with the first 2,000 flights
        """,
    )
    demo.add_argument("--check", action="store_true", help="go through the whole journey and check every step")
    demo.add_argument("--port", type=_port, default=0, help="of the server; a free one if it is left out")
    demo.add_argument("--folder", help="where the files go; else a temporary folder")
    demo.add_argument("--small", type=_count, metavar="N", help="only the first N flights (1000 or more)")


def _add_serve(commands: Any) -> None:
    serve = _command(
        commands,
        "serve",
        _serve,
        "a database as a Datasync service, until Ctrl-C",
        "Each table is at /tables/NAME, for clients of Azure Mobile Apps and the Datasync toolkit too.  Needs "
        'pip install "syncframe[server]".',
        """
        syncframe serve sqlite:///shop.db --track                    all tables, on this machine only
        syncframe serve sqlite:///shop.db --tables orders items --read-only
        syncframe serve sqlite:///shop.db --host 0.0.0.0 --port 8000 --tokens keys.txt
        """,
    )
    serve.add_argument(
        "url", metavar="URL", help="sqlite:///path or duckdb:///path (four slashes for an absolute path)"
    )
    serve.add_argument("--tables", metavar="TABLE", nargs="+", help="only these; else all that have a primary key")
    serve.add_argument("--track", action="store_true", help="add the change log to tables that have none")
    serve.add_argument("--tokens", metavar="FILE", help="keys, one a line; needed where --host lets other machines in")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=_port, default=SERVE_PORT, help=f"the port ({SERVE_PORT}); 0: a free one")
    serve.add_argument("--read-only", action="store_true", help="nothing can be written")


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
        "url", metavar="URL", help="sqlite:///path or duckdb:///path (an absolute path makes four slashes)"
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


def _add_moving(commands: Any) -> None:
    for name, run, words, more in (
        ("push", _push, "send what is queued in a store", "Nothing is overwritten that you have not seen."),
        (
            "pull",
            _pull,
            "bring what has changed into a store",
            "What is queued is pushed first.  A TABLE never pulled before comes whole, into a new store if need be.",
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
    return demo.lay_out(options.folder, small=options.small, port=options.port)


def _serve(options: Any) -> int:
    try:
        from .server import serve
    except ModuleNotFoundError as error:
        raise SyncError(f"{error.name} is not installed", hint='pip install "syncframe[server]"') from error

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    choices = {"tables": options.tables, "track": options.track, "tokens": options.tokens and Path(options.tokens)}
    with serve(options.url, host=options.host, port=options.port, read_only=options.read_only, **choices) as server:
        print(f"serving {_many(len(server.tables), 'table')} of {options.url} at {server.url}/tables/NAME")
        print(f"  {', '.join(server.tables)}")
        print(f"connect with sf.connect({server.url!r}, store=...); Ctrl-C stops it", flush=True)
        server.wait()
    return DONE


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
            print(f"-- {_many(forgotten, 'row')} deleted more than {days:g} days ago forgotten")
    finally:
        backend.close()
    return DONE


def _track_one(backend: Any, table: str, statements: Sequence[str], options: Any) -> None:
    was = backend.is_tracked(table)
    if options.undo and not was:
        print(f"-- {table}: is not tracked; this removes what may be left of a log")
    elif was and not options.undo:
        print(f"-- {table}: is tracked already; this makes its triggers anew")
    print("begin;", *(_as_shown(sql) for sql in statements), "commit;", sep="\n", flush=True)
    if options.dry_run:
        return
    (backend.untrack if options.undo else backend.track)([table])
    print(f"-- {table}: {'not tracked any more' if options.undo else 'tracked'}", flush=True)


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
            [name.replace("_", " ") for name in names], [[_shown(row[name]) for name in names] for row in rows]
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
        print(f"{_many(total, 'operation')} pending")
        kinds = ("insert", "update", "delete")
        _print_table(
            ["table", *kinds], [[str(t), *(_shown(int(counts.loc[t, k])) for k in kinds)] for t in counts.index]
        )
        print()
        for _, operation in zip(range(SHOWN_ROWS), ctx.pending, strict=False):
            print(_operation_words(operation))
        if total > SHOWN_ROWS:
            print(f"... and {total - SHOWN_ROWS:,} more (--json shows all)")
    return DONE


def _operation_words(operation: Operation) -> str:
    words = f"{operation.kind} {operation.table} {_key_words(operation.key)}"
    if operation.kind == "update" and operation.base is not None and operation.local is not None:
        base, local = operation.base, operation.local
        words += ": " + ", ".join(f"{n} {_cell(base[n])} -> {_cell(local[n])}" for n in operation.changed)
    if operation.attempted:
        words += "  (sent, and its answer is not known)"
    return words + (f"\n  rejected: {operation.error}" if operation.error else "")


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
        print(_many(total, "conflict"))
        for _, conflict in zip(range(SHOWN_ROWS), ctx.conflicts, strict=False):
            _print_conflict(conflict)
        if total > SHOWN_ROWS:
            print(f"\n... and {total - SHOWN_ROWS:,} more (--json shows all)")
        print(f"\nsettle them: syncframe resolve {options.store} TABLE KEY --mine|--theirs, or --all")
    return DONE


def _print_conflict(conflict: Conflict) -> None:
    print(f"\n{conflict.table} {_key_words(conflict.key)}{_one_sided(conflict)}")
    sides = [conflict.base, conflict.mine, conflict.theirs]
    rows = [[name, *(_cell(side.get(name)) if side else "-" for side in sides)] for name in _differing(conflict)]
    _print_table(["", "base", "mine", "theirs"], rows, indent="  ")


def _one_sided(conflict: Conflict) -> str:
    if conflict.mine is None:
        return ": you have deleted it, they have changed it"
    if conflict.theirs is None:
        return ": you have changed it, they have deleted it"
    return ": both have made it" if conflict.base is None else ""


def _differing(conflict: Conflict) -> list[str]:
    """The columns in which the row was changed on either side; those in which both agree say nothing."""
    base, mine, theirs = (side or {} for side in (conflict.base, conflict.mine, conflict.theirs))
    if conflict.mine is None or conflict.theirs is None:
        other = theirs if conflict.mine is None else mine
        return [name for name in other if other[name] != base.get(name)]
    return [name for name in theirs if name in mine and mine[name] != theirs[name]]


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
        print(f"{_many(settled, 'conflict')} settled" + f": {whose}" * bool(settled))
        if left := len(ctx.conflicts):
            print(f"{_many(left, 'conflict')} left")
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
            f"a key of {table!r} has {_many(len(schema.key), 'part')} ({', '.join(schema.key)}), not {len(words)}",
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
        result = ctx.push(options.tables or None, on_conflict=options.on_conflict, progress=_progress())
        _print_pushed(result)
        return _after(ctx, options, result)


def _pull(options: Any) -> int:
    url = _url(options)
    if not options.tables:
        _check_store(options)
    with _opened(options, url, may_make=bool(options.tables)) as ctx:
        names = options.tables or ctx.tables
        if not names:
            raise SyncError(
                f"the store {options.store} has no tables yet",
                hint=f"name some: syncframe pull {options.store} TABLE ...",
            )
        for name in names:
            result = _pull_one(ctx, name, options)
            if result is None:
                print(f"{name}: was never pulled; `syncframe pull {options.store} {name}` brings it")
            else:
                _print_pulled(name, result)
        return _after(ctx, options, None)


def _pull_one(ctx: SyncContext, name: str, options: Any) -> PullResult | None:
    """A table with its stored queries; one that was never pulled is pulled whole if it was named."""
    policy, progress = options.on_conflict, _progress()
    if name in ctx.tables:
        result = ctx.pull(name, on_conflict=policy, progress=progress)
        if name not in result.skipped:
            return result
    if name not in options.tables:
        return None
    # With a query id the next pull brings only what has changed.
    return ctx[name].pull(query_id=True, on_conflict=policy, progress=progress)


def _print_pushed(result: PushResult) -> None:
    counts = result.counts
    if not any(counts.values()) and result.ok:
        print("nothing to push")
        return
    words = f"pushed {_many(counts['accepted'], 'operation')} in {result.seconds:.1f} s"
    words += f"; {_many(counts['conflicts'], 'conflict')}" if counts["conflicts"] else ""
    print(words + (f"; {counts['rejected']:,} rejected" if counts["rejected"] else ""), flush=True)
    for operation, _ in zip(result.rejected, range(SHOWN_ROWS), strict=False):
        print(f"  rejected: {operation.kind} {operation.table} {_key_words(operation.key)}: {operation.error}")


def _print_pulled(name: str, result: PullResult) -> None:
    if result.pushed is not None and result.pushed.accepted:  # what stands is told at the end
        _print_pushed(result.pushed)
    changed = [(result.inserted, "new"), (result.updated, "changed"), (result.deleted, "gone")]
    words = ", ".join(f"{count:,} {what}" for count, what in changed if count) or "nothing new"
    print(f"{name}: {words} ({_many(result.rows, 'row')} read in {result.seconds:.1f} s)", flush=True)
    for note in result.notes:
        print(f"  {note}")


def _after(ctx: SyncContext, options: Any, pushed: PushResult | None) -> int:
    """Say what is left, and return the exit code."""
    rows = [row for row in _status_rows(ctx) if not options.tables or row["table"] in options.tables]
    conflicts, rejected = (sum(row[name] for row in rows) for name in ("conflicts", "rejected"))
    if conflicts:
        print(f"{_many(conflicts, 'conflict')} to settle: syncframe conflicts {options.store}")
    if rejected:
        print(f"{_many(rejected, 'operation')} rejected: syncframe pending {options.store}")
    if pushed is not None and pushed.stopped_by is not None:
        print(f"{_many(sum(row['pending'] for row in rows), 'operation')} still pending")
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

    return connect(url, store=options.store, token=_token(options))


def _check_store(options: Any) -> None:
    """A name that was mistyped must not make an empty store."""
    if not Path(options.store).expanduser().exists():
        raise SyncError(
            f"there is no store {options.store}", hint=f"syncframe pull {options.store} TABLE --url URL makes one"
        )


def _token(options: Any) -> str | None:
    path = getattr(options, "token_file", None)
    if path is None:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SyncError(f"the token file {path} cannot be read: {error}") from error


# Words


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _key_words(key: Any) -> str:
    """A key as `resolve` takes it."""
    texts = [str(_plain(part)) for part in (key if isinstance(key, tuple) else (key,))]
    return " ".join(shlex.quote(text) if text.isprintable() else repr(text) for text in texts)


def _cell(value: Any) -> str:
    """A value on one line; text in quotes, so that '' and '7' are told from NULL and 7."""
    text = "NULL" if value is None else repr(value) if isinstance(value, str) else str(_plain(value))
    return text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 3] + "..."


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if hasattr(value, "strftime") else str(value)


def _print_table(names: Sequence[str], rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """Columns side by side, counts to the right."""
    lines = [list(names), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    to_right = [all(line[i].replace(",", "").isdecimal() for line in lines[1:]) for i in range(len(names))]
    for line in lines:
        cells = [
            cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, to_right, strict=True)
        ]
        print((indent + "  ".join(cells)).rstrip())


def _print_json(rows: Iterable[Mapping[str, Any]]) -> None:
    """A list, one object a line, written as it is read: a queue may be long."""
    lead = "["
    for row in rows:
        print(f"{lead}\n{json.dumps(_plain(row))}", end="")
        lead = ","
    print("\n]" if lead == "," else "[]")


def _plain(value: Any) -> Any:
    """A value as JSON has it; what JSON has no form for is ISO 8601, decimal or hex text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(cell) for name, cell in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(cell) for cell in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, bytes):
        return value.hex()
    return _iso(value) if hasattr(value, "isoformat") else str(value)


def _iso(value: dt.datetime | dt.date | dt.time) -> str:
    return value.isoformat().replace("+00:00", "Z")

"""/ for a person: which tables are here, what they hold, and three lines to get at them.

One page without scripts, images or anything from elsewhere, and its policy lets none in.  Whoever shows no key where
the server has keys learns that it has, and how to show one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from html import escape
from typing import Any

from .. import words
from ..query import Read
from ..schema import COLUMNS_SHOWN, Schema
from .exchange import Answer
from .tables import Tables

COUNTS_S = 2.0
_STYLE = """
:root { color-scheme: light dark; --dim: #59636e; --line: #d1d9e0; --soft: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --dim: #9198a1; --line: #3d444d; --soft: #151b23; } }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
       background: Canvas; color: CanvasText; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.dim, td.dim { color: var(--dim); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
th.count, td.count { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td:first-child { min-width: 8rem; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow-x: auto; }
a { color: LinkText; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "x-zumo-auth, authorization",
}


class Home:
    """The page of one server."""

    def __init__(self, version: str, *, has_keys: bool, read_only: bool) -> None:
        self._version = version
        self._has_keys = has_keys
        self._read_only = read_only
        self._counting = threading.Lock()

    def page(self, tables: Tables, schemas: Mapping[str, Schema], base: str) -> Answer:
        """The page of tables whose schemas these are."""
        counts = self._counts(tables, list(schemas))
        rows = "".join(_row(name, schema, counts.get(name)) for name, schema in schemas.items())
        table = (
            '<table><thead><tr><th scope="col">table</th><th scope="col" class="count">rows</th>'
            f'<th scope="col">columns</th></tr></thead><tbody>{rows}</tbody></table>'
        )
        may = "read" if self._read_only else "read and written"
        who = "with a key" if self._has_keys else "from this machine, without a key"
        return _answer(
            f"<p>{words.many(len(schemas), 'table')}, to be {may} {who}.</p>",
            table if rows else "<p>No table is served.</p>",
            self._connect(next(iter(schemas), "TABLE"), base),
            '<p>For other programs: <a href="openapi.json">openapi.json</a> describes the tables as a Datasync '
            'service, <a href="healthz">healthz</a> says whether the server can serve.</p>',
            f'<p class="dim">syncframe {escape(self._version)}</p>',
        )

    def closed(self, base: str) -> Answer:
        """The page for who has shown no key: nothing of what is here."""
        return _answer(
            "<p>This server answers to those who have one of its keys, and shows its tables to them only. "
            "A browser sends none; this shows the page with one:</p>",
            _code(f'curl -H "X-ZUMO-AUTH: $KEY" {base}/ > tables.html'),
            self._connect("TABLE", base),
            "<p>Whoever runs this server gives keys out.</p>",
        )

    def _connect(self, name: str, base: str) -> str:
        key = ", token=..." if self._has_keys else ""
        lines = [
            "import syncframe as sf",
            f'ctx = sf.connect("{base}", store="mine.duckdb"{key})',
            f"ctx[{json.dumps(name)}].pull()",
        ]
        return f"<h2>How to connect</h2>{_code(chr(10).join(lines))}"

    def _counts(self, tables: Tables, names: list[str]) -> dict[str, int]:
        """As many as can be had while a person waits; of a table that takes longer there is none.

        One page at a time has its tables counted, so that nobody makes the database count for ever by asking again.
        """
        counts: dict[str, int] = {}
        if not hasattr(tables.backend, "count") or not self._counting.acquire(blocking=False):
            return counts
        ends = time.monotonic() + COUNTS_S
        counting = threading.Thread(
            target=self._count, args=(tables.backend, names, ends, counts), name="syncframe-counts", daemon=True
        )
        counting.start()
        counting.join(COUNTS_S)
        return dict(counts)

    def _count(self, backend: Any, names: list[str], ends: float, counts: dict[str, int]) -> None:
        try:
            for name in names:
                if time.monotonic() < ends:
                    counts[name] = backend.count(name, Read())
        except Exception:  # noqa: S110  (the page has no number where the back end has none; a request for it says why)
            pass
        finally:
            self._counting.release()


def _answer(*parts: str) -> Answer:
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>syncframe server</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main><h1>syncframe server</h1>{''.join(parts)}</main></body></html>\n"
    )
    # A lone surrogate in a name is shown as its number.
    return Answer(200, page.encode(errors="backslashreplace"), HEADERS)


def _row(name: str, schema: Schema, count: int | None) -> str:
    columns = [
        _column(column.name, column.type, column.name in schema.key) for column in schema.columns[:COLUMNS_SHOWN]
    ]
    more = words.left_out(len(schema.columns), COLUMNS_SHOWN)
    shown = words.figure(count) if count is not None else "-"
    return (
        f'<tr><td><code>{escape(words.name(name))}</code></td><td class="count">{shown}</td>'
        f"<td>{', '.join([*columns, *map(escape, more)])}</td></tr>"
    )


def _column(name: str, type_: str, is_key: bool) -> str:
    return f"<code>{escape(words.name(name))}</code> {escape(type_)}{' (key)' if is_key else ''}"


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"

"""How things are said: counts, cells, keys, times and tables, as text and as HTML.

The displays of the notebook and the command line say the same by the same code.  Everything here takes
plain values and gives text; whose values they are, the rooms above know.  In HTML all that comes from
elsewhere is escaped and stands in `<code>`, which neither a browser nor a typesetter of formulas reads; there
are no colours, so that it is readable in light and dark themes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from html import escape
from itertools import combinations, islice
from typing import Any

SHOWN_ROWS = 20
CELL_CHARACTERS_MAX = 40
KEY_CHARACTERS_MAX = 80
LEAD = 8  # characters before a difference
LINE_CHARACTERS_MAX = 240
NULL = "NULL"

# A cell of a table in HTML may be several lines.
Said = str | Sequence[str]


def many(count: int, what: str) -> str:
    """A count with its noun: "1 row", "2,000 rows"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def left_out(count: int, shown: int, hint: str = "") -> list[str]:
    """The line that says how many more there are, if there are any."""
    return [f"... and {count - shown:,} more{f' ({hint})' if hint else ''}"] if count > shown else []


def cell(value: Any) -> str:
    """A value on one line; text in quotes, so that '' and '7' are told from NULL and 7; of a long one its length."""
    if _is_nothing(value):
        return NULL
    return _excerpt(value, 0) if isinstance(value, (str, bytes)) else cut(str(plain(value)))


def change(old: Any, new: Any) -> tuple[str, str]:
    """An old value and the new one, told apart."""
    before, after = cells(old, new)
    return before, after


def cells(*values: Any) -> list[str]:
    """Values side by side; two that would read the same are shown from shortly before they differ."""
    starts = [0] * len(values)
    for i, j in combinations(range(len(values)), 2):
        one, other = values[i], values[j]
        is_alike = type(one) is type(other) and isinstance(one, (str, bytes)) and one != other
        if is_alike and _part(one, starts[i]) == _part(other, starts[j]):
            starts[i] = starts[j] = _shortly_before(one, other)
    return [_excerpt(v, s) if isinstance(v, (str, bytes)) else cell(v) for v, s in zip(values, starts, strict=True)]


def _shortly_before(one: str | bytes, other: str | bytes) -> int:
    """Where to begin, so that the place where they differ is among what is shown."""
    at = _apart(one, other)
    start = max(0, at - LEAD)
    return at if _part(one, start) == _part(other, start) else start


def _excerpt(value: str | bytes, start: int) -> str:
    said = _part(value, start)
    if not start and len(value) <= CELL_CHARACTERS_MAX and not said.endswith("..."):
        return said
    unit = "characters" if isinstance(value, str) else "bytes"
    return f"{said} ({len(value):,} {unit})"


def _part(value: str | bytes, start: int) -> str:
    part = value[start : start + CELL_CHARACTERS_MAX + 1]  # of a million letters no more are looked at
    return cut("..." * bool(start) + (repr(part) if isinstance(part, str) else f"x'{part.hex()}'"))


def _apart(a: str | bytes, b: str | bytes) -> int:
    """How many characters, or bytes, two values have in common at their beginning."""
    same, most = 0, min(len(a), len(b))
    while same < most:
        middle = (same + most + 1) // 2
        if a[same:middle] == b[same:middle]:
            same = middle
        else:
            most = middle - 1
    return same


def key(value: Any) -> str:
    """A key on one line, as one would write it in Python."""
    if not isinstance(value, tuple):
        return _key_part(value)
    return cut(f"({', '.join(map(_key_part, value))})", 2 * KEY_CHARACTERS_MAX)


def _key_part(value: Any) -> str:
    text = repr(value[: KEY_CHARACTERS_MAX + 1]) if isinstance(value, str) else str(plain(value))
    return cut(text, KEY_CHARACTERS_MAX)


def keys(values: Sequence[Any], count: int) -> str:
    """The first keys of so many."""
    return ", ".join([*map(key, values), *(f"and {n:,} more" for n in [count - len(values)] if n > 0)])


def name(text: object) -> str:
    """The name of a table or column: as it is, in quotes where it has letters that cannot be seen."""
    said = str(text)
    return cut(said if said.isprintable() and said.strip() == said and said else repr(said), KEY_CHARACTERS_MAX)


def line(text: object) -> str:
    """Words of others, such as a back end's, on one line."""
    said = " ".join(str(text)[: 4 * LINE_CHARACTERS_MAX].split())
    return cut("".join(c if c.isprintable() else repr(c)[1:-1] for c in said), LINE_CHARACTERS_MAX)


def cut(text: str, characters_max: int = CELL_CHARACTERS_MAX) -> str:
    return text if len(text) <= characters_max else text[: characters_max - 3] + "..."


def figure(value: Any) -> str:
    """A cell of a summary: a count, a time to the second in UTC, a word, or "-" for nothing."""
    if _is_nothing(value):
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if hasattr(value, "strftime") else name(value)


def size(count: int) -> str:
    """Bytes, in the unit that reads best."""
    amount: float = count
    for unit in ("bytes", "KB", "MB"):
        if amount < 1_000:
            return f"{amount:.3g} {unit}"
        amount /= 1_000
    return f"{amount:,.3g} GB"


def plain(value: Any) -> Any:
    """A value as JSON has it; what JSON has no form for is ISO 8601, decimal or hex text."""
    if isinstance(value, Mapping):
        return {str(name): plain(cell) for name, cell in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(cell) for cell in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return format(value, "f")  # str() writes small ones with an exponent
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else str(value)


def _is_nothing(value: Any) -> bool:
    """None, and what pandas has for it."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


# Tables


def table(names: Sequence[str], rows: Iterable[Sequence[str]], *, indent: str = "") -> list[str]:
    """The lines of a table: columns side by side, counts to the right."""
    lines = [list(names), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    sides = [str.rjust if right else str.ljust for right in _counted(lines)]
    padded = [[side(said, width) for side, said, width in zip(sides, line, widths, strict=True)] for line in lines]
    return [(indent + "  ".join(line)).rstrip() for line in padded]


def html(*parts: str) -> str:
    """A display of parts that are HTML already."""
    return f'<div class="tex2jax_ignore mathjax_ignore">{"".join(parts)}</div>'


def paragraphs(lines: Iterable[str]) -> str:
    """Lines of text, each a paragraph; blanks before a line are kept, for they say what belongs to what."""
    return "".join(f'<p style="white-space:pre-wrap;margin:0.2em 0">{escape(line)}</p>' for line in lines)


def html_table(
    names: Sequence[str],
    rows: Iterable[Sequence[Said]],
    *,
    caption: str = "",
    code: Iterable[int] = (),
    rows_max: int = SHOWN_ROWS,
) -> str:
    """A table of the first rows.

    Parameters
    ----------
    names
        The heads of the columns.
    code
        The places of the columns whose cells come from elsewhere: they are monospaced.
    """
    taken = [list(row) for row in islice(rows, rows_max)]
    in_code = set(code)
    to_right = [right and i not in in_code for i, right in enumerate(_counted([list(names), *taken]))]
    head = "".join(_tag("th", escape(name), to_right[i], 'scope="col"') for i, name in enumerate(names))
    body = "".join(f"<tr>{''.join(_html_cells(row, to_right, in_code))}</tr>" for row in taken)
    above = (
        f'<caption style="caption-side:top;text-align:left;white-space:nowrap">{escape(caption)}</caption>'
        if caption
        else ""
    )
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_cells(row: Sequence[Said], to_right: Sequence[bool], in_code: set[int]) -> Iterable[str]:
    for i, said in enumerate(row):
        lines = [said] if isinstance(said, str) else said
        inner = "<br>".join(_html_line(line, i in in_code) for line in lines)
        yield _tag("td", inner, to_right[i]) if i else _tag("th", inner, to_right[i], 'scope="row"')


def _html_line(text: str, is_code: bool) -> str:
    if not is_code or not text:
        return escape(text)
    if text == NULL:
        return f"<em>{NULL}</em>"
    return f'<code style="white-space:pre-wrap">{escape(text)}</code>'


def _tag(tag: str, inner: str, to_right: bool, attributes: str = "") -> str:
    style = f"text-align:{'right' if to_right else 'left'};vertical-align:top;padding:0.2em 0.6em"
    return f'<{" ".join(filter(None, (tag, attributes)))} style="{style}">{inner}</{tag}>'


def _counted(lines: Sequence[Sequence[Said]]) -> list[bool]:
    """Which columns of the lines below the first are counts, but for "-"."""
    columns = [[line[i] for line in lines[1:] if line[i] != "-"] for i in range(len(lines[0]))]
    return [bool(cells) and all(map(_is_count, cells)) for cells in columns]


def _is_count(said: Said) -> bool:
    return isinstance(said, str) and said.replace(",", "").isdecimal()

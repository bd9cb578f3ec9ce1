"""Bodies in JSON, held against what they should be, with words for what they are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..schema import Schema
from ..wire import loads
from .exchange import JSON, Ask, Refusal


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object whose members are read by what they should be."""

    body: dict[str, Any]

    def text(self, name: str) -> str | None:
        value: str | None = self._one(name, str, "a string")
        return value

    def whole(self, name: str, *, least: int = 0) -> int | None:
        value: int | None = self._one(name, int, "a whole number")
        if value is not None and (isinstance(value, bool) or not least <= value < 2**63):
            raise self._wrong(name, f"a whole number from {least}")
        return value

    def flag(self, name: str) -> bool | None:
        value: bool | None = self._one(name, bool, "true or false")
        return value

    def array(self, name: str) -> list[Any] | None:
        value: list[Any] | None = self._one(name, list, "an array")
        return value

    def texts(self, name: str, *, may_be_null: bool = False) -> list[str | None] | None:
        values = self.array(name)
        kinds = (str, type(None)) if may_be_null else str
        if values is not None and not all(isinstance(value, kinds) for value in values):
            raise self._wrong(name, "an array of strings")
        return values

    def objects(self, name: str) -> list[dict[str, Any]]:
        values = self.array(name)
        if values is None or not all(isinstance(value, dict) for value in values):
            raise self._wrong(name, "an array of objects")
        return values

    def _one(self, name: str, kind: type, words: str) -> Any:
        value = self.body.get(name)
        if value is not None and not isinstance(value, kind):
            raise self._wrong(name, words)
        return value

    def _wrong(self, name: str, words: str) -> Refusal:
        return Refusal(400, f"{name} is {str(self.body.get(name))[:100]!r}, and should be {words}")


def json_body(ask: Ask, *names: str) -> Fields:
    """An object whose members are among `names`."""
    body = json_object(ask)
    unknown = [name for name in body if name not in names]
    if unknown:
        raise Refusal(400, f"the body has {unknown[0][:100]!r}, and may have {', '.join(names)}")
    return Fields(body)


def json_object(ask: Ask, schema: Schema | None = None) -> dict[str, Any]:
    """The body as an object; a Refusal with status 415 or 400 says what it is instead."""
    kind, _, rest = ask.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal(415, f"the content type is {kind[:100]!r}, and should be {JSON}")
    charset = rest.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise Refusal(415, f"the charset is {charset[:100]!r}, and JSON is UTF-8 (RFC 8259, 8.1)")
    try:
        body = loads(ask.body, schema)
    except ValueError as error:
        raise Refusal(400, f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(body, dict):
        raise Refusal(400, f"the body is a JSON {_WORDS.get(type(body), 'value')}, and should be an object")
    return body


_WORDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}

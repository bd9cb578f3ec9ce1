"""What a server says of itself beside its tables: /healthz, /openapi.json, and / for a person."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

from starlette.datastructures import Headers
from starlette.types import Scope

from ..wire import Wire
from . import health, openapi
from .exchange import Answer, Ask, Refusal, answer_json, check_method
from .home import Home
from .limits import Limits
from .tables import Tables

HOME, OPENAPI = "", "openapi.json"
_PAGES = (HOME, OPENAPI)


class About:
    """The pages of one server that are about it."""

    def __init__(self, tables: Tables, limits: Limits, *, has_keys: bool, read_only: bool) -> None:
        self.health = health.Health(tables.backend, tables.names)
        self._limits = limits
        self._has_keys = has_keys
        self._read_only = read_only
        self._version = metadata.version("syncframe")
        self._home = Home(self._version, has_keys=has_keys, read_only=read_only)

    def open_path(self, scope: Scope) -> str | None:
        """The path, if anybody may ask for it: /healthz, and / without a key, which then shows nothing."""
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        if path in (health.PATH, f"{health.PATH}/"):
            return health.PATH
        headers = Headers(scope=scope)
        is_nobody = "x-zumo-auth" not in headers and "authorization" not in headers
        return "/" if path in ("", "/") and self._has_keys and is_nobody else None

    async def open(self, path: str, ask: Ask) -> Answer:
        """What anybody gets; it depends on nothing but whether the server lives."""
        if path == health.PATH:
            return await self.health.answer(ask)
        check_method(ask, ("GET", "HEAD"))
        return self._home.closed(ask.base)

    def handler(self, ask: Ask, tables: Tables) -> Callable[[Ask], Answer] | None:
        """What answers a request for a page of these tables; None if it is for none, a Refusal for another method."""
        if len(ask.path) != 1 or ask.path[0] not in _PAGES:
            return None
        check_method(ask, ("GET", "HEAD"))
        return lambda asked: self._page(asked, tables)

    def _page(self, ask: Ask, tables: Tables) -> Answer:
        wires = _wires(tables)
        if ask.path == (HOME,):
            return self._home.page(tables, {name: wire.schema for name, wire in wires.items()}, ask.base)
        document = openapi.document(
            wires,
            base=ask.base,
            version=self._version,
            limits=self._limits,
            has_keys=self._has_keys,
            read_only=self._read_only,
        )
        return answer_json(document, headers={"vary": "x-zumo-auth, authorization"})


def _wires(tables: Tables) -> dict[str, Wire]:
    """The tables as they are now; one that is gone meanwhile is left out."""
    wires = {}
    for name in tables.names:
        try:
            wires[name] = tables.wire(name)
        except Refusal:
            continue
    return wires

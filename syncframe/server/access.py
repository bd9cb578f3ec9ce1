"""Who asks: a key, kept as a hash only, or a token; and without either nobody but this machine.

A web page that a user of this machine visits can make their browser send requests here: to
127.0.0.1 itself, or to a name of its own that it lets point there.  So a server without keys
answers only to an address or `localhost` as its host, and not to other pages' scripts.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from ..errors import AccessError, SyncError
from ..secrets import is_loopback, why_unread
from .exchange import Refusal
from .tokens import BadToken, Jwt, Verifier

log = logging.getLogger("syncframe.server")

KEY_LENGTH_MIN = 16
SHOWN_MAX = 100
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._@-]{0,63})[ \t]+(\S+)")
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one'


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks.

    Parameters
    ----------
    subject
        Of a token its `sub`; of a key that has a name ``key:<name>``; else None.
    claims
        What a token says; of a key nothing.
    """

    subject: str | None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    is_key: bool = False

    def shown(self) -> str:
        """For the log: no token can bear the name of a key."""
        if self.is_key:
            return self.subject or "key"
        text = "".join(c if c.isprintable() else "?" for c in (self.subject or "?")[:SHOWN_MAX])
        return f"sub:{text}" if text.startswith("key") else text


class Keys:
    """The keys of a server, as hashes, and the names of those that have one."""

    def __init__(self, hashes: Mapping[bytes, str | None]) -> None:
        self._hashes = dict(hashes)

    @classmethod
    def of(cls, tokens: Iterable[str] | Mapping[str, str] | str | Path | None) -> Keys | None:
        """Take keys from an iterable, a mapping name -> key, or a file.

        A file has one a line, blank lines and `#` lines left out; before a key may stand its name and a blank.

        Raises
        ------
        SyncError
            If there is none, the file cannot be read, or a key cannot be sent in a header.
        """
        if tokens is None:
            return None
        keys: list[Any]
        if isinstance(tokens, Mapping):
            keys = [f"{name} {key}" for name, key in tokens.items()]
        else:
            keys = _from_file(Path(tokens)) if isinstance(tokens, str | Path) else list(tokens)
        if not keys:
            raise SyncError("tokens= has no key in it", hint=_MAKE_ONE)
        hashes: dict[bytes, str | None] = {}
        for number, given in enumerate(keys, 1):
            if not isinstance(given, str) or not given:
                raise SyncError(f"key {number} of tokens= is no text, or empty", hint=_MAKE_ONE)
            named = _NAMED.fullmatch(given)
            name, key = (named[1], named[2]) if named else (None, given)
            if len(key) < KEY_LENGTH_MIN:
                log.warning("key %d of tokens= is short enough to be guessed; %s", number, _MAKE_ONE)
            if not key.isascii() or not key.isprintable() or " " in key:
                raise SyncError(f"key {number} of tokens= has characters that no header can carry", hint=_MAKE_ONE)
            if hashes.setdefault(_hash(key.encode()), name) != name:
                raise SyncError(f"key {number} of tokens= is there twice, under two names", hint=_MAKE_ONE)
        return cls(hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def __repr__(self) -> str:
        return f"Keys({len(self)})"

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name in self._hashes.values() if name is not None)

    def know(self, key: bytes) -> Identity | None:
        # All are compared, so that the time says nothing about which.
        asked = _hash(key)
        found = [name for known, name in self._hashes.items() if hmac.compare_digest(asked, known)]
        return Identity(f"key:{found[0]}" if found[0] else None, is_key=True) if found else None


def _hash(key: bytes) -> bytes:
    # The keys are long and random, so that a slow hash would protect nothing.
    return hashlib.sha256(key).digest()


def _from_file(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SyncError(
            f"the file of keys cannot be read: {why_unread(error)}",
            hint="tokens= takes an iterable of keys, or the path of a file with one a line",
        ) from error
    return [line for line in lines if line and not line.startswith("#")]


class Access:
    """Who may ask a server at all."""

    def __init__(self, keys: Keys | None = None, tokens: Verifier | None = None) -> None:
        self.keys = keys
        self.tokens = tokens

    @classmethod
    def of(cls, tokens: Any = None, jwt: Jwt | Mapping[str, Any] | str | Path | None = None) -> Access:
        """What `serve` takes as `tokens` and `jwt`."""
        return cls(Keys.of(tokens), None if jwt is None else Verifier(Jwt.of(jwt)))

    @property
    def is_open(self) -> bool:
        """Whether nobody says who they are."""
        return self.keys is None and self.tokens is None

    def __repr__(self) -> str:
        keys = "no keys" if self.keys is None else f"{len(self.keys)} keys"
        return keys if self.tokens is None else f"{keys}, tokens"

    def check_host(self, host: str) -> None:
        """Refuse to serve other machines without keys."""
        if self.is_open and not is_loopback(host):
            raise AccessError(
                f"host {host!r} lets other machines in, and there are no tokens",
                hint=f"serve(..., tokens=[...]), or host='127.0.0.1'; {_MAKE_ONE}",
            )

    def identify(self, headers: Headers, *, may_fetch: bool = False) -> Identity | None:
        """Return who asks, and None where nobody says so.

        Raises
        ------
        Refusal
            401 without a key or token that is good; where there are none, 403 and 421 of what a page of
            elsewhere may have made.
        KeysWanted
            If keys have to be fetched first, and `may_fetch` is False.
        """
        if self.is_open:
            _check_origin(headers)
            return None
        sent = _sent(headers)
        if sent is None:
            raise _unknown("no key that is known was sent")
        if self.keys is not None and (known := self.keys.know(sent)) is not None:
            return known
        if self.tokens is None or sent.count(b".") != 2:
            raise _unknown("the key that was sent is not known")
        try:
            claims = self.tokens.claims(sent.decode("latin-1"), may_fetch=may_fetch)
        except BadToken as error:
            log.info("a token was refused: %s", error)
            raise _unknown(error.told, is_token=True) from None
        return Identity(claims.get("sub"), claims)


def _unknown(words: str, *, is_token: bool = False) -> Refusal:
    # RFC 6750, 3.1
    reason = ', error="invalid_token"' if is_token else ""
    return Refusal(
        401,
        words,
        hint="send one as X-ZUMO-AUTH, or as Authorization: Bearer",
        kind="AccessError",
        headers={"www-authenticate": f'Bearer realm="syncframe"{reason}'},
    )


def _sent(headers: Headers) -> bytes | None:
    if "x-zumo-auth" in headers:
        return headers["x-zumo-auth"].strip().encode("latin-1")
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip().encode("latin-1") if scheme.lower() == "bearer" and key.strip() else None


def _check_origin(headers: Headers) -> None:
    host = _name(f"//{headers.get('host', '')}")
    if host is None or not (host == "" or host == "localhost" or host.endswith(".localhost") or _is_address(host)):
        raise Refusal(
            421,
            "this server has no keys, and answers to an address or localhost only",
            hint="serve(..., tokens=[...]) serves under any name",
            kind="AccessError",
        )
    origin = headers.get("origin")
    if origin is not None and urlsplit(f"//{headers.get('host', '')}").netloc != _netloc(origin):
        raise Refusal(403, "this server has no keys, and does not answer to other web pages", kind="AccessError")


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

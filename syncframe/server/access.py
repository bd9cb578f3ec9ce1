"""Who may ask: keys that are kept as hashes only, and without keys nobody but this machine.

A web page that a user of this machine visits can make their browser send requests here: to
127.0.0.1 itself, or to a name of its own that it lets point there.  So a server without keys
answers only to an address or `localhost` as its host, and not to other pages' scripts.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from ..errors import AccessError, SyncError
from .exchange import Refusal

log = logging.getLogger("syncframe.server")

KEY_LENGTH_MIN = 16
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one'


class Keys:
    """The keys of a server, as hashes."""

    def __init__(self, hashes: Iterable[bytes]) -> None:
        self._hashes = tuple(hashes)

    @classmethod
    def of(cls, tokens: Iterable[str] | str | Path | None) -> Keys | None:
        """Take keys from an iterable, or from a file that has one a line, blank lines and `#` lines left out.

        Raises
        ------
        SyncError
            If there is none, the file cannot be read, or a key cannot be sent in a header.
        """
        if tokens is None:
            return None
        keys = _from_file(Path(tokens)) if isinstance(tokens, str | Path) else list(tokens)
        if not keys:
            raise SyncError("tokens= has no key in it", hint=_MAKE_ONE)
        for number, key in enumerate(keys, 1):
            if not isinstance(key, str) or not key:
                raise SyncError(f"key {number} of tokens= is no text, or empty", hint=_MAKE_ONE)
            if len(key) < KEY_LENGTH_MIN:
                log.warning("key %d of tokens= is short enough to be guessed; %s", number, _MAKE_ONE)
            if not key.isascii() or not key.isprintable() or " " in key:
                raise SyncError(f"key {number} of tokens= has characters that no header can carry", hint=_MAKE_ONE)
        return cls(_hash(key.encode()) for key in keys)

    def __len__(self) -> int:
        return len(self._hashes)

    def __repr__(self) -> str:
        return f"Keys({len(self)})"

    def know(self, key: bytes) -> bool:
        # All are compared, so that the time says nothing about which.
        asked = _hash(key)
        return sum(hmac.compare_digest(asked, known) for known in self._hashes) > 0


def _hash(key: bytes) -> bytes:
    # The keys are long and random, so that a slow hash would protect nothing.
    return hashlib.sha256(key).digest()


def _from_file(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SyncError(
            f"the file of keys cannot be read: {error}",
            hint="tokens= takes an iterable of keys, or the path of a file with one a line",
        ) from error
    return [line for line in lines if line and not line.startswith("#")]


def check_host(host: str, keys: Keys | None) -> None:
    """Refuse to serve other machines without keys."""
    if keys is None and not is_loopback(host):
        raise AccessError(
            f"host {host!r} lets other machines in, and there are no tokens",
            hint=f"serve(..., tokens=[...]), or host='127.0.0.1'; {_MAKE_ONE}",
        )


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_key(headers: Headers, keys: Keys | None) -> None:
    """Refuse a request without a key that is known; without keys, one that a page of elsewhere may have made."""
    if keys is None:
        _check_origin(headers)
        return
    sent = _sent(headers)
    if sent is None or not keys.know(sent):
        raise Refusal(
            401,
            "no key that is known was sent" if sent is None else "the key that was sent is not known",
            hint="send one as X-ZUMO-AUTH, or as Authorization: Bearer",
            kind="AccessError",
            headers={"www-authenticate": 'Bearer realm="syncframe"'},
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

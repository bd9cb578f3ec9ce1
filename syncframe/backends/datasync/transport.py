"""Requests and their answers: one HTTP client, who asks, what is tried again, and where a token may go.

    address and token -> send -> 401: another token, once -> a redirect within the same origin -> an answer;
    what may succeed later, and may be repeated, is tried again until patience ends

HTTP/1.1 only: over HTTP/2 a client shared by threads lost requests.  Redirects are followed by hand, for
what goes elsewhere must not carry the token.
"""

from __future__ import annotations

import base64
import logging
import os
import random as random_module
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpx2

from ...errors import AccessError, BackendError, SyncError, TransientError
from .answers import Answer, Body
from .patience import Patience

BODY_BYTES_MAX = 256 << 20  # of one page, unpacked
REDIRECTS_MAX = 5
SECRET_LENGTH_MIN = 4  # what is shorter is none, and would blot out every word
KEEP_ALIVE_S = 2.0  # less than servers do (5 s and more), so that no request meets a connection being closed
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_VISIBLE = re.compile(r"[\x20-\x7e\x80-\xff]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Token = str | Callable[[], str]

log = logging.getLogger("syncframe")
_sending = threading.local()


def _is_not_ours(record: logging.LogRecord) -> bool:
    """The client logs each request's whole address at INFO, and a filter in it may hold what stands in a row."""
    return not getattr(_sending, "is_ours", False)


logging.getLogger("httpx2").addFilter(_is_not_ours)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Parameters
    ----------
    path
        Below the service's base, percent-encoded, with a leading slash.
    query
        Percent-encoded, without the question mark.
    may_repeat
        Whether it does no harm when the service has it already.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    may_repeat: bool = True


class Tokens:
    """The token, asked for when first needed and once more after a 401, for all threads together."""

    def __init__(self, token: Token | None) -> None:
        self._ask_for = token if callable(token) else None
        self._lock = threading.Lock()
        self._text: str | None = _checked_header("token", token) if isinstance(token, str) else None
        self._number = 1 if token is None or isinstance(token, str) else 0

    def current(self) -> tuple[int, str | None]:
        """The token and its number, which rises with each that was asked for."""
        with self._lock:
            if not self._number or self._has_changed():
                self._ask()
            return self._number, self._text

    def renew(self, refused: int) -> bool:
        """Whether there is another token than the one of that number; asks for it where it is the last."""
        if self._ask_for is None:
            return False
        with self._lock:
            if self._number == refused:
                self._ask()
            return True

    def _has_changed(self) -> bool:
        """Whether what gives the token would give another one now."""
        asked = getattr(self._ask_for, "has_changed", None)
        return asked is not None and bool(asked())

    def _ask(self) -> None:
        try:
            text = self._ask_for() if self._ask_for is not None else None
        except SyncError as error:
            raise AccessError(error.message, hint=error.hint) from error
        except Exception as error:
            # Its words are not shown: they may hold what it was made from.
            raise AccessError(f"the callable given as token failed with {type(error).__name__}") from error
        if not isinstance(text, str):
            raise AccessError(f"the callable given as token returned a {type(text).__name__}, no text")
        self._text = _checked_header("token", text)
        self._number += 1

    def secrets(self) -> list[str]:
        return [self._text] if self._text else []


class Transport:
    """One service as something to ask; thread-safe.

    Parameters
    ----------
    url
        The service's base; a user and password in it are sent as Basic authorization and never shown.
    token
        Sent as `Authorization: Bearer` and as `X-ZUMO-AUTH`; a callable is asked again once after a 401.
    headers
        Sent with every request.
    in_flight
        How many connections may be open at once.
    timeout_s
        How long a single request may take, and how long is waited between its tries in all.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        in_flight: int = 16,
        body_bytes_max: int = BODY_BYTES_MAX,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.base, self._secrets, self._headers = _base(url)
        if token is not None:
            self._headers.pop("Authorization", None)
        for name, value in (headers or {}).items():
            self._headers[_checked_name(name)] = _checked_header(f"header {name!r}", value)
            self._secrets.append(value)
        self.timeout_s = timeout_s
        self._tokens = Tokens(token)
        self._in_flight, self._body_bytes_max = in_flight, body_bytes_max
        self._sleep, self._clock, self._random = sleep, clock, random
        self._lock = threading.Lock()
        self._client: httpx2.Client | None = None
        self._owner = 0

    def __repr__(self) -> str:
        return f"Transport({self.base!r})"

    def patience(self, stopped: Callable[[], bool] = lambda: False) -> Patience:
        return Patience(self.timeout_s, self._sleep, self._random, self._clock, stopped)

    def request(self, ask: Ask, *, stopped: Callable[[], bool] = lambda: False) -> Answer:
        """Ask, and again where that may help and it is not `stopped`; return the answer, whatever its status says.

        Raises
        ------
        TransientError
            If it may succeed later: no answer, 408, 429, 5xx.
        AccessError
            401 and 403.
        BackendError
            If the answer is none of such a service: a redirect to elsewhere, too large a body.
        """
        patience = self.patience(stopped)
        while True:
            try:
                with self.opened(ask, patience) as body:
                    answer = body.whole()
                return replace(answer, requests=patience.requests)
            except TransientError as error:
                patience.wait(error, may_repeat=ask.may_repeat)

    @contextmanager
    def opened(self, ask: Ask, patience: Patience) -> Iterator[Body]:
        """Ask once and yield the answer's body to be read; raises as `request` does.  `patience` counts."""
        what = f"{ask.method} {self.base}{ask.path}"
        address = f"{self.base}{ask.path}" + (f"?{ask.query}" if ask.query else "")
        may_renew, redirects = True, 0
        while redirects <= REDIRECTS_MAX:
            patience.requests += 1
            number, token = self._tokens.current()
            with self._sent(ask, address, token, what) as response:
                empty = Answer(response.status_code, response.headers, b"", what, self.hide)
                if response.status_code == 401 and may_renew:
                    may_renew = False
                    if self._tokens.renew(number):
                        continue
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    redirects += 1
                    address = self._redirected(ask, address, response.headers["location"], empty)
                    continue
                body = Body(
                    empty,
                    _translated(response.iter_raw(), what),
                    bytes_max=self._body_bytes_max,
                    timeout_s=self.timeout_s,
                    clock=self._clock,
                )
                if response.status_code in (401, 403, 408, 429) or response.status_code >= 500:
                    raise body.whole().error()
                yield body
                return
        raise BackendError(f"{what} was redirected more than {REDIRECTS_MAX} times", hint="check the URL")

    def hide(self, text: str) -> str:
        """A text without the secrets of this connection."""
        for secret in (*self._secrets, *self._tokens.secrets()):
            text = text.replace(secret, "***") if len(secret) >= SECRET_LENGTH_MIN else text
        return text

    def close(self) -> None:
        """Close the connections; asked again, new ones are made."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._owner == os.getpid():
            client.close()

    # One request

    @contextmanager
    def _sent(self, ask: Ask, address: str, token: str | None, what: str) -> Iterator[httpx2.Response]:
        headers = {**self._headers, **ask.headers}
        if token is not None:
            headers |= {"X-ZUMO-AUTH": token, "Authorization": f"Bearer {token}"}
        client = self._connections()
        _sending.is_ours = True
        try:
            request = client.build_request(ask.method, address, headers=headers, content=ask.content)
            response = client.send(request, stream=True, follow_redirects=False)
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            log.debug("%s: %s", what, type(error).__name__)
            raise _translation(error, what) from error
        finally:
            _sending.is_ours = False
        log.debug("%s: %d", what, response.status_code)
        try:
            yield response
        finally:
            response.close()

    def _connections(self) -> httpx2.Client:
        """The client, made when first needed; a forked child makes its own, for two cannot share a connection."""
        with self._lock:
            if self._client is None or self._owner != os.getpid():
                self._owner = os.getpid()
                self._client = httpx2.Client(
                    timeout=self.timeout_s,
                    limits=httpx2.Limits(
                        max_connections=self._in_flight + 4,
                        max_keepalive_connections=self._in_flight,
                        keepalive_expiry=KEEP_ALIVE_S,
                    ),
                    headers={"User-Agent": "syncframe", "Accept-Encoding": "gzip"},
                )
            return self._client

    def _redirected(self, ask: Ask, address: str, location: str, answer: Answer) -> str:
        """Where to ask instead, if that is within the same origin."""
        target = urljoin(address, location)
        if _origin(target) != _origin(self.base):
            raise BackendError(
                f"{answer.what} was redirected to another place, {_shown_origin(target)}; it was not followed",
                hint="a login page in between? If the service has moved there, connect to its new URL",
                status=answer.status,
            )
        if ask.method != "GET" and answer.status not in (307, 308):
            raise BackendError(
                f"{answer.what} was answered with a redirect ({answer.status}), which only a GET may follow",
                hint="check the URL",
                status=answer.status,
            )
        return target


# Errors of the wire


def _translated(raw: Iterator[bytes], what: str) -> Iterator[bytes]:
    try:
        yield from raw
    except httpx2.TransportError as error:
        raise _translation(error, what) from error


def _translation(error: Exception, what: str) -> BackendError:
    """The driver's exception in our words, which never hold a header."""
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return BackendError(f"{what} cannot be asked: {type(error).__name__}", hint="check the URL, keys and headers")
    if _is_certificate(error):
        return BackendError(
            f"{what}: the service's certificate is not trusted: {error}",
            hint="the variable SSL_CERT_FILE may name a file with the authority's certificate",
        )
    # Nothing was sent where no connection came about.
    was_sent = not isinstance(
        error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError
    )
    words = "it took too long" if isinstance(error, httpx2.TimeoutException) else "the connection was cut"
    if not was_sent:
        words = f"no connection: {error or type(error).__name__}"
    hint = None if was_sent else "is the server running, is the URL right, https or http?"
    return TransientError(f"{what}: {words}", hint=hint, was_sent=was_sent)


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


# Addresses and headers


def _base(url: str) -> tuple[str, list[str], dict[str, str]]:
    """The base without a user and password, the secrets in it, and the header that carries them."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SyncError("the URL of the service is none", hint="https://host/path") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise SyncError("the URL of the service names no host, or no http or https", hint="https://host/path")
    if parts.query or parts.fragment:
        raise SyncError(
            "the URL of the service has a query or a fragment",
            hint="a key for the service goes into token= or headers=",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    base = f"{parts.scheme}://{host}{f':{port}' if port else ''}{quote(unquote(parts.path).rstrip('/'))}"
    if parts.username is None and parts.password is None:
        return base, [], {}
    pair = [unquote(parts.username or ""), unquote(parts.password or "")]
    authorization = f"Basic {base64.b64encode(':'.join(pair).encode()).decode()}"
    return base, [*filter(None, [*pair[1:], parts.password]), authorization], {"Authorization": authorization}


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", "", None


def _shown_origin(url: str) -> str:
    scheme, host, port = _origin(url)
    return f"{scheme}://{host}" + (f":{port}" if port != _PORTS.get(scheme) else "")


def _checked_header(what: str, value: Any) -> str:
    """A header's value, without a line end that a file left on it; SyncError, which does not show it, if it is none."""
    value = value.strip() if isinstance(value, str) else value
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise SyncError(
            f"the {what} cannot be sent in a header: it is no text, or has line breaks or letters beyond Latin-1",
        )
    return value


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SyncError(f"{name!r} is no header's name")
    return name

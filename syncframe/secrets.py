"""Where a client finds the token that a service asks for: given, in a file, in the environment or in a keyring.

A token goes from here into the headers of requests and nowhere else: never into the store, a repr or the log.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from .errors import AccessError, SyncError

_PASSWORD = re.compile(r"(://[^:@/]*):.*@|(password=)[^&\s]*", re.IGNORECASE)
TOKEN_NAME, FILE_NAME = "SYNCFRAME_TOKEN", "SYNCFRAME_TOKEN_FILE"
KEYRING = "keyring:"
FILE_BYTES_MAX = 64 * 1024

Token = str | Callable[[], str]


def found_token(
    url: object, token: Token | None = None, token_file: str | os.PathLike[str] | None = None
) -> Token | None:
    """Return the token for a back end, as a text or as what is asked for it anew after a 401.

    Parameters
    ----------
    url
        The back end's.  What stands in the environment goes to https and to this machine only.
    token
        A text, a callable, or ``keyring:SERVICE/NAME``.
    token_file
        A file with the token alone.

    Raises
    ------
    SyncError
        If both are given, the file cannot be read, or keyring is not installed.
    """
    if token is not None and token_file is not None:
        raise SyncError("token= and token_file= are both given", hint="give one of them")
    if token_file is not None:
        return FileToken(token_file)
    if isinstance(token, str) and token.startswith(KEYRING):
        return KeyringToken(token)
    if token is not None or not isinstance(url, str) or not _may_have_it(url):
        return token
    if text := os.environ.get(TOKEN_NAME, "").strip():
        return text
    path = os.environ.get(FILE_NAME, "").strip()
    return FileToken(path) if path else None


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _may_have_it(url: str) -> bool:
    """Whether what was not given for this URL may go there."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    except ValueError:
        return False


class FileToken:
    """The token in a file, read anew when the file is another than it was."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._state: tuple[int, int, int] | None = None
        self._text = ""
        self()

    def __call__(self) -> str:
        with self._lock:
            try:
                state = state_of(self.path)
                # Within one tick of the clock a file may change twice, and look as it was.
                self._text, self._state = self._read(), state
            except (OSError, UnicodeDecodeError) as error:
                raise SyncError(
                    f"the token file {self.path} cannot be read: {why_unread(error)}",
                    hint="a file with the token alone, in UTF-8",
                ) from error
            return self._text

    def has_changed(self) -> bool:
        """Whether the file is another than it was when it was read."""
        try:
            return state_of(self.path) != self._state
        except OSError:
            return False

    def __repr__(self) -> str:
        return f"FileToken({str(self.path)!r})"

    def _read(self) -> str:
        with self.path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1).decode().strip()
        if not text or len(text) > FILE_BYTES_MAX:
            raise OSError("it is empty" if not text else f"it has more than {FILE_BYTES_MAX} bytes")
        return text


class KeyringToken:
    """The token under a service and a name in the keyring of the operating system, read when it is first needed."""

    def __init__(self, named: str) -> None:
        self.service, slash, self.name = named.removeprefix(KEYRING).rpartition("/")
        if not slash or not self.service or not self.name:
            raise SyncError(
                f"token={named!r} names no entry of a keyring",
                hint="token='keyring:SERVICE/NAME', as `keyring set SERVICE NAME` has kept it",
            )
        try:
            keyring = importlib.import_module("keyring")
        except ModuleNotFoundError as error:
            raise SyncError("keyring is not installed", hint='pip install "syncframe[keyring]"') from error
        self._ask: Callable[[str, str], str | None] = keyring.get_password

    def __call__(self) -> str:
        try:
            text = self._ask(self.service, self.name)
        except Exception as error:
            raise AccessError(
                f"the keyring did not answer: {type(error).__name__}", hint="containers have none: give token_file="
            ) from error
        if not text:
            raise AccessError(
                f"the keyring has nothing under {self.service!r} for {self.name!r}",
                hint=f"keyring set {self.service} {self.name}",
            )
        return text

    def __repr__(self) -> str:
        return f"KeyringToken({self.service!r}, {self.name!r})"


def state_of(path: Path) -> tuple[int, int, int]:
    """What is another when a file is written, or another one has its name."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def why_unread(error: Exception) -> str:
    """What is wrong with a file, without its bytes, which a UnicodeDecodeError shows."""
    return "it is no UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def without_password(url: str) -> str:
    """The URL of a database as it may be shown."""
    return _PASSWORD.sub(lambda found: f"{found[1]}@" if found[1] else f"{found[2]}...", url)

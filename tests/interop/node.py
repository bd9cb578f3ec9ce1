"""Node.js for the interop tests: its packages, installed once, and its processes.

The packages are kept under the user's cache directory in a folder that is named after what is asked for, so that a
second run finds them there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).parent
NODE_MIN = (20, 19)
INSTALL_S = 240.0
START_S = 60.0
STOP_S = 10.0
NPM = (
    "npm", "install", "--ignore-scripts", "--omit=dev", "--omit=optional", "--no-package-lock", "--no-audit",
    "--no-fund", "--prefer-offline", "--loglevel=error",
)  # fmt: skip


def lacking() -> str | None:
    """What is not there of what the tests need."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)} here: apt-get install nodejs npm"
    if tuple(map(int, version().removeprefix("v").split(".")[:2])) < NODE_MIN:
        return f"Node.js {version()} is here, and {'.'.join(map(str, NODE_MIN))} is needed: the driver is an ES module"
    return None


def version() -> str:
    return subprocess.run(
        ["node", "--version"], capture_output=True, check=True, text=True, timeout=START_S
    ).stdout.strip()


def installed() -> Path:
    """The folder with `node_modules`; made if it is not there."""
    wanted = [HERE / "package.json", *sorted((HERE / "sqlite3").iterdir())]
    kind = f"{version()} {platform.machine()}".encode()
    name = hashlib.sha256(b"".join([kind, *(path.read_bytes() for path in wanted)]))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "syncframe-interop"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name.hexdigest()[:16]
    with _alone(cache / f"{folder.name}.lock"):
        if not folder.exists():
            _install(folder)
    return folder


def _install(folder: Path) -> None:
    unfinished = folder.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "sqlite3").mkdir(parents=True)
    shutil.copy(HERE / "package.json", unfinished)
    for path in (HERE / "sqlite3").iterdir():
        shutil.copy(path, unfinished / "sqlite3")
    done = subprocess.run(NPM, cwd=unfinished, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode:
        raise RuntimeError(f"npm install ended with {done.returncode}: {(done.stdout + done.stderr)[-2_000:]}")
    unfinished.rename(folder)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of test processes side by side one installs, the others wait."""
    with path.open("w") as file:
        until = time.monotonic() + INSTALL_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"{path} was held for {INSTALL_S:.0f} s") from None
                time.sleep(0.1)
        yield


class Node:
    """A script that Node runs in a process of its own; what it prints is kept in `log`."""

    def __init__(self, packages: Path, script: str, *arguments: str, log: Path, **env: str) -> None:
        self.log = log
        self.process = subprocess.Popen(
            ["node", str(HERE / script), *arguments],
            cwd=packages, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("a"),
            env={**os.environ, **env}, text=True, bufsize=1,
        )  # fmt: skip

    def line(self, within_s: float = START_S) -> str:
        """The next line that it prints; ended if none comes in time."""
        timer = threading.Timer(within_s, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()  # type: ignore[union-attr]
        finally:
            timer.cancel()
        if not line:
            raise AssertionError(f"node printed no line within {within_s:.0f} s: {self.log.read_text()[-2_000:]}")
        return line

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_S)
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()  # type: ignore[union-attr]


class NodeService:
    """The Node.js back end in a process; `mount` gives a service of its own over a fresh SQLite file.

    Its clock is in a zone with an offset, so that a time which is taken for a local one is seen to move.
    """

    def __init__(self, packages: Path, folder: Path) -> None:
        self.packages, self.folder = packages, folder
        self.log = folder / "node.log"
        self._port, self._mounted = 0, 0
        self.start()

    def start(self) -> None:
        """Start it; again on the same port, after `close`."""
        self._node = Node(
            self.packages, "server.js", str(self.folder), str(self._port), log=self.log, TZ="America/New_York"
        )
        line = self._node.line()
        if not line.startswith("port "):
            raise AssertionError(f"the service did not start: {line}{self.log.read_text()[-2_000:]}")
        self._port = int(line.split()[1])
        threading.Thread(target=self._drain, args=(self._node.process.stdout,), daemon=True).start()

    def mount(self, name: str = "") -> str:
        """The URL of a service of that name, made if it is not there."""
        self._mounted += 1
        url = f"http://127.0.0.1:{self._port}/{name or f's{self._mounted}'}"
        status, body = asked("PUT", url)[0::2]
        if status != 201:
            raise AssertionError(f"the service was not mounted: {status} {body!r}")
        return url

    def close(self) -> None:
        self._node.close()

    def _drain(self, lines: Any) -> None:
        with contextlib.suppress(ValueError), self.log.open("a") as log:  # closed while it was read
            for line in lines:
                log.write(line)
                log.flush()


V2 = {"ZUMO-API-VERSION": "2.0.0", "Content-Type": "application/json"}


def asked(method: str, url: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One request as it is, without our client: status, headers with lower-case names, and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=START_S)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body, V2 | {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()

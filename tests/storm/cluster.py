"""Many processes of one Daybook: web processes, workers, PostgreSQL and Valkey, each to be hurt by itself."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from tests.support import preloaded
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.preloaded import Process
from tests.support.processes import NO_TLS
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS, wait_until

# How a process that was told to stop may end: by itself, or by its alarm where it takes too long.
STOPPED = {0, -signal.SIGTERM, -signal.SIGALRM}
UNAVAILABLE = 3  # how one ends that finds no database at its start
AT_WORK = (b"Daybook listens on", b'"event": "leases"')  # what one says once it has found it


class Member:
    """One process by name, in a group of its own; what it says is kept through all its lives."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.environment = environment
        self._command = command
        self._process: Process | None = None
        self._said_before = 0  # bytes in the log from its earlier lives

    def __repr__(self) -> str:
        return self.name

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def found_no_database(self) -> bool:
        """Whether it ended at its start since it could not reach what it needs; it is to be started again."""
        said = self.log.read_bytes()[self._said_before :]
        return self.exit_code == UNAVAILABLE and not any(sign in said for sign in AT_WORK)

    @property
    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def start(self) -> None:
        assert not self.running, f"{self.name} runs already"
        with open(self.log, "ab") as log:
            self._said_before = log.tell()
            self._process = preloaded.start(
                *("service.cli", *self._command),
                environment=self.environment,
                directory=self.log.parent,
                output=log,
            )

    def kill(self) -> None:
        """As `kill -9`, its children too; returns when it is gone."""
        if self._process is not None:
            self._signal_all(signal.SIGKILL)
            self._process.wait(PATIENCE_SECONDS)

    def stop(self) -> int:
        """Ask it to end as an operator would; its exit code. If it doesn't, its log says where it hung."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            self._process.wait(PATIENCE_SECONDS)
            raise AssertionError(f"{self.name} did not stop, see {self.log}") from None

    def pause(self) -> None:
        """Hold it still until `resume`: to all others it looks dead."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self.pid, number)


class Web(Member):
    """A web process on a port that stays its own."""

    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(name, ["web"], {**environment, "DAYBOOK_PORT": str(self.port)}, log)

    def ready(self) -> dict[str, Any] | None:
        """What it says of its ledger and books; None if it can't say."""
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=10, verify=NO_TLS)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None


class Cluster:
    """Everything that one Daybook needs, on loopback and in one directory; gone at the block's end."""

    def __init__(
        self,
        directory: Path,
        *,
        webs: int = 1,
        workers: int = 1,
        database: Literal["postgresql", "sqlite"] = "postgresql",
        postgres: PostgresServer | None = None,
        **settings: str,
    ) -> None:
        self.directory = directory
        self.postgres = (postgres or PostgresServer()) if database == "postgresql" else None
        self.valkey = ValkeyServer(data_dir=directory / "valkey")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DAYBOOK_")},
            "DAYBOOK_MASTER_KEY": os.environ["DAYBOOK_MASTER_KEY"],
            "DAYBOOK_DATA_DIR": str(directory),
            **settings,
        }
        self._sizes = webs, workers
        self.webs: list[Web] = []
        self.workers: list[Member] = []

    def __enter__(self) -> "Cluster":
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def members(self) -> list[Member]:
        return [*self.webs, *self.workers]

    def wait_ready(self) -> None:
        """Wait until every web process answers. Raises AssertionError at once if one has ended."""
        for web in self.webs:
            wait_until(lambda web=web: web.ready() or not web.running, f"{web} is ready")
            assert web.running, f"{web} ended with {web.exit_code}, see {web.log}"

    def wait_caught_up(self) -> None:
        """Wait until the books hold all that the ledger holds."""
        wait_until(self.caught_up, "the books have caught up")

    def caught_up(self) -> bool:
        found = self.webs[0].ready()
        return bool(found and found["lag_events"] and not any(found["lag_events"].values()))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """One `daybook` command on the same data, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "service.cli", *command],
            check=False,
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def stop(self) -> dict[str, int]:
        """Ask every member to end; their exit codes."""
        return {member.name: member.stop() for member in self.members if member.running}

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for member in self.members:
            member.kill()
        self.valkey.terminate()
        if self.postgres:
            if self.postgres.log.exists():
                shutil.copy(self.postgres.log, self.directory)
            self.postgres.close()

    def left_over(self) -> list[str]:
        """Processes that work in our directory, by where they are and what they were told."""
        places = {str(self.directory), *([str(self.postgres.directory)] if self.postgres else [])}
        return [line for line in map(_told, psutil.process_iter()) if any(place in line for place in places)]

    def _start(self) -> None:
        self.valkey.start()
        self.environment["DAYBOOK_REDIS_URL"] = self.valkey.connection_url
        if self.postgres:
            self.postgres.start()
            self.environment["DAYBOOK_DATABASE_URL"] = self.postgres.new_database()
        webs, workers = self._sizes
        for number in range(1, webs + 1):
            self.webs.append(Web(f"web-{number}", self.environment, self._log(f"web-{number}")))
        for number in range(1, workers + 1):
            name = f"worker-{number}"
            self.workers.append(Member(name, ["worker"], self.environment, self._log(name)))
        for member in self.members:
            member.start()
        self.wait_ready()

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


def _told(process: psutil.Process) -> str:
    """Where a process is, its command line and what it was told; nothing if it is gone or not ours."""
    try:
        told = [value for name, value in process.environ().items() if name.startswith("DAYBOOK_")]
        is_gone = process.status() == psutil.STATUS_ZOMBIE
        return "" if is_gone else " ".join((process.cwd(), *process.cmdline(), *told))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""

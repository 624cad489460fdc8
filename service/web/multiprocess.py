"""Several web processes on one socket: a dead one is replaced, and all of them end together.

Uvicorn's own supervisor won't do: it takes no server class of ours, waits without limit for a process that
hangs, and stops all processes if a replacement can't start at once, as while a database is away.
"""

import multiprocessing
import os
import signal
import socket
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import structlog
from msgspec import Struct
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE

from service import logs
from service.processes.lifeline import STOP_SECONDS, follow_parent
from service.settings import Settings
from service.web.listening import bind
from service.web.prometheus import DIRECTORY
from service.web.server import announce, serve

_LOOK_SECONDS = 0.2
_PAUSE_SECONDS = 5.0  # the longest pause before a replacement; after twice that, a process counts as healthy

log = structlog.get_logger()


def serve_many(settings: Settings, count: int) -> int:
    """Serve in `count` processes until SIGTERM or SIGINT; the exit code. Raises as `bind` does."""
    processes = _Processes(settings, count)
    with tempfile.TemporaryDirectory(prefix="daybook-metrics-") as directory:
        os.environ[DIRECTORY] = directory  # for the processes: theirs is read when they import the library
        return processes.run()


class _RunningProcess(Struct, frozen=True, kw_only=True):
    """A process, its start time, and the least time after that before it may be replaced."""

    process: SpawnProcess
    started_at: float
    pause_seconds: float


class _Processes:
    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._sockets = bind(settings)
        self._context = multiprocessing.get_context("spawn")
        self._ready_receiver, self._ready_sender = self._context.Pipe(duplex=False)
        self._is_announced = self._is_stopping = False

    def run(self) -> int:
        """Keep the processes alive until a signal; or until one can't start, if none has started yet."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle_signal)
        running = [self._start(_LOOK_SECONDS) for _ in range(self._count)]
        while not self._is_stopping:
            time.sleep(_LOOK_SECONDS)
            self._announce_once_ready()
            for index, child in enumerate(running):
                age = time.monotonic() - child.started_at
                if child.process.is_alive() or age < child.pause_seconds or self._is_stopping:
                    continue
                if child.process.exitcode == STARTUP_FAILURE and not self._is_announced:
                    self._stop_all(running)
                    return STARTUP_FAILURE
                log.warning("process_died", pid=child.process.pid, exitcode=child.process.exitcode)
                mark_process_dead(child.process.pid)  # type: ignore[no-untyped-call]
                doubled = min(2 * child.pause_seconds, _PAUSE_SECONDS)
                running[index] = self._start(doubled if age < 2 * _PAUSE_SECONDS else _LOOK_SECONDS)
        self._stop_all(running)
        return 0

    def _announce_once_ready(self) -> None:
        """Announce the address once a process is ready. Reads all messages, to keep the pipe empty."""
        while self._ready_receiver.poll():
            self._ready_receiver.recv_bytes()
            if not self._is_announced:
                announce(self._sockets)
            self._is_announced = True

    def _start(self, pause_seconds: float) -> _RunningProcess:
        process = self._context.Process(
            target=_serve, args=(self._settings, self._sockets, self._ready_sender)
        )
        process.start()
        return _RunningProcess(process=process, started_at=time.monotonic(), pause_seconds=pause_seconds)

    def _handle_signal(self, _number: int, _frame: object) -> None:
        self._is_stopping = True

    def _stop_all(self, running: list[_RunningProcess]) -> None:
        """Terminate the processes, and kill those that have not ended in time."""
        for listener in self._sockets:  # open, the kernel would accept connections that nobody will answer
            listener.close()
        deadline = time.monotonic() + STOP_SECONDS
        for child in running:
            child.process.terminate()
        for child in running:
            child.process.join(max(0.0, deadline - time.monotonic()))
            child.process.kill()
            child.process.join()


def _serve(settings: Settings, sockets: list[socket.socket], ready_sender: Connection) -> None:
    """Run one of the processes."""
    logs.configure(settings.log_level)
    follow_parent(gracefully=True)
    serve(settings, sockets, lambda _sockets: ready_sender.send_bytes(b"listens"))

"""Several web processes on one socket: a dead one is started again, and they end together.

Not uvicorn's own supervisor: it can't be given a server of ours, waits without end for a process that
hangs, and stops them all when one that died can't start again at once, as while a database is away.
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
from service.web.metrics import DIRECTORY
from service.web.server import announce, configured, serve

_LOOK_SECONDS = 0.2
_PAUSE_SECONDS = 5.0  # at most, between two starts of one that dies at once; twice that is a life

log = structlog.get_logger()


def serve_many(settings: Settings, count: int) -> int:
    """Serve in `count` processes until SIGTERM or SIGINT; the exit code."""
    with tempfile.TemporaryDirectory(prefix="daybook-metrics-") as directory:
        os.environ[DIRECTORY] = directory  # for the processes: theirs is read when they import the library
        return _Processes(settings, count).run()


class _Started(Struct, frozen=True, kw_only=True):
    """A process, when it started, and how long after that another may start in its place."""

    process: SpawnProcess
    started: float
    pause_seconds: float


class _Processes:
    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._socket = configured(settings).bind_socket()
        self._context = multiprocessing.get_context("spawn")
        self._listening, self._listens = self._context.Pipe(duplex=False)
        self._said = self._stopping = False

    def run(self) -> int:
        """Keep them alive until a signal; or until one can't start, if none ever did."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        running = [self._start(_LOOK_SECONDS) for _ in range(self._count)]
        while not self._stopping:
            time.sleep(_LOOK_SECONDS)
            self._hear()
            for at, one in enumerate(running):
                age = time.monotonic() - one.started
                if one.process.is_alive() or age < one.pause_seconds or self._stopping:
                    continue
                if one.process.exitcode == STARTUP_FAILURE and not self._said:
                    self._end(running)
                    return STARTUP_FAILURE
                log.warning("process_died", pid=one.process.pid, exitcode=one.process.exitcode)
                mark_process_dead(one.process.pid)  # type: ignore[no-untyped-call]
                doubled = min(2 * one.pause_seconds, _PAUSE_SECONDS)
                running[at] = self._start(doubled if age < 2 * _PAUSE_SECONDS else _LOOK_SECONDS)
        self._end(running)
        return 0

    def _hear(self) -> None:
        """Say where we listen once one of them does; read what others say, or it fills the pipe."""
        while self._listening.poll():
            self._listening.recv_bytes()
            if not self._said:
                announce([self._socket])
            self._said = True

    def _start(self, pause_seconds: float) -> _Started:
        process = self._context.Process(target=_serve_one, args=(self._settings, self._socket, self._listens))
        process.start()
        return _Started(process=process, started=time.monotonic(), pause_seconds=pause_seconds)

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _end(self, running: list[_Started]) -> None:
        """Let all of them stop, and end what has not by then."""
        self._socket.close()  # while it is open here, connections are taken that nobody will answer
        deadline = time.monotonic() + STOP_SECONDS
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.join(max(0.0, deadline - time.monotonic()))
            one.process.kill()
            one.process.join()


def _serve_one(settings: Settings, listening: socket.socket, listens: Connection) -> None:
    """One of the processes, from its start to its end."""
    logs.configure()
    follow_parent(gracefully=True)
    serve(settings, [listening], lambda _sockets: listens.send_bytes(b"listens"))

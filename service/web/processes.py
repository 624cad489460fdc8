"""Several web processes on one socket: a dead one is started again, and they end together.

Not uvicorn's own supervisor: it can't be given a server of ours, waits without end for a process that
hangs, and stops them all when one that died can't start again at once, as while a database is away.
"""

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import structlog
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE

from service import logs
from service.settings import Settings
from service.web.metrics import DIRECTORY
from service.web.server import STOP_SECONDS, announce, configured, serve

_LOOK_SECONDS = 0.2

log = structlog.get_logger()


def serve_many(settings: Settings, count: int) -> int:
    """Serve in `count` processes until SIGTERM or SIGINT; the exit code."""
    with tempfile.TemporaryDirectory(prefix="daybook-metrics-") as directory:
        os.environ[DIRECTORY] = directory  # for the processes: theirs is read when they import the library
        return _Processes(settings, count).run()


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
        processes = [self._start() for _ in range(self._count)]
        while not self._stopping:
            time.sleep(_LOOK_SECONDS)
            if not self._said and self._listening.poll():
                self._said = True
                announce([self._socket])
            for at, process in enumerate(processes):
                if process.is_alive() or self._stopping:
                    continue
                if process.exitcode == STARTUP_FAILURE and not self._said:
                    self._end(processes)
                    return STARTUP_FAILURE
                log.warning("process_died", pid=process.pid, exitcode=process.exitcode)
                mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
                processes[at] = self._start()
        self._end(processes)
        return 0

    def _start(self) -> SpawnProcess:
        process = self._context.Process(target=_serve_one, args=(self._settings, self._socket, self._listens))
        process.start()
        return process

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _end(self, processes: list[SpawnProcess]) -> None:
        """Let all of them stop, and end what has not by then."""
        self._socket.close()  # while it is open here, connections are taken that nobody will answer
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.join()


def _serve_one(settings: Settings, listening: socket.socket, listens: Connection) -> None:
    """One of the processes, from its start to its end."""
    logs.configure()
    threading.Thread(target=_follow, daemon=True, name="parent").start()
    serve(settings, [listening], lambda _sockets: listens.send_bytes(b"listens"))


def _follow() -> None:
    """End with the parent, even where it was killed and could tell nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - it is what started us
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)

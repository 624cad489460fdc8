"""Commands started by forks of a process that has imported Daybook: for a fifth of the computing.

A fork has its own arguments, environment, directory, output and process group, and goes on as `python -m`
would. It ends, and can be killed, like any other process.
"""

import atexit
import faulthandler
import gc
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, NoReturn

from msgspec import Struct, json

from service import commands

_ROOT = Path(__file__).parents[2]
_NUMBER = struct.Struct("i")  # a process's id, and then its exit code
# What a process imports only once it serves or works.
_LATE = ("aiosqlite", "alembic.command", "numpy", "uvicorn.lifespan.on", "uvicorn.loops.auto")


class _Start(Struct, frozen=True, kw_only=True):
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    directory: str


class Process:
    """A started process. What it shares with `subprocess.Popen` means the same."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = self._receive()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            with self._connection:
                self.returncode = self._receive()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _receive(self) -> int:
        (number,) = _NUMBER.unpack(self._connection.recv(_NUMBER.size))
        return int(number)


def start(
    module: str, *arguments: str, environment: Mapping[str, str], directory: Path, output: BinaryIO
) -> Process:
    """Start a module by a fork. What it prints goes to `output`, and where it hangs if SIGABRT asks it."""
    wanted = _Start(module=module, arguments=arguments, environment={**environment}, directory=str(directory))
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(_forking(), [b"."], [theirs.fileno(), output.fileno()])
    ours.sendall(json.encode(wanted))
    ours.shutdown(socket.SHUT_WR)
    return Process(ours)


@cache
def _forking() -> socket.socket:
    """The connection to the process that forks, which ends with this one."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=_ROOT,
            stdin=theirs,
            start_new_session=True,  # Ctrl-C is the tests' to handle
        )

    @atexit.register
    def stop() -> None:
        ours.close()
        process.wait()

    return ours


def _serve() -> NoReturn:
    """Fork for each start that standard input tells of, until that ends."""
    for module in pkgutil.iter_modules(commands.__path__, f"{commands.__name__}."):
        import_module(module.name)
    for name in _LATE:
        import_module(name)
    gc.collect()
    gc.freeze()
    starts = socket.socket(fileno=0)
    while socket_and_output := socket.recv_fds(starts, 1, 2)[1]:
        if not os.fork():
            starts.detach()
            _report(*socket_and_output)
        for each in socket_and_output:
            os.close(each)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    sys.exit()


def _report(connection: int, output: int) -> NoReturn:
    """Fork once more; tell the id of that process and, once it has ended, its exit code."""
    with socket.socket(fileno=connection) as asking:
        wanted = json.decode(b"".join(iter(lambda: asking.recv(1 << 16), b"")), type=_Start)
        if pid := os.fork():
            os.setpgid(pid, pid)
            asking.send(_NUMBER.pack(pid))
            _, status = os.waitpid(pid, 0)
            asking.send(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
            os._exit(0)
    _become(wanted, output)


def _become(wanted: _Start, output: int) -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    faulthandler.enable()
    os.environ.clear()
    os.environ.update(wanted.environment)
    os.chdir(wanted.directory)
    sys.argv[1:] = wanted.arguments
    runpy.run_module(wanted.module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    _serve()

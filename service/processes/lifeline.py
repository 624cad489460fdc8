"""Processes that end together: the supervisor's lock is the lifeline of the processes that it started.

A supervisor that is killed can't stop its processes. So it holds a lock, which the kernel releases then, and
each of its processes waits for that lock and stops when it gets it.
"""

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager
from io import TextIOWrapper
from pathlib import Path

from service.core.errors import SettingsError
from service.settings import LIFELINE
from service.storage.files import locked

STOP_SECONDS = 8  # a process that is told to stop ends within this time, even if something hangs
_WAIT_SECONDS = 15.0
_WORKER_LOCK = "worker.lock"


def command_line(name: str) -> list[str]:
    """How this Daybook's command of that name is started, as another process.

    By the Python that runs this one, whose environment need not be active (-P: nor is the working directory
    searched for modules).
    """
    return [sys.executable, "-P", "-m", "service.cli", name]


def hold_lifeline(data_dir: Path, seconds: float = _WAIT_SECONDS) -> TextIOWrapper:
    """Take the data directory's lock for this process; it is held as long as the returned file is open.

    Waits `seconds` for the processes of a run that was killed to end; raises SettingsError if they don't,
    since then another Daybook runs there. A POSIX lock is used because a fork does not inherit it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = open(data_dir / "run.lock", "w")  # noqa: SIM115 - held until the process ends
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                lock.close()
                raise SettingsError(f"another Daybook runs on {data_dir}; stop it first") from None
            time.sleep(0.1)
        else:
            return lock


def worker_lock(data_dir: Path) -> AbstractContextManager[None]:
    """The lock that shows, while it is held, that a worker of this data directory runs."""
    return locked(data_dir / _WORKER_LOCK, shared=True)


def is_worker_running(data_dir: Path) -> bool:
    """Whether a process holds the lock of a worker of this data directory."""
    try:
        with locked(data_dir / _WORKER_LOCK, wait=False):
            return False
    except BlockingIOError:
        return True


def follow_lifeline() -> None:
    """Stop this process (by SIGTERM to itself) when the supervisor named in the environment is gone."""
    path = os.environ.get(LIFELINE)
    if path:
        threading.Thread(target=_stop_once_released, args=(path,), daemon=True, name="lifeline").start()


def follow_parent(*, gracefully: bool = False) -> None:
    """End this process, which `multiprocessing` started, when the process that started it is gone.

    It ends at once; `gracefully`, by a SIGTERM to itself.
    """
    threading.Thread(target=_wait_for_parent, args=(gracefully,), daemon=True, name="parent").start()


def _wait_for_parent(gracefully: bool) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - it started this process
    parent.join()
    if gracefully:
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        os._exit(1)


def _stop_once_released(path: str) -> None:
    with open(path, "r+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_SH)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_WAIT_SECONDS)  # holding it keeps the next run waiting until this process has ended
        os._exit(1)

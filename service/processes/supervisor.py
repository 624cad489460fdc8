"""`daybook run`: web, worker and the embedded Valkey, started and stopped together."""

import os
import shlex

from honcho.manager import Manager

from service.processes.lifeline import command_line, hold_lifeline
from service.queue import valkey
from service.settings import LIFELINE, Settings

PROCESSES = ("web", "worker")  # the repository's Procfile has the same, for other process managers


def supervise(settings: Settings) -> int:
    """Run until a signal, or until one of the processes ends; the exit code."""
    lifeline = hold_lifeline(settings.data_dir)
    environment = {
        **os.environ,
        "DAYBOOK_HOST": settings.host,
        "DAYBOOK_PORT": str(settings.port),
        "PYTHONUNBUFFERED": "1",
        LIFELINE: lifeline.name,
    }
    names = [*PROCESSES]
    if settings.redis_url is None:
        environment["DAYBOOK_REDIS_URL"] = valkey.url(settings.data_dir)
        names.insert(0, "valkey")
    manager = Manager()
    for name in names:
        manager.add_process(name, f"exec {shlex.join(command_line(name))}", env=environment)
    manager.loop()
    stopped_by_signal = manager.returncode in (130, 143)
    return 0 if stopped_by_signal else int(manager.returncode or 0)

"""`daybook run`: web, worker and the embedded Valkey, started and stopped together."""

import os
import shlex
import sys
from collections.abc import Callable

import structlog
from honcho.manager import SYSTEM_PRINTER_NAME, Manager
from honcho.printer import Message, Printer

from service.processes.lifeline import command_line, hold_lifeline
from service.queue import valkey
from service.settings import LIFELINE, Settings

PROCESSES = ("web", "worker")  # the repository's Procfile has the same, for other process managers

log = structlog.get_logger()


class _Lines(Printer):  # type: ignore[misc]
    """Passes on the lines of the processes, on a terminal with their names; its own are lines of the log."""

    def write(self, message: Message) -> None:
        """Write the lines of a message."""
        if message.name == SYSTEM_PRINTER_NAME:
            log.info("processes", detail=message.data.strip())
        else:
            super().write(message)


def supervise(settings: Settings, prepare: Callable[[], object]) -> int:
    """Run until a signal, or until one of the processes ends; the exit code. First, `prepare` the stores."""
    lifeline = hold_lifeline(settings.data_dir)
    prepare()
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
    manager = Manager(_Lines(sys.stdout, prefix=sys.stdout.isatty()))
    for name in names:
        manager.add_process(name, f"exec {shlex.join(command_line(name))}", env=environment)
    manager.loop()
    stopped_by_signal = manager.returncode in (130, 143)
    return 0 if stopped_by_signal else int(manager.returncode or 0)

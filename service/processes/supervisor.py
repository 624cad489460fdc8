"""`daybook run`: the Procfile's processes and the embedded Valkey, started and stopped together."""

import os
import sys
from pathlib import Path

from honcho.environ import parse_procfile
from honcho.manager import Manager

from service.processes.lifeline import LIFELINE, hold_lifeline
from service.queue import valkey
from service.settings import Settings

_PROCFILE = Path(__file__).parents[2] / "Procfile"


def supervise(settings: Settings) -> int:
    """Run until a signal, or until one of the processes ends; the exit code.

    The Procfile's commands are found beside the running Python, whether or not its environment is active.
    """
    lifeline = hold_lifeline(settings.data_dir)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        LIFELINE: lifeline.name,
    }
    manager = Manager()
    if settings.redis_url is None:
        environment["DAYBOOK_REDIS_URL"] = valkey.url(settings.data_dir)
        manager.add_process("valkey", "exec daybook valkey", env=environment)
    for name, command in parse_procfile(_PROCFILE.read_text()).processes.items():
        manager.add_process(name, f"exec {command}", env=environment)
    manager.loop()
    stopped_by_signal = manager.returncode in (130, 143)
    return 0 if stopped_by_signal else int(manager.returncode or 0)

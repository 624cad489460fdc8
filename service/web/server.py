"""The web process's server: it says where it listens once it answers, and stops in time."""

import gc
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import NoReturn

import uvicorn

from service.processes.lifeline import STOP_SECONDS
from service.settings import Settings
from service.web.app import create_app

# A stop: 2 s for reads that wait for the books, 6 s for requests under way, 8 s for everything, whatever a
# store does; whoever supervises us often kills after 10.
_WAITS_SECONDS = 2.0
_REQUESTS_SECONDS = 6


class Server(uvicorn.Server):
    """Calls `listens` with its sockets once requests are answered, and has ended in time once it stops."""

    def __init__(self, config: uvicorn.Config, listens: Callable[[list[socket.socket]], None]) -> None:
        super().__init__(config)
        self._listens = listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        gc.freeze()  # what was made until now stays: no collection needs to look at it again
        if self.started:
            self._listens([bound for server in self.servers for bound in server.sockets])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; the kernel ends us if that takes too long, as when a thread hangs in a store."""
        signal.alarm(STOP_SECONDS)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way, then end."""
        self.lifespan.state["daybook"].progress.hurry(_WAITS_SECONDS)
        self.lifespan.state["daybook"].lookback.stop()
        await super().shutdown(sockets)


def configured(settings: Settings) -> uvicorn.Config:
    """How each web process serves."""
    return uvicorn.Config(
        partial(create_app, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_REQUESTS_SECONDS,
    )


def announce(sockets: list[socket.socket]) -> None:
    """Say where we listen."""
    for bound in sockets:
        host, port = bound.getsockname()[:2]
        print(f"Daybook listens on http://{host}:{port} (docs at /docs)", flush=True)  # noqa: T201


def serve(
    settings: Settings,
    sockets: list[socket.socket] | None = None,
    listens: Callable[[list[socket.socket]], None] = announce,
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # uvicorn raises the signal again when it has stopped
    server = Server(configured(settings), listens)
    server.run(sockets)
    if not server.started:
        sys.exit(uvicorn.config.STARTUP_FAILURE)


def _end(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)

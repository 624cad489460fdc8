"""The web process's server: it announces its address once it answers, and stops in time."""

import gc
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import NoReturn, cast

import uvicorn

from service.processes.lifeline import STOP_SECONDS
from service.settings import Settings
from service.web.app import create_app
from service.web.listening import bind
from service.web.protocol import Connections, Protocol

# A stop: 2 s for reads that wait for the books, 6 s for requests under way, 8 s for everything, whatever a
# store does; supervisors often kill a process after 10 s.
_WAIT_SECONDS = 2.0
_REQUEST_SECONDS = 6

# How long a thread that makes a read's document may go on while webhooks wait for Python: a webhook waits for
# its turn some ten times, and by default for 5 ms each time.
_SWITCH_SECONDS = 0.0005


class Server(uvicorn.Server):
    """Calls `on_listening` with its sockets once it answers requests, and stops within a time limit."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[list[socket.socket]], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call `on_listening`."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        await super().startup(sockets)
        gc.freeze()  # the objects made so far stay: no collection needs to visit them
        if self.started:
            self._on_listening([listener for server in self.servers for listener in server.sockets])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; the kernel kills the process if that takes too long, as when a thread hangs in a store."""
        signal.alarm(STOP_SECONDS)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the requests under way, then end."""
        self.lifespan.state["daybook"].progress.shorten_waits(_WAIT_SECONDS)
        self.lifespan.state["daybook"].lookback.stop()
        await super().shutdown(sockets)


def build_config(settings: Settings) -> uvicorn.Config:
    """The uvicorn configuration of each web process."""
    return uvicorn.Config(
        partial(create_app, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        log_level="error",  # what strangers send as HTTP is none
        log_config=None,  # its lines are those of the process
        access_log=False,
        server_header=False,
        headers=[("X-Content-Type-Options", "nosniff")],
        http=cast(type[Protocol], partial(Protocol, connections=Connections(settings.trusted_proxies))),
        ws="none",
        proxy_headers=False,  # `ClientNames` reads them
        timeout_graceful_shutdown=_REQUEST_SECONDS,
    )


def announce(sockets: list[socket.socket]) -> None:
    """Print the addresses on which the process listens."""
    for listener in sockets:
        host, port = listener.getsockname()[:2]
        print(f"Daybook listens on http://{host}:{port} (docs at /docs)", flush=True)  # noqa: T201


def serve(
    settings: Settings,
    sockets: list[socket.socket] | None = None,
    on_listening: Callable[[list[socket.socket]], None] = announce,
) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first.

    Without `sockets` it listens at the address that is set; raises Unavailable if that is not possible.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # uvicorn raises the signal again when it has stopped
    server = Server(build_config(settings), on_listening)
    server.run(sockets or bind(settings))
    if not server.started:
        sys.exit(uvicorn.config.STARTUP_FAILURE)


def _end(_number: int, _frame: object) -> NoReturn:
    sys.exit(0)

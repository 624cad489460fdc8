"""The web process's server."""

import gc
import socket
import sys

import uvicorn

from service.settings import Settings
from service.web.app import create_app


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # what was made until now stays: no collection needs to look at it again
        if self.started:
            for server in self.servers:
                for bound in server.sockets:
                    host, port = bound.getsockname()[:2]
                    print(f"Daybook listens on http://{host}:{port} (docs at /docs)", flush=True)  # noqa: T201


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first."""
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=8,
    )
    server = _Server(config)
    server.run()
    if not server.started:
        sys.exit(3)

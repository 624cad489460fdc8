"""Ports of loopback for servers that a test starts by a number."""

import fcntl
import os
import socket
from pathlib import Path
from tempfile import gettempdir

# The system takes ports for outgoing connections from 32768 up (Linux) or 49152 up: a server that is down
# would lose such a port, and a client that knocks at it can even come to be connected with itself.
_FIRST, _COUNT = 10_000, 22_000
_TURN = Path(gettempdir()) / f"daybook-tests-{os.getuid()}.port"


def free_port() -> int:
    """A free port that no other test, of this process or of another, is given as well."""
    with open(_TURN, "a+") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        turn.seek(0)
        last = int(turn.read() or os.getpid())
        port = next(
            port for port in (_FIRST + (last + step) % _COUNT for step in range(1, _COUNT)) if _is_free(port)
        )
        turn.truncate(0)
        turn.write(str(port - _FIRST))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

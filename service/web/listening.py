"""The sockets on which the web processes listen."""

import socket
import sys
from contextlib import ExitStack

from service.core.errors import Unavailable
from service.settings import Settings

_STALLED_MS = 30_000  # a client that takes nothing of its answer for so long is gone, and so is the answer


def bind(settings: Settings) -> list[socket.socket]:
    """A socket for each address of the host that is set, all on the port that is set.

    Raises Unavailable if that is not possible, as where another program listens there.
    """
    host, port = settings.host, settings.port
    try:
        return _bind_all(host, port)
    except OSError as error:
        raise Unavailable(
            f"DAYBOOK_HOST and DAYBOOK_PORT: can't listen at {host}, port {port}: {error.strerror}"
        ) from None


def _bind_all(host: str, port: int) -> list[socket.socket]:
    """Bound sockets, which do not listen yet."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners = []
    with ExitStack() as opened:  # closes those that were opened before one fails
        for family, _, _, _, address in dict.fromkeys(addresses):
            listener = opened.enter_context(socket.socket(family))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform == "linux":  # connections have it from their listener
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listeners.append(listener)
        opened.pop_all()
    return listeners

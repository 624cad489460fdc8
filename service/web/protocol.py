"""HTTP/1.1 as uvicorn speaks it, with limits on what a client may send before a request is under way.

Uvicorn bounds neither the size of a head nor the time that it takes, and httptools copies a header anew with
each piece of it that arrives, so that an endless one costs more and more.
"""

import asyncio
import re
import resource
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.settings import Network
from service.web.clients import TrustedProxies
from service.web.problems import untyped_problem
from service.web.room import Room, client_key
from service.web.turns import Turns

# A head is over the limit once so many bytes of it have come and it has not ended. They are counted in
# pieces: a head of up to 48 KiB is read, and none of over 64 KiB.
_MAX_HEAD_BYTES = 48 << 10
_PIECE_BYTES = 16 << 10
_MAX_HEADER_LINES = 128  # processors and proxies send 20 to 40
_HEAD_LIMITS = f"a head has at most 32 KiB and {_MAX_HEADER_LINES} lines"
_HEAD_SECONDS = 10.0
_MAX_PIPELINED = 16  # requests that wait for the answers to those before them
_MAX_CONNECTIONS = 4_096
_OTHER_FILES = 256  # that a process has open: stores, sockets, modules
_ABSOLUTE_TARGET = re.compile(rb"https?://([^/?#]*)/", re.IGNORECASE)


class Connections:
    """The open connections of a process. A client over its share loses those of its own that are idle.

    A connection is idle while no request of it is under way. A trusted proxy's are not counted: they are
    many clients'.
    """

    def __init__(self, trusted: tuple[Network, ...]) -> None:
        self._turns = Turns()
        self._trusted = TrustedProxies(trusted)
        self._room = Room(_connection_limit())
        self._idle: dict[str, dict[Protocol, None]] = {}  # the oldest first

    def add(self, connection: "Protocol") -> bool:
        """Whether there is room for one more, maybe since an idle one of the same client is cut off."""
        client = connection.client_key
        self._turns.postpone()
        while connection.peer not in self._trusted and not self._room.take(client):
            idle = next(iter(self._idle.get(client, ())), None)
            if idle is None:
                return False
            idle.cut_off()
        return True

    def remove(self, connection: "Protocol") -> None:
        """Give back the room of a connection that was added."""
        self.set_busy(connection)
        if connection.peer not in self._trusted:
            self._room.give_back(connection.client_key)

    def call_in_turn(self, connection: "Protocol", work: Callable[[], None]) -> None:
        """Do a connection's work in its client's turn; for a trusted proxy, which is many clients, now."""
        if connection.peer in self._trusted:
            work()
        else:
            self._turns.call(connection.client_key, work)

    def set_idle(self, connection: "Protocol") -> None:
        """No request of it is under way."""
        self._idle.setdefault(connection.client_key, {})[connection] = None

    def set_busy(self, connection: "Protocol") -> None:
        """A request of it is under way."""
        idle = self._idle.get(connection.client_key, {})
        idle.pop(connection, None)
        if not idle:
            self._idle.pop(connection.client_key, None)


class Protocol(HttpToolsProtocol):
    """A connection. A head that is too large is answered with 431; one that is too slow is cut off.

    What is refused is answered after the requests before it, and ends the connection.
    """

    def __init__(self, *args: Any, connections: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open_connections = connections
        self._is_added = False
        self._is_in_head = False
        self._is_receiving = False  # a request, from its first byte to the last of its body
        self._bytes_since_progress = 0  # since a head began or ended, or a piece of a body
        self._held = 0  # pieces of data that wait for the client's turn
        self._under_way = 0  # requests that are not answered yet
        self._refusal = b""  # the answer to what can't be taken, and nothing after it is read
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def peer(self) -> str:
        """The address of the other end."""
        return self.client[0] if self.client else ""

    @property
    def client_key(self) -> str:
        """By whom room for connections is shared."""
        return client_key(self.peer)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, if there is room."""
        super().connection_made(transport)
        self._is_added = self._open_connections.add(self)
        if not self._is_added:
            transport.abort()
            return
        self._open_connections.set_idle(self)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_clock()
        self._remove()
        super().connection_lost(exc)

    def cut_off(self) -> None:
        """Close at once, without an answer."""
        self._remove()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what has come: what goes on with a body at once, anything else in the client's turn."""
        if not self._is_receiving:
            self._start_clock()
        if self._is_receiving and not self._is_in_head and not self._held:
            self._parse(data)
            return
        self._held += 1
        self.flow.pause_reading()
        self._open_connections.call_in_turn(self, partial(self._parse_held, data))

    def _parse_held(self, data: bytes) -> None:
        self._held -= 1
        self.flow.resume_reading()
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parse what has come, piece by piece, as long as it is within the limits."""
        for start in range(0, len(data), _PIECE_BYTES):
            if self._refusal or self.transport.is_closing():
                return
            piece = data[start : start + _PIECE_BYTES]
            self._bytes_since_progress += len(piece)
            super().data_received(piece)
            if self._bytes_since_progress >= _MAX_HEAD_BYTES and not self._refusal:
                self._refuse(431, _HEAD_LIMITS)

    def on_message_begin(self) -> None:
        """A head begins."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._fail(503, f"more than {_MAX_PIPELINED} requests wait for their answers")
        self._is_receiving = self._is_in_head = True
        self._bytes_since_progress = 0
        self._start_clock()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of a head. What may follow a body is dropped: a head says all that counts."""
        if not self._is_in_head:
            return
        if len(self.headers) >= _MAX_HEADER_LINES:
            self._fail(431, _HEAD_LIMITS)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head ends, and its request begins, or waits for those before it."""
        if detail := _fault_of_head(self.url, self.headers, self.parser.get_http_version()):
            self._fail(400, detail)
        super().on_headers_complete()
        self._is_in_head = False
        self._bytes_since_progress = 0
        self._stop_clock()
        self._open_connections.set_busy(self)
        self._under_way += 1

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._bytes_since_progress = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has come whole."""
        self._is_receiving = False
        self._bytes_since_progress = 0
        self._stop_clock()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request is answered. If it has not come whole, the rest has to come in time, too."""
        self._under_way -= 1
        super().on_response_complete()
        if self.transport.is_closing() or self._under_way:
            return
        if self._refusal:
            self._end()
            return
        self._open_connections.set_idle(self)
        if self._is_receiving:
            self._start_clock()

    def send_400_response(self, _msg: str) -> None:
        """Refuse what is not HTTP, unless it is refused for another reason."""
        if not self._refusal:
            self._refuse(400, "this is no request of HTTP/1.1")

    def _fail(self, status: int, detail: str) -> NoReturn:
        """End the parser with a refusal."""
        self._refuse(status, detail)
        raise httptools.HttpParserError(detail)

    def _refuse(self, status: int, detail: str) -> None:
        """Take no more, and answer with a problem once all requests that came before it are answered.

        A request whose body can't be read is not answered itself.
        """
        self._refusal = self._problem(status, detail)
        self._stop_clock()
        self.flow.pause_reading()
        if self._is_receiving and not self._is_in_head:
            if self.pipeline:
                self.pipeline.popleft()
            elif self.cycle.response_started:
                self.transport.close()
                return
            self._under_way -= 1
        if not self._under_way:
            self._end()

    def _end(self) -> None:
        self.transport.write(self._refusal)
        self.transport.close()

    def _problem(self, status: int, detail: str) -> bytes:
        """The whole answer."""
        body = untyped_problem(status, detail)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = (b"%s: %s\r\n" % header for header in headers)
        return b"".join((STATUS_LINE[status], *lines, b"\r\n", body))

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _remove(self) -> None:
        if self._is_added:
            self._is_added = False
            self._open_connections.remove(self)


def _fault_of_head(target: bytes, headers: list[tuple[bytes, bytes]], version: str) -> str | None:
    """Why it is not plain which host a request is for (RFC 9112, 3.2), if it is not."""
    hosts = [value.lower() for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        return "a request has one Host"
    if target.startswith((b"/", b"*")):
        return None
    absolute = _ABSOLUTE_TARGET.match(target)
    if absolute is None or absolute[1].lower() not in hosts:
        return "the target does not name the host that Host names"
    return None


def _connection_limit() -> int:
    """How many connections the process may have open. Raises its limit of open files, where it can."""
    wanted = _MAX_CONNECTIONS + _OTHER_FILES
    files, most = (
        wanted if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    if files < wanted:
        files = min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    return min(_MAX_CONNECTIONS, max(files - _OTHER_FILES, files // 2))

"""Turns: each pass of the event loop begins only a few things, and clients take turns.

What a request costs before its first wait keeps the event loop busy, even where it is refused. So whoever
sends one waits for a few of each other client, however many those send.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.errors import Busy
from service.web.clients import client_of
from service.web.problems import daybook_error
from service.web.state import state_of

_PER_PASS = 8  # pieces of work, some milliseconds; a pass costs about as much as one of them
_MAX_POSTPONED = 8  # passes
_LIMITED_BY_ROUTE = ("/webhooks/", "/api/")


class Turns:
    """Does some pieces of work in each pass of the event loop: the first of each waiting client in turn."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Callable[[], None]]] = {}  # by client; whose turn is next is first
        self._left = _PER_PASS  # of this pass
        self._is_postponed = False
        self._postponed = 0  # passes in a row

    def call(self, client: str, work: Callable[[], None]) -> None:
        """Do the work now if there is room for it in this pass, else in the client's turn."""
        if self._waiting or not self._left:
            self._waiting.setdefault(client, deque()).append(work)
            return
        if self._left == _PER_PASS:
            asyncio.get_running_loop().call_soon(self._begin_pass)
        self._left -= 1
        work()

    def postpone(self) -> None:
        """Leave the next turn to a later pass, but not again and again.

        Who connects waits for all that connected before, so each pass that accepts has little else to do.
        """
        self._is_postponed = True

    async def wait(self, client: str) -> None:
        """Wait for the client's turn."""
        turn = asyncio.get_running_loop().create_future()
        self.call(client, partial(_resolve, turn))
        await turn

    def _begin_pass(self) -> None:
        self._left = _PER_PASS
        if not self._waiting:
            return
        asyncio.get_running_loop().call_soon(self._begin_pass)
        if self._is_postponed and self._postponed < _MAX_POSTPONED:
            self._is_postponed = False
            self._postponed += 1
            self._left = 0
            return
        self._postponed = 0
        while self._waiting and self._left:
            self._left -= 1
            client = next(iter(self._waiting))
            works = self._waiting.pop(client)
            work = works.popleft()
            if works:
                self._waiting[client] = works
            work()


class ClientTurns:
    """The app, whose requests take room by their client, whatever their path, and then wait for its turn."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503 if there is no room, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        client, state = client_of(request), state_of(request)
        is_limited = scope["path"].startswith(_LIMITED_BY_ROUTE)
        try:
            with (state.requests if is_limited else state.open_requests).slot(client):
                await self._turns.wait(client)
                await self._app(scope, receive, send)
        except Busy as error:
            await (await daybook_error(request, error))(scope, receive, send)


def _resolve(turn: asyncio.Future[None]) -> None:
    if not turn.done():  # its request may have been cancelled
        turn.set_result(None)

"""Turns: each pass of the event loop begins one thing, and clients take turns.

What a request costs before its first wait keeps the event loop busy, even where it is refused. So whoever
sends one waits for at most one of each other client, however many those send.
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

_MAX_POSTPONED = 8  # passes
_LIMITED_BY_ROUTE = ("/webhooks/", "/api/")


class Turns:
    """Does one piece of work in each pass of the event loop: the first of each waiting client in turn."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Callable[[], None]]] = {}  # by client; whose turn is next is first
        self._is_taken = False  # this pass
        self._is_postponed = False
        self._postponed = 0  # passes in a row

    def call(self, client: str, work: Callable[[], None]) -> None:
        """Do the work now if nothing else was done in this pass, else in the client's turn."""
        if self._is_taken:
            self._waiting.setdefault(client, deque()).append(work)
            return
        self._is_taken = True
        asyncio.get_running_loop().call_soon(self._call_next)
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

    def _call_next(self) -> None:
        if not self._waiting:
            self._is_taken = False
            return
        asyncio.get_running_loop().call_soon(self._call_next)
        if self._is_postponed and self._postponed < _MAX_POSTPONED:
            self._is_postponed = False
            self._postponed += 1
            return
        self._postponed = 0
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

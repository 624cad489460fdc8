"""Reads that are asked for again with the same bytes, while nothing has changed: answered again at once.

Who may ask, under which host, and what a client has already, was decided for the same bytes by the same
settings.
"""

from collections.abc import Hashable
from datetime import date
from time import perf_counter

from starlette.types import ASGIApp, Receive, Scope, Send

from service.web.state import today_in


def request_key(scope: Scope, today: date) -> Hashable:
    """All of a request without a body, on a day."""
    return scope["method"], scope["raw_path"], scope["query_string"], tuple(scope["headers"]), today


class RepeatedReads:
    """The app, but for reads that are repeated."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer again, or pass the request on."""
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            started, state = perf_counter(), scope["state"]["daybook"]
            found = await state.answers.find_response(request_key(scope, today_in(state)))
            if found:
                answer, response = found
                state.metrics.count_read(answer.path, response.status_code, perf_counter() - started)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

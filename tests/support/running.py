"""A running Daybook: the real app over real SQLite, a clock to set, and books to bring up to date."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from service.books.engine import Engine
from service.bootstrap import prepare
from service.settings import Settings
from service.web.app import create_app
from service.web.state import State
from tests.support.senders import MX, MX_TOKEN, STANDARD, STRIPE, Sender
from tests.support.stores import settings_of
from tests.support.temporary_books import NOW

DEFAULTS: dict[str, Any] = {
    "stripe_webhook_secrets": STRIPE.secret,
    "mxmerchant_webhook_secrets": MX.secret,
    "mxmerchant_url_tokens": MX_TOKEN.secret,
    "standard_webhook_secrets": f"acme={STANDARD.secret}",
}


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Daybook:
    """What a test does with the service: post, catch up, get."""

    def __init__(self, app: Starlette, state: State, clock: Clock, http: httpx.AsyncClient) -> None:
        self.app = app
        self.state = state
        self.clock = clock
        self.http = http
        self._engine = Engine(state.ledger, state.store, clock)
        self._messages = 0

    async def post(
        self,
        sender: Sender,
        payload: Any,
        *,
        message_id: str | None = None,
        at: datetime | None = None,
        secret: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Sign a payload (or bytes as they are) as its sender would, and post it."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._messages += 1
        message_id = message_id or f"msg_{self._messages}"
        signed = sender.sign(body, at or self.clock.now, message_id, secret or sender.secret)
        return await self.http.post(
            sender.path,
            content=body,
            headers={"Content-Type": "application/json", **signed, **(headers or {})},
        )

    async def record(
        self, kind: str, occurred_at: str, /, *, account: str = "", message_id: str | None = None, **data: Any
    ) -> str:
        """Post an event in the ledger's own format; its cause."""
        self._messages += 1
        message_id = message_id or f"msg_{self._messages}"
        body = {"type": kind, "occurred_at": occurred_at, "data": data, "account": account}
        answer = await self.post(STANDARD, body, message_id=message_id)
        assert answer.json() == {"received": True, "position": answer.json()["position"], "duplicate": False}
        return f"standard.acme:{message_id}"

    async def catch_up(self) -> None:
        """What the worker does, once."""
        await self._engine.catch_up()

    async def get(self, path: str, /, **query: Any) -> dict[str, Any]:
        """A read's answer; `from_` stands for the parameter `from`."""
        answer = await self.ask(path, **query)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def ask(self, path: str, /, **query: Any) -> httpx.Response:
        """A read, whatever it answers."""
        return await self.http.get(path, params={name.rstrip("_"): value for name, value in query.items()})

    async def head(self) -> int:
        """The ledger's last position."""
        async with self.state.ledger.reading() as reader:
            return (await reader.head()).position

    async def quarantine(self) -> dict[tuple[str, str], int]:
        """How many deliveries are in quarantine, by processor and reason."""
        async with self.state.ledger.reading() as reader:
            return await reader.count_quarantined()


def settings_for(data_dir: Path, **given: Any) -> Settings:
    """Settings of a data directory that know every sender's secret."""
    return settings_of(data_dir, **{**DEFAULTS, **given})


@asynccontextmanager
async def running(data_dir: Path, clock: Clock | None = None, **given: Any) -> AsyncIterator[Daybook]:
    """The app from its start to its stop, in this process."""
    clock = clock or Clock()
    settings = settings_for(data_dir, **given)
    if given:
        prepare(settings)  # other rules have other books
    app = create_app(settings, clock)
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield Daybook(app, state["daybook"], clock, http)

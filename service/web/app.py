"""The web process as one Starlette app."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypedDict

import structlog
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from projections.book import Rules
from service.books.store import BookStore
from service.clock import utc_now
from service.ledger.store import Ledger
from service.ledger.writer import Writer
from service.nudge import Nudger
from service.prepare import prepare
from service.settings import Settings
from service.web.docs import docs_routes
from service.web.ledger import ledger_routes
from service.web.metrics import Metrics
from service.web.problems import HANDLERS
from service.web.reads import check_key, read_routes
from service.web.state import State
from service.web.webhooks import webhook_routes

log = structlog.get_logger()


class _Lifespan(TypedDict):
    daybook: State


def create_app(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Starlette:
    """The app; its stores open and close with its lifespan."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[_Lifespan]:
        rules = Rules(reporting_tz=settings.reporting_tz, weeks_per_month=settings.weeks_per_month)
        prepare(settings)
        ledger, store, metrics = Ledger(settings.data_dir), BookStore(settings.data_dir, rules), Metrics()
        nudger = Nudger(settings.redis_url, metrics.nudge_failures.inc) if settings.redis_url else None
        if nudger is None:
            log.warning("no_redis", hint="nothing nudges the workers; they look every few seconds")
        writer = Writer(ledger, clock, nudger.nudge if nudger else lambda _position: None)
        try:
            await store.register()
            yield {
                "daybook": State(
                    settings=settings, clock=clock, ledger=ledger, writer=writer, store=store, metrics=metrics
                )
            }
        finally:
            await writer.close()
            if nudger:
                await nudger.close()
            await store.close()
            await ledger.close()

    routes = [
        *webhook_routes(),
        *read_routes(),
        *ledger_routes(),
        *docs_routes(),
        Route("/healthz", _healthz, methods=["GET"]),
        Route("/readyz", _readyz, methods=["GET"]),
        Route("/metrics", _metrics, methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers=HANDLERS, lifespan=lifespan)


async def _healthz(_request: Request) -> Response:
    """The process is alive."""
    return JSONResponse({"status": "ok"})


async def _readyz(request: Request) -> Response:
    """The stores can be read; how far the books are behind."""
    state: State = request.state.daybook
    try:
        async with state.ledger.reading() as reader:
            head = (await reader.head()).position
        async with state.store.reading() as connection:
            marks = await connection.run_sync(state.store.checkpoints)
    except (SQLAlchemyError, OSError) as error:
        log.warning("not_ready", error=type(error).__name__)
        return JSONResponse({"status": "unavailable"}, 503)
    lag = {name: head - position for name, (_, position) in marks.items()}
    return JSONResponse({"status": "ready", "position": head, "lag_events": lag})


async def _metrics(request: Request) -> Response:
    check_key(request)
    state: State = request.state.daybook
    await state.metrics.refresh(state.ledger, state.store, state.clock())
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_PLAIN_1_0_0)

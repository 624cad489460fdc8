"""The web process as one Starlette app."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypedDict

import structlog
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.bootstrap import open_books, open_ledger, read_options
from service.clock import utc_now
from service.intake.silence import SilenceMonitor
from service.intake.versions import DueMonitor
from service.ledger.writer import Writer
from service.lookback.maker import LookbackMaker
from service.queue.nudge import Nudger, connect
from service.settings import Settings
from service.web.bounds import LOOK_SECONDS, Limiter, with_timeout
from service.web.compare import compare_routes
from service.web.docs import docs_routes
from service.web.explain import explain_routes
from service.web.ledger import ledger_routes
from service.web.problems import HANDLERS
from service.web.progress import Progress
from service.web.prometheus import Metrics, read_gauges, readable_gauge
from service.web.quarantine import quarantine_routes
from service.web.reads import check_key, read_routes
from service.web.restatements import restatement_routes
from service.web.state import State, state_of
from service.web.webhooks import webhook_routes

_MAX_WEBHOOKS = 1_024  # four full commits: any more are better sent to another process, or later
_MAX_WEBHOOK_BYTES = 32 << 20  # of their bodies: 32 KiB each, while a processor's bodies usually have 5
_MAX_READS = 256  # each may hold a document of some MiB, and there are few database connections

log = structlog.get_logger()


class _Lifespan(TypedDict):
    daybook: State


def create_app(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Starlette:
    """The app; its stores open and close with its lifespan."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[_Lifespan]:
        ledger, store, metrics = open_ledger(settings), open_books(settings), Metrics()
        nudger = (
            Nudger(connect(settings.redis_url, settings.redis_prefix), metrics.nudge_failures.inc)
            if settings.redis_url
            else None
        )
        if nudger is None:
            log.warning("no_redis", hint="nothing nudges the workers; they look every few seconds")
        writer = Writer(ledger, clock, nudger.nudge if nudger else lambda _position: None)
        lookback = LookbackMaker(settings)
        try:
            yield {
                "daybook": State(
                    settings=settings,
                    clock=clock,
                    ledger=ledger,
                    writer=writer,
                    store=store,
                    metrics=metrics,
                    silence=SilenceMonitor(ledger),
                    retranslation=DueMonitor(ledger),
                    progress=Progress(store),
                    webhooks=Limiter(metrics, "webhook", _MAX_WEBHOOKS, _MAX_WEBHOOK_BYTES),
                    reads=Limiter(metrics, "read", _MAX_READS),
                    options=read_options(settings),
                    lookback=lookback,
                )
            }
        finally:
            await lookback.close()
            await writer.close()
            if nudger:
                await nudger.close()
            await store.close()
            await ledger.close()

    routes = [
        *webhook_routes(),
        *read_routes(),
        *compare_routes(),
        *explain_routes(),
        *restatement_routes(),
        *ledger_routes(),
        *quarantine_routes(),
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
    """The stores can be read; how far the books are behind, and which processor is silent or due again."""
    state = state_of(request)
    return JSONResponse({"status": "ready", **await with_timeout(LOOK_SECONDS, _progress(state))})


async def _progress(state: State) -> dict[str, Any]:
    head, lag = await _lag(state)
    now = state.clock()
    silent = [
        silence for processor in await state.silence.read_activity(now) if (silence := processor.silence(now))
    ]
    due = await state.retranslation.read_due()
    return {"position": head, "lag_events": lag, "silent": silent, "retranslation_due": due}


async def _lag(state: State) -> tuple[int, dict[str, int]]:
    """The ledger's last position, and how many events each book lacks."""
    async with state.ledger.reading() as reader:
        head = (await reader.head()).position
    async with state.store.reading() as connection:
        positions = await connection.run_sync(state.store.positions)
    return head, {name: max(head - position, 0) for name, position in positions.by_book.items()}


async def _metrics(request: Request) -> Response:
    """The counters, and the gauges if the stores can be read: the counters matter most when they can't."""
    check_key(request)
    state = state_of(request)
    try:
        gauges = await with_timeout(
            LOOK_SECONDS, read_gauges(state.ledger, state.store, state.silence, state.clock())
        )
    except (SQLAlchemyError, OSError) as error:
        log.warning("not_ready", error=type(error).__name__)
        gauges = [readable_gauge(False)]
    return Response(state.metrics.text(gauges), media_type=CONTENT_TYPE_PLAIN_1_0_0)

"""The web process as one Starlette app."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import TypedDict

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware

from service.books.witnesses import WitnessKeeper, places, read_witnesses
from service.bootstrap import open_books, open_ledger, open_versions, read_options
from service.clock import utc_now
from service.intake.silence import SilenceMonitor
from service.intake.versions import DueMonitor
from service.ledger.probe import WriteProbe
from service.ledger.witness import Guard
from service.ledger.writer import Writer
from service.lookback.maker import LookbackMaker
from service.queue.nudge import ADVANCE, FETCH, Nudger, connect
from service.settings import Settings
from service.storage.tasks import cancel_and_wait
from service.web.bounds import Limiter
from service.web.browsers import BrowserGuard
from service.web.clients import ClientNames
from service.web.compare import compare_routes
from service.web.docs import docs_routes
from service.web.explain import explain_routes
from service.web.health import health_routes
from service.web.kept_answers import KeptAnswers
from service.web.ledger import ledger_routes
from service.web.problems import error_handlers
from service.web.progress import Progress
from service.web.prometheus import Metrics
from service.web.quarantine import quarantine_routes
from service.web.reads import book_routes
from service.web.repeats import RepeatedReads
from service.web.restatements import restatement_routes
from service.web.state import State
from service.web.turns import ClientTurns
from service.web.webhooks import webhook_routes

_MAX_REQUESTS = 4_096  # of webhooks and reads; those below together, and a few that wait for their turn
_MAX_OPEN_REQUESTS = 64  # of what anybody may ask: probes, pages, paths that do not exist
_MAX_WEBHOOKS = 1_024  # four full commits: any more are better sent to another process, or later
_MAX_WEBHOOK_BYTES = 32 << 20  # of their bodies: 32 KiB each, while a processor's bodies usually have 5
_MAX_READS = 256  # each may hold a document of some MiB, and there are few database connections
_MAX_WAITING_READS = 1_024  # for the books; each holds next to nothing

log = structlog.get_logger()


class _Lifespan(TypedDict):
    daybook: State


def _do_nothing(_position: int) -> None:
    """What stands for a nudge where there is no Redis."""


def create_app(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Starlette:
    """The app; its stores open and close with its lifespan."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[_Lifespan]:
        metrics, kept_at = Metrics(), places(settings)
        guard = Guard(partial(read_witnesses, kept_at), metrics.lost_positions.set)
        ledger, store = open_ledger(settings, guard), open_books(settings)
        witnesses = WitnessKeeper(ledger, guard, kept_at)
        keeping = asyncio.create_task(witnesses.run(), name="witnesses")
        nudgers = {
            job: Nudger(connect(settings.redis_url, settings.redis_prefix), metrics.nudge_failures.inc, job)
            for job in (ADVANCE, FETCH)
            if settings.redis_url
        }
        if not nudgers:
            log.warning("no_redis", hint="nothing nudges the workers; they look every few seconds")
        writer = Writer(ledger, clock, nudgers[ADVANCE].nudge if nudgers else _do_nothing)
        lookback, versions = LookbackMaker(settings), open_versions(settings)
        try:
            yield {
                "daybook": State(
                    settings=settings,
                    clock=clock,
                    ledger=ledger,
                    witnesses=witnesses,
                    write_probe=WriteProbe(ledger, clock),
                    writer=writer,
                    request_fetch=nudgers[FETCH].nudge if nudgers else _do_nothing,
                    store=store,
                    metrics=metrics,
                    silence=SilenceMonitor(ledger),
                    retranslation=DueMonitor(ledger),
                    progress=Progress(store, versions),
                    requests=Limiter(metrics, "request", _MAX_REQUESTS),
                    open_requests=Limiter(metrics, "open_request", _MAX_OPEN_REQUESTS),
                    webhooks=Limiter(metrics, "webhook", _MAX_WEBHOOKS, _MAX_WEBHOOK_BYTES),
                    proved_webhooks=Limiter(metrics, "proved_webhook", _MAX_WEBHOOKS, _MAX_WEBHOOK_BYTES),
                    reads=Limiter(metrics, "read", _MAX_READS),
                    answers=KeptAnswers(versions),
                    maker=asyncio.Lock(),
                    waiting_reads=Limiter(metrics, "waiting_read", _MAX_WAITING_READS),
                    options=read_options(settings),
                    lookback=lookback,
                )
            }
        finally:
            await cancel_and_wait(keeping)
            await lookback.close()
            await versions.close()
            await writer.close()
            for nudger in nudgers.values():
                await nudger.close()
            await store.close()
            await ledger.close()

    routes = [
        *webhook_routes(),
        *book_routes(),
        *compare_routes(),
        *explain_routes(),
        *restatement_routes(),
        *ledger_routes(),
        *quarantine_routes(),
        *docs_routes(),
        *health_routes(),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(RepeatedReads),
            Middleware(ClientNames, settings.trusted_proxies),
            Middleware(ClientTurns),
            Middleware(BrowserGuard, settings),
        ],
        exception_handlers=error_handlers(),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would repeat the token of a callback URL
    return app

"""Whether the process lives, whether its stores can be read, and its metrics."""

from datetime import datetime
from functools import partial
from typing import Annotated, Literal

import structlog
from msgspec import Struct, json
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.core.errors import DaybookError
from service.core.moments import rfc3339
from service.core.scopes import METRICS
from service.reads.answers import Moment, about, moment
from service.web.access import require
from service.web.bounds import LOOK_SECONDS, SharedWork, with_timeout
from service.web.prometheus import read_gauges, readable_gauge
from service.web.state import State, state_of

log = structlog.get_logger()


class Alive(Struct, frozen=True, kw_only=True):
    """The process is alive."""

    status: Annotated[Literal["ok"], about("ok")]


class Silent(Struct, frozen=True, kw_only=True):
    """A processor that has not been heard for longer than is usual for it."""

    processor: Annotated[str, about('the processor: "stripe", "mxmerchant" or "standard.<name>"')]
    last_event_at: Annotated[Moment, moment("when its newest event was recorded")]
    usual_gap_seconds: Annotated[
        int, about("the longest gap that is usual: the second longest of four weeks")
    ]
    silent_seconds: Annotated[int, about("how long it has been silent")]


class Pending(Struct, frozen=True, kw_only=True):
    """Thin events of a processor that wait for what they name."""

    processor: Annotated[str, about('the processor: "stripe"')]
    count: Annotated[int, about("how many of its thin events wait for what they name")]
    oldest_at: Annotated[Moment, moment("when the oldest of them was recorded")]
    oldest_seconds: Annotated[int, about("how long it has been waiting")]


class Ready(Struct, frozen=True, kw_only=True):
    """The stores can be read."""

    status: Annotated[Literal["ready"], about("ready")]
    position: Annotated[int, about("the ledger's last position")]
    lag_events: Annotated[dict[str, int], about("how many events each book is behind, by its name")]
    silent: Annotated[
        list[Silent],
        about("the processors that have not been heard for longer than is usual for them"),
    ]
    retranslation_due: Annotated[list[str], about("the processors whose events an older version translated")]
    pending_fetches: Annotated[
        list[Pending], about("the processors of which thin events wait for what they name")
    ]


def health_routes() -> list[Route]:
    """GET /healthz, /readyz and /metrics."""
    look = SharedWork[Ready]()  # anybody may ask, and as often as they like

    async def readyz(request: Request) -> Response:
        """The stores can be used; how far the books are behind, which processor is silent or due again."""
        work = partial(_progress, state_of(request))
        return _json(await with_timeout(LOOK_SECONDS, look.result(work)))

    return [
        Route("/healthz", _healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", _metrics, methods=["GET"]),
    ]


async def _healthz(_request: Request) -> Response:
    """The process is alive."""
    return _json(Alive(status="ok"))


async def _progress(state: State) -> Ready:
    await state.witnesses.look()
    await state.write_probe.check()
    head, lag = await _lag(state)
    now = state.clock()
    silences = [processor.silence(now) for processor in await state.silence.read_activity(now)]
    return Ready(
        status="ready",
        position=head,
        lag_events=lag,
        silent=[Silent(**silence) for silence in silences if silence],
        retranslation_due=await state.retranslation.read_due(),
        pending_fetches=await _pending(state, now),
    )


async def _pending(state: State, now: datetime) -> list[Pending]:
    async with state.ledger.reading() as reader:
        pending = await reader.pending_fetches()
    return [
        Pending(
            processor=each.processor,
            count=each.count,
            oldest_at=rfc3339(each.oldest_at),
            oldest_seconds=int((now - each.oldest_at).total_seconds()),
        )
        for each in pending
    ]


def _json(answer: Struct) -> Response:
    return Response(json.encode(answer), media_type="application/json")


async def _lag(state: State) -> tuple[int, dict[str, int]]:
    """The ledger's last position, and how many events each book lacks."""
    async with state.ledger.reading() as reader:
        head = (await reader.head()).position
    async with state.store.reading() as connection:
        positions = await connection.run_sync(state.store.positions)
    return head, {name: max(head - position, 0) for name, position in positions.by_book.items()}


async def _metrics(request: Request) -> Response:
    """The counters, and the gauges if the stores can be read: the counters matter most when they can't."""
    require(request, METRICS)
    state = state_of(request)
    try:
        gauges = await with_timeout(
            LOOK_SECONDS, read_gauges(state.ledger, state.store, state.silence, state.clock(), state.settings)
        )
    except (SQLAlchemyError, OSError, DaybookError) as error:
        log.warning("not_ready", error=type(error).__name__)
        gauges = [readable_gauge(False)]
    return Response(state.metrics.text(gauges), media_type=CONTENT_TYPE_PLAIN_1_0_0)

"""The parts of a web process that live as long as it runs."""

import asyncio
from collections.abc import Callable
from datetime import date, datetime
from zoneinfo import ZoneInfo

from msgspec import Struct
from starlette.requests import Request

from service.books.store import BookStore
from service.books.view import ReadOptions
from service.books.witnesses import WitnessKeeper
from service.intake.silence import SilenceMonitor
from service.intake.versions import DueMonitor
from service.ledger.probe import WriteProbe
from service.ledger.store import Ledger
from service.ledger.writer import Writer
from service.lookback.maker import LookbackMaker
from service.settings import Settings
from service.web.bounds import Limiter
from service.web.kept_answers import KeptAnswers
from service.web.progress import Progress
from service.web.prometheus import Metrics


class State(Struct, frozen=True, kw_only=True):
    """The parts that request handlers use; `clock` gives now, in UTC.

    `request_fetch` has a worker fetch what the thin event at a position names. `webhooks` are those of which
    nothing is proved yet, and `waiting_reads` wait for the books. `maker` is held by the read
    that makes its document.
    """

    settings: Settings
    clock: Callable[[], datetime]
    ledger: Ledger
    witnesses: WitnessKeeper
    write_probe: WriteProbe
    writer: Writer
    request_fetch: Callable[[int], None]
    store: BookStore
    metrics: Metrics
    silence: SilenceMonitor
    retranslation: DueMonitor
    progress: Progress
    requests: Limiter
    open_requests: Limiter
    webhooks: Limiter
    proved_webhooks: Limiter
    reads: Limiter
    waiting_reads: Limiter
    answers: KeptAnswers
    maker: asyncio.Lock
    options: ReadOptions
    lookback: LookbackMaker


def state_of(request: Request) -> State:
    """The parts of the web process that answers a request."""
    state: State = request.scope["state"]["daybook"]
    return state


def today_in(state: State) -> date:
    """Today in the reporting zone."""
    return state.clock().astimezone(ZoneInfo(state.settings.reporting_tz)).date()

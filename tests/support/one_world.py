"""Books of one account of Stripe, filled by its webhooks or by a backfill, and what both should say."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection

from service.books.view import Scope, View
from tests.support.stores import new_data_dir, settings_of
from tests.support.stripe_api import Shop, StripeApi, serve
from tests.support.stripe_world import NOW
from tests.support.sync_daybook import SyncDaybook, open_sync_daybook
from tests.support.temporary_books import document

TODAY = NOW.date()
CUSTOMER_REVENUE = "payment-analytics-customers-{customer_id}-revenue"
PROVENANCE = {"causes", "trust", "meta"}  # how a figure is known differs, not the figure


@asynccontextmanager
async def a_daybook() -> AsyncIterator[SyncDaybook]:
    with TemporaryDirectory(prefix="daybook-backfill-") as directory:
        async with open_sync_daybook(settings_of(new_data_dir(Path(directory) / "var"))) as daybook:
            yield daybook


@contextmanager
def an_api(shop: Shop) -> Iterator[StripeApi]:
    with serve(StripeApi()) as api:
        api.shops[""] = shop
        yield api


async def read(daybook: SyncDaybook, name: str, **query: str) -> Any:
    """A read's document, without how its figures are known."""
    return _without_provenance(await document(daybook.store, name, "usd", TODAY, **query))


def _without_provenance(document_: Any) -> Any:
    if isinstance(document_, dict):
        return {key: _without_provenance(each) for key, each in document_.items() if key not in PROVENANCE}
    return [_without_provenance(each) for each in document_] if isinstance(document_, list) else document_


async def figures(daybook: SyncDaybook, customer_ids: Sequence[str], begins: str) -> dict[str, Any]:
    """The figures that a backfill alone gives as webhooks do, from a month on ("2025-01")."""
    span = {"from_": begins, "to": f"{TODAY.year}-12"}
    months = (await read(daybook, "revenue-monthly-totals", **span))["months"]
    # The API does not say on which day a dispute was lost, only on which its money was taken.
    disputed, _ = (sum(month.pop(name) for month in months) for name in ("disputed_cents", "net_cents"))
    return {
        "months": months,
        "disputed": disputed,
        "mrr": await read(daybook, "mrr"),
        "flags": await _flags(daybook),
        "upcoming": await read(daybook, "upcoming"),
        "forecast": await read(daybook, "revenue-quarterly-forecast"),
        "revenue": {each: await read(daybook, CUSTOMER_REVENUE, customer_id=each) for each in customer_ids},
    }


async def _flags(daybook: SyncDaybook) -> dict[str, int]:
    """What the books say that their figures leave out."""

    def count(connection: Connection) -> dict[str, int]:
        books = daybook.store.positions(connection).books
        scope = Scope(currency="usd", today=TODAY, account=None)
        return View(connection=connection, books=books, scope=scope).counts()

    return await daybook.store.read(count)

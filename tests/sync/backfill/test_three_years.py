"""Three years of an account: its books after a backfill alone, beside those of its webhooks.

A large account: `DAYBOOK_CUSTOMERS=2000 pytest tests/sync/backfill/test_three_years.py`.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache

import pytest

from tests.support.one_world import TODAY, a_daybook, an_api, figures
from tests.support.stripe_api import Shop
from tests.support.stripe_years import BEGAN, REASONS, Account, Customer, Unbilled, customers
from tests.support.sync_daybook import SyncDaybook

CUSTOMERS = int(os.environ.get("DAYBOOK_CUSTOMERS") or 40)
SEED = 3

Days = dict[date, int]


async def deliver(daybook: SyncDaybook, shop: Shop) -> None:
    """Webhooks bring what has happened since the last time."""
    await daybook.deliver(*shop.events)
    shop.events.clear()


async def closing_mrr(daybook: SyncDaybook) -> dict[str, Days]:
    """Each customer's MRR at the end of each day."""
    async with daybook.store.reading() as connection:
        rows = await connection.exec_driver_sql(
            "SELECT customer_id, date, closing_cents FROM mrr_movements WHERE book = "
            "(SELECT id FROM books WHERE name = 'mrr') ORDER BY customer_id, date"
        )
        movements = defaultdict[str, list[tuple[date, int]]](list)
        for customer_id, day, cents in rows:
            movements[customer_id].append((date.fromisoformat(day), cents))
    return {customer_id: dict(by_day(moved)) for customer_id, moved in movements.items()}


def by_day(movements: Sequence[tuple[date, int]]) -> Iterator[tuple[date, int]]:
    """What is left by each movement until the next one, or until today."""
    ends = [day for day, _ in movements[1:]] + [TODAY + timedelta(days=1)]
    for (begins, cents), end in zip(movements, ends, strict=True):
        yield from ((day, cents) for day in days(begins, end))


def days(begins: date, end: date) -> Iterator[date]:
    return (begins + timedelta(days=number) for number in range((end - begins).days))


def days_of(unbilled: Unbilled) -> set[date]:
    begins, end = (datetime.fromtimestamp(second, UTC).date() for second in unbilled[1:])
    return set(days(begins, end))


@pytest.mark.timeout(7_200)
async def test_a_backfill_of_three_years_gives_what_webhooks_gave_but_for_what_was_never_billed() -> None:
    account, lives = Account(), list[Customer]()
    async with a_daybook() as told, a_daybook() as backfilled:
        for customer in customers(account, CUSTOMERS, SEED):
            lives.append(customer)
            if len(account.shop.events) > 2_000:
                await deliver(told, account.shop)
        await deliver(told, account.shop)
        account.shop.listed = cache(account.shop.listed)  # nothing happens any more
        with an_api(account.shop) as api:
            await backfilled.backfill(api)

        ids, begins = [life.thing["id"] for life in lives], f"{BEGAN:%Y-%m}"
        assert await figures(backfilled, ids, begins) == await figures(told, ids, begins)
        known, inferred = await closing_mrr(told), await closing_mrr(backfilled)

    seen = set()
    for life in lives:
        differing = differing_days(known.get(life.thing["id"], {}), inferred.get(life.thing["id"], {}))
        explained = [(each.why, days_of(each) & differing) for each in life.unbilled]
        assert differing == set().union(*(found for _, found in explained)), life.thing["id"]
        seen |= {why for why, found in explained if found}
    assert seen == REASONS


def differing_days(known: Days, inferred: Days) -> set[date]:
    return {day for day in known.keys() | inferred.keys() if known.get(day, 0) != inferred.get(day, 0)}

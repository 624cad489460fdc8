"""Amounts that together are beyond 64 bits, though each is not: the books leave out what is too much."""

from datetime import timedelta
from pathlib import Path

import pytest

from projections.fold import MAX_NUMBER
from service.bootstrap import books_for_rebuild
from service.ledger.set_aside import read_set_aside
from service.rebuild.cutover import RebuildResult, rebuild
from tests.support.cli import Run, document
from tests.support.events import at, created, event, item, payment, subscription
from tests.support.running import Daybook, running, settings_for
from tests.support.stores import EACH_STORE
from tests.support.temporary_books import incoming, now

STORES = EACH_STORE
FIT, MORE = 10, 3
AMOUNT = MAX_NUMBER // FIT  # beyond what intake takes, so that few events are too many
EVENTS = [
    # each on a day of its own: no day's sum is too large
    *(
        event(payment(payment_id=f"pi_{n}", amount=AMOUNT), at("2024-01-01") + timedelta(days=n))
        for n in range(FIT + MORE)
    ),
    *(
        created(subscription(item(AMOUNT), subscription_id=f"sub_{n}", customer_id=f"cus_{n}"), "2025-01-01")
        for n in range(FIT + MORE)
    ),
    event(payment(payment_id="pi_small", amount=100, currency="eur"), "2025-11-01"),
]
SET_ASIDE = [
    (f"{kind}_{FIT + n}", start + FIT + n)
    for kind, start in (("payment|stripe||pi", 0), ("subscription|stripe||sub", FIT + MORE))
    for n in range(MORE)
]


@pytest.fixture
async def overfull(data_dir: Path) -> None:
    """A ledger with more money than fits, which no book has read."""
    async with running(data_dir) as daybook:
        await daybook.state.ledger.append([incoming(each) for each in EVENTS], now())


async def rebuilt(data_dir: Path) -> RebuildResult:
    settings = settings_for(data_dir)
    async with books_for_rebuild(settings, ()) as (ledger, store):
        return await rebuild(settings, ledger, store, now, processes=1)


async def set_aside(daybook: Daybook) -> list[tuple[str, int]]:
    found = await daybook.state.ledger.read(read_set_aside)
    assert {each.error for each in found} == {"OverflowError"}
    return [(each.subject, each.up_to) for each in found]


@pytest.mark.usefixtures("overfull")
async def test_the_books_go_on_without_what_is_too_much(data_dir: Path, command: Run) -> None:
    async with running(data_dir) as daybook:
        await daybook.catch_up()

        assert await set_aside(daybook) == SET_ASIDE
        month = {"from_": "2025-11", "to": "2025-11"}
        totals = await daybook.get("/api/v1/revenue/monthly-totals", currency="eur", **month)
        assert (totals["months"][0]["collected_cents"], totals["meta"]["set_aside"]) == (100, 2 * MORE)
        mrr = await daybook.get("/api/v1/mrr", currency="usd")
        assert mrr["mrr_cents"] == FIT * AMOUNT
        metrics = (await daybook.http.get("/metrics")).text
        assert f"daybook_set_aside_histories {2 * MORE}.0" in metrics
        assert "daybook_stores_readable 1.0" in metrics
        assert 'daybook_book_lag_events{book="mrr"} 0.0' in metrics

    verified = document(await command("verify", "--json"))
    result = await rebuilt(data_dir)
    assert verified["books"] == {book.name: book.digest for book in result.books}
    assert result.live


@pytest.mark.usefixtures("overfull")
async def test_a_rebuild_that_meets_it_first_sets_the_same_aside(data_dir: Path, command: Run) -> None:
    assert (await rebuilt(data_dir)).live

    async with running(data_dir) as daybook:
        assert await set_aside(daybook) == SET_ASIDE
        await daybook.catch_up()
        assert document(await command("verify", "--json"))["holds"]


async def test_a_number_that_no_row_can_hold_sets_its_history_aside(data_dir: Path, command: Run) -> None:
    huge = event(payment(payment_id="pi_huge", amount=2**64), "2025-01-01")
    async with running(data_dir) as daybook:
        await daybook.state.ledger.append([incoming(huge)], now())
        await daybook.catch_up()

        assert await set_aside(daybook) == [("payment|stripe||pi_huge", 0)]
        assert document(await command("verify", "--json"))["holds"]


@pytest.mark.usefixtures("overfull")
async def test_smaller_batches_set_the_same_aside(data_dir: Path) -> None:
    async with running(data_dir) as daybook:
        daybook._engine._batch = daybook._engine._size = 3
        await daybook.catch_up()

        assert await set_aside(daybook) == SET_ASIDE

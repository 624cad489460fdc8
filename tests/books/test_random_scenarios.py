"""Random scenarios: whatever the order and number of deliveries, the books say what really happened.

More of them: `DAYBOOK_EXAMPLES=500 pytest tests/books/test_random_scenarios.py`.
"""

import asyncio
from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from sqlalchemy import select

from projections.book import Rules
from projections.revenue import Order
from service.books.tables import ROWS, TOTALS
from service.books.view import Scope, View
from service.verify import digests, replay, verify_totals
from tests.support.expected_books import ExpectedBooks
from tests.support.random_deliveries import deliver, deliveries, examples
from tests.support.random_scenarios import scenarios
from tests.support.temporary_books import document, new_books

pytestmark = pytest.mark.usefixtures("each_store")

MOVED = ("new", "reactivation", "expansion", "contraction", "churn")
CASH = ("collected", "refunded", "disputed")
DONE = ("new", "reactivated", "expanded", "contracted", "churned")


@given(st.data(), scenarios())
@examples(15)
def test_any_delivery_gives_the_books_of_one_replay_in_order(data, scenario):
    batches = data.draw(deliveries(scenario), label="deliveries")
    asyncio.run(_any_delivery_gives_the_books_of_one_replay_in_order(scenario, batches))


async def _any_delivery_gives_the_books_of_one_replay_in_order(scenario, batches):
    rules = Rules(reporting_tz=scenario.zone)
    async with new_books(rules) as live, new_books(rules) as ordered:
        await deliver(live, batches)
        await ordered.record(*scenario.events)
        async with live.store() as store, ordered.store() as straight:
            assert await digests(store) == await digests(straight)
            await verify_totals(store)
            for currency in scenario.expected.currencies():
                for read in ("revenue-month-detail", "mrr", "revenue-annual-forecast"):
                    asked = (read, currency, date(2025, 4, 15))
                    assert await document(store, *asked) == await document(straight, *asked), read


@given(st.data(), scenarios())
@examples(8)
def test_one_event_at_a_time_gives_the_books_of_a_replay(data, scenario):
    batches = data.draw(deliveries(scenario), label="deliveries")
    asyncio.run(_one_event_at_a_time_gives_the_books_of_a_replay(scenario, batches))


async def _one_event_at_a_time_gives_the_books_of_a_replay(scenario, batches):
    async with new_books(Rules(reporting_tz=scenario.zone)) as books, new_books() as other:
        for batch, _ in batches:
            await books.append(batch)
        await books.advance(batch=1)
        async with books.store() as store:
            replayed = await replay(books.ledger, store.rules, other.directory, store.books)
            assert await digests(store) == replayed


@given(st.data(), scenarios())
@examples(18)
def test_the_books_say_what_happened(data, scenario):
    batches = data.draw(deliveries(scenario), label="deliveries")
    asyncio.run(the_books_say_what_happened(scenario, batches))


async def the_books_say_what_happened(scenario, batches):
    async with new_books(Rules(reporting_tz=scenario.zone)) as books:
        await deliver(books, batches)
        async with books.store() as store:
            expected = scenario.expected
            assert await _orders(store) == expected.orders()
            for currency in expected.currencies():
                note(f"currency: {currency}")
                await _same_mrr(store, expected, currency)
                await _same_movements(store, expected, currency)
                await _same_days_of_money(store, expected, currency)
                await _same_totals(store, expected, currency)
                await _same_months(store, expected, currency)
                await _same_forecasts(store, expected, currency)
                await _same_upcoming(store, expected, currency)
                await _same_counts(store, expected, currency)


@given(st.data(), scenarios())
@examples(8)
def test_a_stated_bill_that_nothing_was_issued_for_is_overdue(data, scenario):
    first, last = scenario.expected.span()
    ahead = data.draw(st.integers(0, (last - first).days + 60), label="days from the first")
    asyncio.run(_a_stated_bill_is_overdue(scenario, first + timedelta(days=ahead)))


async def _a_stated_bill_is_overdue(scenario, today):
    async with new_books(Rules(reporting_tz=scenario.zone)) as books:
        await books.record(*scenario.events)
        async with books.store() as store:
            for currency in scenario.expected.currencies():
                for year, month in _months(scenario.expected):
                    expected = scenario.expected.month(currency, year, month, today)
                    summary = await _same_detail(store, currency, (year, month), expected, today)
                    assert summary["overdue_cents"] == expected["overdue_cents"]


@given(st.data(), scenarios() | scenarios("quiet"))
@examples(15)
def test_contracts_are_overdue_of_which_nothing_is_heard(data, scenario):
    first, last = scenario.expected.span()
    days = st.integers(0, 120).map(lambda number: last + timedelta(days=number - 40))
    todays = data.draw(st.lists(days, min_size=4, max_size=4, unique=True), label="days")
    asyncio.run(_contracts_are_overdue(scenario, [first, *todays]))


async def _contracts_are_overdue(scenario, todays):
    async with new_books(Rules(reporting_tz=scenario.zone)) as books:
        await books.record(*scenario.events)
        async with books.store() as store:
            for today in todays:
                for currency in scenario.expected.currencies():
                    await _same_overdue_contracts(store, scenario.expected, currency, today)


async def _same_overdue_contracts(store, expected: ExpectedBooks, currency: str, today: date) -> None:
    found = await document(store, "contracts", currency, today, overdue="true")
    names = sorted(row["contract_id"] for row in found["contracts"])
    assert names == expected.overdue_contracts(currency, today), f"overdue on {today}"
    assert (await _counts(store, currency, today))["overdue_contracts"] == len(names)


async def _same_mrr(store, expected: ExpectedBooks, currency: str) -> None:
    for day in _interesting_days(expected):
        found = await document(store, "mrr", currency, day)
        schedules = {
            (row["interval"], row["every"]): (row["contracts"], row["mrr_cents"])
            for row in found["by_schedule"]
        }
        shown = {name: found[name] for name in ("mrr_cents", "active_contracts", "customers")}
        assert {**shown, "by_schedule": schedules} == expected.mrr(currency, day), f"MRR of {day}"


def _interesting_days(expected: ExpectedBooks) -> list[date]:
    """Days at which something changes, and those before them; at most a dozen."""
    changes = {expected.day(moment) for moment in expected.changes()}
    days = sorted({*expected.span(), *changes, *(day - timedelta(days=1) for day in changes)})
    return days[:: len(days) // 12 + 1] + days[-1:]


async def _same_movements(store, expected: ExpectedBooks, currency: str) -> None:
    first, last = expected.span()
    movements = expected.movements(currency, first, last)
    for by, width in (("day", 10), ("month", 7)):
        found = await document(
            store,
            "mrr-movements",
            currency,
            last,
            from_=first.isoformat(),
            to=last.isoformat(),
            by=by,
        )
        moved: dict[str, Counter] = {}
        for day, kinds in movements.items():
            tally = moved.setdefault(day.isoformat()[:width], Counter())
            for kind, amounts in kinds.items():
                tally[f"{kind}_cents"] += sum(amounts)
                tally[f"{DONE[MOVED.index(kind)]}_customers"] += len(amounts)
        assert [period["period"] for period in found["periods"]] == list(moved)
        level = 0
        for period in found["periods"]:
            name = period["period"]
            shown = {key: period[key] for key in period if key.endswith("_customers") and period[key]}
            shown |= {f"{kind}_cents": period[f"{kind}_cents"] for kind in MOVED if period[f"{kind}_cents"]}
            wanted = {key: value for key, value in moved[name].items() if value}
            assert shown == wanted, f"what moved in {name}"
            assert period["opening_cents"] == level
            level += sum(period[f"{kind}_cents"] for kind in MOVED)
            assert period["closing_cents"] == level, f"{name} does not add up"
            assert period["churn_cents"] <= 0
            assert period["contraction_cents"] <= 0
            closes = min(date.fromisoformat(f"{name}-28"[:10]) + timedelta(days=4), last)
            while closes.isoformat()[:width] > name:
                closes -= timedelta(days=1)
            assert level == expected.mrr(currency, closes)["mrr_cents"], f"closing of {name} is not MRR"


async def _orders(store) -> Counter:
    """Every order, as the model counts them."""
    table = ROWS[Order]

    def read(connection):
        book = store.positions(connection).books["revenue"]
        return list(connection.execute(select(table).where(table.c.book == book)))

    rows = await store.read(read)
    return Counter(
        ((row.processor, row.account, row.customer_id), row.currency, row.date, row.amount_cents)
        for row in rows
    )


async def _same_days_of_money(store, expected: ExpectedBooks, currency: str) -> None:
    table = TOTALS["cash_days"]

    def read(connection):
        book = store.positions(connection).books["collections"]
        return list(
            connection.execute(select(table).where(table.c.book == book, table.c.currency == currency))
        )

    found: dict[str, Counter] = {}
    for row in await store.read(read):
        cash = found.setdefault(row.date, Counter())
        for kind in CASH:
            cash[kind] += getattr(row, f"{kind}_cents")
    days = {expected.day(moved.at).isoformat() for moved in expected.all_money()}
    for day in sorted(days | found.keys()):
        shown = found.get(day, Counter())
        assert {kind: shown[kind] for kind in CASH} == expected.cash(currency, day), f"money of {day}"


def _months(expected: ExpectedBooks) -> list[tuple[int, int]]:
    """The months in which something happens, and four more."""
    first, last = expected.span()
    start, end = (day.year * 12 + day.month - 1 for day in (first, last + timedelta(days=120)))
    return [(number // 12, number % 12 + 1) for number in range(start, end + 1)]


async def _same_totals(store, expected: ExpectedBooks, currency: str) -> None:
    today, _ = expected.span()
    months = _months(expected)
    first, last = (f"{year:04d}-{month:02d}" for year, month in (months[0], months[-1]))
    totals = await document(store, "revenue-monthly-totals", currency, today, from_=first, to=last)
    for row, (year, month) in zip(totals["months"], months, strict=True):
        summary = expected.month(currency, year, month, today)
        wanted = {
            "month": f"{year:04d}-{month:02d}",
            **{f"{kind}_cents": summary[kind] for kind in CASH},
            "net_cents": summary["collected"] - summary["refunded"] - summary["disputed"],
            **{
                name: summary[name] for name in ("billed_cents", "open_cents", "uncollectible_cents", "bills")
            },
            "customers": summary["billed_customers"],
        }
        assert {name: row[name] for name in wanted} == wanted, f"totals of {row['month']}"


async def _same_months(store, expected: ExpectedBooks, currency: str) -> None:
    today, _ = expected.span()
    for year, month in _months(expected):
        summary = expected.month(currency, year, month, today)
        await _same_detail(store, currency, (year, month), summary, today)


async def _same_detail(store, currency: str, month: tuple[int, int], expected: dict, today: date) -> dict:
    """Compare a month's bills and sums; its summary."""
    asked = {"year": str(month[0]), "month": str(month[1])}
    detail = await document(store, "revenue-month-detail", currency, today, **asked)
    summary = detail["summary"]
    listed = sorted((row["date"], row["status"], row["amount_cents"]) for row in detail["payments"])
    assert listed == expected["statuses"], f"bills of {month}"
    same = ("customers", "payments", "total_cents", "later_cents", "upcoming_cents", "billed_cents")
    assert {name: summary[name] for name in same} == {name: expected[name] for name in same}
    assert summary["schedule_total_cents"] == expected["total_cents"] + expected["later_cents"]
    assert summary["open_cents"] == expected["open_cents"]
    assert summary["collected_cents"] == expected["collected"]
    counted = [cents for _, status, cents in listed if status != "uncollectible"]
    assert sum(row["total_cents"] for row in detail["days"]) == sum(counted)
    assert sum(row["total_cents"] for row in detail["weeks"]) == sum(counted)
    assert all(row["causes"] for row in detail["payments"])
    return summary


async def _same_forecasts(store, expected: ExpectedBooks, currency: str) -> None:
    """A quarter and the two after it, and the year with the next, each with its months."""
    today, last = expected.span()
    found = await document(store, "revenue-quarterly-forecast", currency, today, quarters="3")
    for number, quarter in enumerate(found["quarters"]):
        months = [
            _month_after((today.month - 1) // 3 * 3 + n, today.year)
            for n in range(number * 3, number * 3 + 3)
        ]
        _same_forecast(quarter, expected, currency, months, today)
    for year in (today.year, last.year + 1):
        found = await document(store, "revenue-annual-forecast", currency, today, year=str(year))
        _same_forecast(found, expected, currency, [(year, month) for month in range(1, 13)], today)


def _month_after(months: int, year: int) -> tuple[int, int]:
    return year + months // 12, months % 12 + 1


def _same_forecast(found: dict, expected: ExpectedBooks, currency: str, months: list, today: date) -> None:
    for part, covered in ((found, months), *zip(found["months"], [[month] for month in months], strict=True)):
        wanted = expected.forecast(currency, covered, today)
        assert {name: part[name] for name in wanted} == wanted, f"forecast of {covered}"


async def _same_upcoming(store, expected: ExpectedBooks, currency: str) -> None:
    today, last = expected.span()
    last += timedelta(days=90)
    asked = {"from_": today.isoformat(), "to": last.isoformat()}
    found = await document(store, "upcoming", currency, today, **asked)
    wanted = expected.upcoming(currency, today, last)
    assert {name: found[name] for name in wanted} == wanted


async def _same_counts(store, expected: ExpectedBooks, currency: str) -> None:
    """What the figures leave out, or count for want of better knowledge."""
    found = await _counts(store, currency, expected.span()[1])
    assert found["ignored_events"] == expected.ignored
    assert found["unlinked_payments"] == expected.unlinked(currency)


async def _counts(store, currency: str, today: date) -> dict[str, int]:
    scope = Scope(currency=currency, today=today)

    def counts(connection):
        return View(connection=connection, books=store.positions(connection).books, scope=scope).counts()

    return await store.read(counts)

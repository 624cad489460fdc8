"""Random scenarios: whatever the order and number of deliveries, the books say what really happened.

More of them: `TEST_EFFORT=30 pytest tests/books/test_random_scenarios.py`.
"""

import asyncio
from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from projections.book import Rules
from projections.collections import Cash
from service.books.tables import ROWS, TOTALS
from service.books.view import Scope, View
from service.verify import verify_totals
from tests.books.agreeing_reads import reads_agree
from tests.books.metrics_recount import same_metrics_of_scenario
from tests.books.revenue_recount import rows, same_revenue
from tests.support.effort import examples
from tests.support.expected_books import ExpectedBooks
from tests.support.expected_links import CustomerKey
from tests.support.random_deliveries import deliver, deliveries
from tests.support.random_scenarios import Scenario, scenarios
from tests.support.temporary_books import document, new_books

pytestmark = pytest.mark.usefixtures("each_store")

MOVED = ("new", "reactivation", "expansion", "contraction", "churn")
CASH = ("collected", "refunded", "disputed")
REVENUE_OF_CUSTOMER = "payment-analytics-customers-{customer_id}-revenue"
DONE = ("new", "reactivated", "expanded", "contracted", "churned")


@given(st.data(), scenarios())
@examples(15)
def test_the_books_say_what_happened(data, scenario):
    the_books_say_what_happened(data, scenario)


def the_books_say_what_happened(data, scenario: Scenario) -> None:
    """Whatever is delivered when, every read says what happened, on any day, and the reads agree."""
    batches = data.draw(deliveries(scenario), label="deliveries")
    first, last = scenario.expected.span()
    today = first + timedelta(days=data.draw(st.integers(0, (last - first).days + 60), label="days"))
    currency = data.draw(st.sampled_from(scenario.expected.currencies() or ["usd"]), label="currency")
    account = data.draw(st.sampled_from((None, None, "", "acct_b")), label="account")
    asyncio.run(_the_books_say_what_happened(scenario, batches, today, currency, account))


async def _the_books_say_what_happened(scenario, batches, today, currency, account):
    async with new_books(Rules(reporting_tz=scenario.zone)) as books:
        await deliver(books, batches)
        async with books.store() as store:
            expected = scenario.expected
            await verify_totals(store)
            await same_revenue(store, expected)
            await _same_net(store, expected)
            await _same_mrr(store, expected, currency)
            await _same_movements(store, expected, currency)
            await _same_days_of_money(store, expected, currency)
            await _same_totals(store, expected, currency, today)
            await _same_quarters(store, expected, currency, today)
            await _same_upcoming(store, expected, currency, today)
            await _same_counts(store, expected, currency)
            scope = Scope(currency=currency, today=today, account=account)
            details = await reads_agree(store, expected.span(), scope)
            if account is None:
                for month, detail in details.items():
                    _same_detail(detail, expected.month(currency, *month, today))


@given(scenarios(), st.sampled_from(["month", "quarter", "year"]))
@examples(15)
def test_the_metrics_are_those_of_the_lives(scenario, by):
    asyncio.run(_the_metrics_are_those_of_the_lives(scenario, by))


async def _the_metrics_are_those_of_the_lives(scenario, by):
    async with new_books(Rules(reporting_tz=scenario.zone)) as books:
        await books.record(*scenario.events)
        async with books.store() as store:
            for currency in scenario.expected.currencies():
                await same_metrics_of_scenario(store, scenario.expected, currency, by)


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


async def _same_net(store, expected: ExpectedBooks) -> None:
    """A customer's net is what their payments brought, and the sum of their cash."""
    cash: Counter[tuple[CustomerKey, str]] = Counter()
    for row in await rows(store, ROWS[Cash], "collections"):
        who = row.processor, row.account, row.customer_id
        cash[who, row.currency] += row.amount_cents if row.kind == "collected" else -row.amount_cents
    brought = expected.brought()
    assert {key: cash[key] for key in cash | brought} == {key: brought[key] for key in cash | brought}
    _, last = expected.span()
    for (processor, account, customer_id), currency in brought:
        asked = {"processor": processor, "include_predictions": "false", "customer_id": customer_id}
        found = await document(store, REVENUE_OF_CUSTOMER, currency, last, account, **asked)
        net = found["revenue_summary"]["net_revenue_cents"]
        assert net == brought[(processor, account, customer_id), currency]


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


async def _same_totals(store, expected: ExpectedBooks, currency: str, today: date) -> None:
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


def _same_detail(detail: dict, expected: dict) -> None:
    """A month's bills and sums are as expected; the sums are those of the bills."""
    summary = detail["summary"]
    listed = sorted((row["date"], row["status"], row["amount_cents"]) for row in detail["payments"])
    assert listed == expected["statuses"], f"bills of {detail['year']}-{detail['month']}"
    same = ("customers", "later_cents", "open_cents")
    assert {name: summary[name] for name in same} == {name: expected[name] for name in same}
    assert summary["collected_cents"] == expected["collected"]
    assert all(row["causes"] for row in detail["payments"])


async def _same_quarters(store, expected: ExpectedBooks, currency: str, today: date) -> None:
    """A quarter and the two after it, each with its months."""
    found = await document(store, "revenue-quarterly-forecast", currency, today, quarters="3")
    for number, quarter in enumerate(found["quarters"]):
        months = [
            _month_after((today.month - 1) // 3 * 3 + n, today.year)
            for n in range(number * 3, number * 3 + 3)
        ]
        _same_forecast(quarter, expected, currency, months, today)


def _month_after(months: int, year: int) -> tuple[int, int]:
    return year + months // 12, months % 12 + 1


def _same_forecast(found: dict, expected: ExpectedBooks, currency: str, months: list, today: date) -> None:
    for part, covered in ((found, months), *zip(found["months"], [[month] for month in months], strict=True)):
        wanted = expected.forecast(currency, covered, today)
        assert {name: part[name] for name in wanted} == wanted, f"forecast of {covered}"


async def _same_upcoming(store, expected: ExpectedBooks, currency: str, today: date) -> None:
    last = max(expected.span()[1], today) + timedelta(days=90)
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

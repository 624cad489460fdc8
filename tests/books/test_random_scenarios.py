"""Random scenarios: whatever the order and number of deliveries, the books say what really happened.

More of them: `DAYBOOK_EXAMPLES=500 pytest tests/books/test_random_scenarios.py`.
"""

import asyncio
from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from projections.book import Rules
from service.verify import digests, replay, verify_totals
from tests.support.expected_books import ExpectedBooks
from tests.support.random_deliveries import deliver, deliveries, examples
from tests.support.random_scenarios import scenarios
from tests.support.temporary_books import NOW, document, new_books

pytestmark = pytest.mark.usefixtures("each_store")

KINDS = ("new", "reactivation", "expansion", "contraction", "churn")
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
    asyncio.run(_the_books_say_what_happened(scenario, batches))


async def _the_books_say_what_happened(scenario, batches):
    async with new_books(Rules(reporting_tz=scenario.zone)) as books:
        await deliver(books, batches)
        async with books.store() as store:
            for currency in scenario.expected.currencies():
                note(f"currency: {currency}")
                await _same_mrr(store, scenario.expected, currency)
                await _same_movements(store, scenario.expected, currency)
                await _same_months(store, scenario.expected, currency)


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
    first, last = expected.span()
    changes = {expected.day(fact.since) for contract in expected.contracts for fact in contract.facts}
    ends = {
        expected.day(off.until)
        for contract in expected.contracts
        for fact in contract.facts
        for off in fact.offs
        if off.until
    }
    days = sorted({first, last, *changes, *ends, *(day - timedelta(days=1) for day in (*changes, *ends))})
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
                tally[f"{DONE[KINDS.index(kind)]}_customers"] += len(amounts)
        assert [period["period"] for period in found["periods"]] == list(moved)
        level = 0
        for period in found["periods"]:
            name = period["period"]
            shown = {key: period[key] for key in period if key.endswith("_customers") and period[key]}
            shown |= {f"{kind}_cents": period[f"{kind}_cents"] for kind in KINDS if period[f"{kind}_cents"]}
            wanted = {key: value for key, value in moved[name].items() if value}
            assert shown == wanted, f"what moved in {name}"
            assert period["opening_cents"] == level
            level += sum(period[f"{kind}_cents"] for kind in KINDS)
            assert period["closing_cents"] == level, f"{name} does not add up"
            assert period["churn_cents"] <= 0
            assert period["contraction_cents"] <= 0
            closes = min(date.fromisoformat(f"{name}-28"[:10]) + timedelta(days=4), last)
            while closes.isoformat()[:width] > name:
                closes -= timedelta(days=1)
            assert level == expected.mrr(currency, closes)["mrr_cents"], f"closing of {name} is not MRR"


async def _same_months(store, expected: ExpectedBooks, currency: str) -> None:
    first, last = expected.span()
    last += timedelta(days=400)
    totals = await document(
        store,
        "revenue-monthly-totals",
        currency,
        NOW.date(),
        from_=first.isoformat()[:7],
        to=last.isoformat()[:7],
    )
    for row in totals["months"]:
        year, month = map(int, row["month"].split("-"))
        summary = expected.month(currency, year, month)
        assert row == {
            "month": row["month"],
            **{f"{kind}_cents": summary[kind] for kind in ("collected", "refunded", "disputed")},
            "net_cents": summary["collected"] - summary["refunded"] - summary["disputed"],
            **{
                name: summary[name]
                for name in (
                    "billed_cents",
                    "open_cents",
                    "uncollectible_cents",
                    "upcoming_cents",
                    "bills",
                )
            },
            "upcoming_bills": summary["payments"] - summary["bills"],
            "customers": summary["billed_customers"],
        }, f"totals of {row['month']}"
        if summary["statuses"]:
            await _same_detail(store, currency, year, month, summary)


async def _same_detail(store, currency: str, year: int, month: int, expected: dict) -> None:
    detail = await document(
        store, "revenue-month-detail", currency, NOW.date(), year=str(year), month=str(month)
    )
    summary = detail["summary"]
    same = ("customers", "payments", "total_cents", "later_cents", "upcoming_cents", "billed_cents")
    assert {name: summary[name] for name in same} == {name: expected[name] for name in same}
    assert summary["schedule_total_cents"] == expected["total_cents"] + expected["later_cents"]
    assert summary["open_cents"] == expected["open_cents"]
    assert summary["collected_cents"] == expected["collected"]
    listed = sorted((row["date"], row["status"], row["amount_cents"]) for row in detail["payments"])
    assert listed == expected["statuses"]
    counted = [cents for _, status, cents in listed if status != "uncollectible"]
    assert sum(row["total_cents"] for row in detail["days"]) == sum(counted)
    assert sum(row["total_cents"] for row in detail["weeks"]) == sum(counted)
    assert all(row["causes"] for row in detail["payments"])

"""Lives at random: whatever the order and number of deliveries, the books say what really happened.

More of them: `DAYBOOK_EXAMPLES=500 pytest tests/books/test_lives.py`.
"""

import asyncio
import os
from collections import Counter
from contextlib import suppress
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from projections.book import Rules
from service.verify import digests, replay, verify_totals
from tests.books.lives import Life, lives
from tests.books.model import Model
from tests.books.shelf import NOW, Shelf, document, in_batches, new_shelf

pytestmark = pytest.mark.usefixtures("each_store")

EXAMPLES = int(os.environ.get("DAYBOOK_EXAMPLES") or 0)
KINDS = ("new", "reactivation", "expansion", "contraction", "churn")
DONE = ("new", "reactivated", "expanded", "contracted", "churned")


def examples(count: int):
    """How many lives a test looks at. Telling why a life failed costs more than finding a smaller one."""
    return settings(
        max_examples=EXAMPLES or count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )


class Killed(Exception):
    """A worker that dies in the middle of a transaction."""


@st.composite
def deliveries(draw, life: Life):
    """A life's events in any order, some delivered again, in batches; and after which a worker dies."""
    again = draw(st.lists(st.sampled_from(life.events), max_size=8))
    events = draw(st.permutations([*life.events, *again]))
    batches = in_batches(events, draw(st.lists(st.integers(1, 25), max_size=6)))
    return [(batch, draw(st.booleans())) for batch in batches]


def die(*_args) -> None:
    raise Killed


async def deliver(shelf: Shelf, batches) -> None:
    """Deliver batch by batch, each taken in by a new worker; some of them die before they commit."""
    for batch, dies in batches:
        await shelf.append(batch)
        if dies:
            with suppress(Killed):
                await shelf.advance(die)
        await shelf.advance(batch=7 if dies else 1000)


@given(st.data(), lives())
@examples(15)
def test_any_delivery_gives_the_books_of_one_replay_in_order(data, life):
    batches = data.draw(deliveries(life), label="deliveries")
    asyncio.run(_any_delivery_gives_the_books_of_one_replay_in_order(life, batches))


async def _any_delivery_gives_the_books_of_one_replay_in_order(life, batches):
    rules = Rules(reporting_tz=life.zone)
    async with new_shelf(rules) as live, new_shelf(rules) as ordered:
        await deliver(live, batches)
        await ordered.tell(*life.events)
        async with live.store() as store, ordered.store() as straight:
            assert await digests(store) == await digests(straight)
            await verify_totals(store)
            for currency in life.truth.currencies():
                for read in ("revenue-month-detail", "mrr", "revenue-annual-forecast"):
                    asked = (read, currency, date(2025, 4, 15))
                    assert await document(store, *asked) == await document(straight, *asked), read


@given(st.data(), lives())
@examples(8)
def test_one_event_at_a_time_gives_the_books_of_a_replay(data, life):
    batches = data.draw(deliveries(life), label="deliveries")
    asyncio.run(_one_event_at_a_time_gives_the_books_of_a_replay(life, batches))


async def _one_event_at_a_time_gives_the_books_of_a_replay(life, batches):
    async with new_shelf(Rules(reporting_tz=life.zone)) as shelf, new_shelf() as other:
        for batch, _ in batches:
            await shelf.append(batch)
        await shelf.advance(batch=1)
        async with shelf.store() as store:
            replayed = await replay(shelf.ledger, store.rules, other.directory, store.books)
            assert await digests(store) == replayed


@given(st.data(), lives())
@examples(18)
def test_the_books_say_what_happened(data, life):
    batches = data.draw(deliveries(life), label="deliveries")
    asyncio.run(_the_books_say_what_happened(life, batches))


async def _the_books_say_what_happened(life, batches):
    async with new_shelf(Rules(reporting_tz=life.zone)) as shelf:
        await deliver(shelf, batches)
        async with shelf.store() as store:
            for currency in life.truth.currencies():
                note(f"currency: {currency}")
                await _same_mrr(store, life.truth, currency)
                await _same_movements(store, life.truth, currency)
                await _same_months(store, life.truth, currency)


async def _same_mrr(store, truth: Model, currency: str) -> None:
    for day in _interesting_days(truth):
        found = await document(store, "mrr", currency, day)
        schedules = {
            (row["interval"], row["every"]): (row["contracts"], row["mrr_cents"])
            for row in found["by_schedule"]
        }
        shown = {name: found[name] for name in ("mrr_cents", "active_contracts", "customers")}
        assert {**shown, "by_schedule": schedules} == truth.mrr(currency, day), f"MRR of {day}"


def _interesting_days(truth: Model) -> list[date]:
    """Days at which something changes, and those before them; at most a dozen."""
    first, last = truth.span()
    changes = {truth.day(fact.since) for contract in truth.contracts for fact in contract.facts}
    ends = {
        truth.day(off.until)
        for contract in truth.contracts
        for fact in contract.facts
        for off in fact.offs
        if off.until
    }
    days = sorted({first, last, *changes, *ends, *(day - timedelta(days=1) for day in (*changes, *ends))})
    return days[:: len(days) // 12 + 1] + days[-1:]


async def _same_movements(store, truth: Model, currency: str) -> None:
    first, last = truth.span()
    expected = truth.movements(currency, first, last)
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
        for day, kinds in expected.items():
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
            assert level == truth.mrr(currency, closes)["mrr_cents"], f"closing of {name} is not MRR"


async def _same_months(store, truth: Model, currency: str) -> None:
    first, last = truth.span()
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
        expected = truth.month(currency, year, month)
        assert row == {
            "month": row["month"],
            **{f"{kind}_cents": expected[kind] for kind in ("collected", "refunded", "disputed")},
            "net_cents": expected["collected"] - expected["refunded"] - expected["disputed"],
            **{
                name: expected[name]
                for name in (
                    "billed_cents",
                    "open_cents",
                    "uncollectible_cents",
                    "upcoming_cents",
                    "bills",
                )
            },
            "upcoming_bills": expected["payments"] - expected["bills"],
            "customers": expected["billed_customers"],
        }, f"totals of {row['month']}"
        if expected["statuses"]:
            await _same_detail(store, currency, year, month, expected)


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

"""Restatements against a model: the books before each event and after it, side by side."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from projections.book import Rules
from service.books.engine import Engine
from service.books.store import BookStore
from service.books.tables import TOTALS
from service.core.events import Customer, Discount, Event, Unused
from service.core.moments import day_of, from_us, to_us
from service.lookback.figure_changes import EventChanges, FigureChange, FigureKey
from service.lookback.restated import find_restatements, late_changes
from service.reads.restatements import Restatement
from tests.support.effort import examples
from tests.support.events import at, event, invoice, item, payment, settles, subscription
from tests.support.partitions import HeldPartitions
from tests.support.random_scenarios import KINDS, Scenario, scenarios
from tests.support.temporary_books import TemporaryBooks, incoming, new_books, now

FIGURES = {
    "mrr": ("mrr", "mrr_days", "mrr_cents"),
    "billed_cents": ("bills", "bill_days", "billed_cents"),
    "collected_cents": ("collections", "cash_days", "collected_cents"),
    "refunded_cents": ("collections", "cash_days", "refunded_cents"),
    "disputed_cents": ("collections", "cash_days", "disputed_cents"),
}
EVERY_DAY = [(date(2024, 12, 1) + timedelta(days=n)).isoformat() for n in range(1_000)]

# (figure, currency, account, date): cents
Figures = Counter


@st.composite
def recordings(draw, scenario: Scenario):
    """Events in any order, each when it was recorded: some at once, some long after; the clock goes back."""
    events = draw(st.permutations(scenario.events))[:14]
    delays = draw(
        st.lists(
            st.sampled_from([timedelta(0), timedelta(minutes=40), timedelta(days=2), timedelta(days=70)]),
            min_size=len(events),
            max_size=len(events),
        )
    )
    return [(event, event.occurred_at + delay) for event, delay in zip(events, delays, strict=True)]


@given(st.data(), scenarios())
@examples(8)
def test_each_event_restates_what_the_books_say_otherwise_after_it(data, scenario):
    recorded = data.draw(recordings(scenario), label="events, as recorded")
    cut = st.integers(0, len(recorded))
    since, until = sorted(data.draw(st.tuples(cut, cut), label="from and to"))
    reached = data.draw(cut, label="where the books are")
    asyncio.run(each_event_restates(scenario.zone, recorded, since, until, [reached]))


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(st.data())
@examples(2)
def test_each_event_restates_what_the_books_say_otherwise_after_it_in_lives_of_each_kind(kind, data):
    scenario = data.draw(scenarios(kind))
    recorded = data.draw(recordings(scenario), label="events, as recorded")
    cut = st.integers(0, len(recorded))
    since = data.draw(cut, label="from")
    reached = data.draw(st.lists(cut, min_size=1, max_size=3), label="where the books' partitions are")
    asyncio.run(each_event_restates(scenario.zone, recorded, since, len(recorded), reached))


async def each_event_restates(
    zone: str, recorded, since: int, until: int, reached: Sequence[int]
) -> list[Restatement]:
    """The restatements, as found. The books that are asked have a partition at each position of `reached`."""
    rules = Rules(reporting_tz=zone)
    async with new_books(rules) as books, new_books(rules) as asked:
        figures = [Figures()]
        for each in recorded:
            await _record(books, [each])
            await books.advance()
            figures.append(await _figures_of(books))
        expected = []
        for position in range(since + 1, until + 1):
            day = day_of(recorded[position - 1][1], books.rules.zone).isoformat()
            expected += _restated(position, day, figures[position - 1], figures[position])
        await _record(asked, recorded)
        async with asked.store() as store:
            store.partitions = max(store.partitions, len(reached))
            await store.register()
            for part in range(store.partitions):
                engine = Engine(asked.ledger, store, now, HeldPartitions([part]))
                await engine.catch_up(reached[part % len(reached)])
            found = await find_restatements(asked.ledger, store, since, until)
    rows = [
        (
            row.position,
            row.figure,
            row.currency,
            row.account,
            row.date,
            row.until,
            row.change_cents,
            row.before_cents,
            row.after_cents,
            row.all_before_cents,
            row.all_after_cents,
        )
        for row in found
    ]
    assert rows == sorted(expected)
    for row in found:
        of, moment = recorded[row.position - 1]
        assert (row.cause, row.type) == (of.cause, of.type)
        assert from_us(row.recorded_at_us) == moment
    return found


@pytest.mark.parametrize("reached", range(4))
async def test_the_books_may_be_anywhere_before_the_range_or_in_it(reached: int) -> None:
    other = subscription(subscription_id="sub_2", customer_id="cus_2")
    told = [
        event(subscription(), "2025-01-15"),
        event(other, "2025-01-16"),
        event(subscription(item(10_000)), "2025-01-20"),
    ]
    late = told[-1].occurred_at + timedelta(days=30)
    recorded = [*((each, each.occurred_at) for each in told[:-1]), (told[-1], late)]

    await each_event_restates("UTC", recorded, 2, 3, [reached])


async def restated_by_the_last(*told: Event) -> list[tuple[str, str, int]]:
    """(figure, day, change) by the last event, told 30 days late, whatever the books hold of it."""
    late = (told[-1], told[-1].occurred_at + timedelta(days=30))
    recorded = [*((each, each.occurred_at) for each in told[:-1]), late]
    for reached in (0, len(told) - 1, len(told)):
        found = await each_event_restates("UTC", recorded, len(told) - 1, len(told), [reached])
    return [(row.figure, row.date, row.change_cents) for row in found]


async def test_a_discount_of_a_customer_restates_all_their_contracts():
    contracts = [
        event(subscription(item(10_000), subscription_id=f"sub_{number}"), "2025-01-15") for number in (1, 2)
    ]
    half = Discount(discount_id="di_1", percent_off=Decimal(50))
    told = event(Customer(customer_id="cus_1", discounts=(half,)), "2025-01-20")

    assert await restated_by_the_last(*contracts, told) == [("mrr", "2025-01-20", -10_000)]


async def test_a_payment_near_an_invoice_of_its_amount_restates_nothing():
    paid = event(invoice("paid", paid_at=at("2025-01-15 10:30")), "2025-01-15 10:30")

    assert await restated_by_the_last(paid, event(payment(), "2025-01-15 10:31")) == []
    assert await restated_by_the_last(paid, event(payment(), "2025-01-15 10:45")) == [
        ("collected_cents", "2025-01-15", 10_000)
    ]


async def test_a_link_takes_back_what_counted_twice():
    paid = event(invoice("paid", paid_at=at("2025-01-15")), "2025-01-15")
    alone = event(payment(), "2025-01-16")

    assert await restated_by_the_last(paid, alone, event(settles(), "2025-01-16")) == [
        ("collected_cents", "2025-01-16", -10_000)
    ]


def told_on(day: str, *changes: tuple[str, str, int]) -> EventChanges:
    """An event recorded on a day, and what it changed: a figure, on a day, by so many cents."""
    moment = datetime.fromisoformat(f"{day}T12:00:00Z")
    return EventChanges(
        position=1,
        event=Event(processor="acme", event_id="evt_1", occurred_at=moment, data=Unused(original_type="x")),
        recorded_at_us=to_us(moment),
        day=day,
        changes=[
            FigureChange(FigureKey(figure, "usd", "", date), "cus_1", cents)
            for figure, date, cents in changes
        ],
    )


@pytest.mark.parametrize(
    ("moved", "spans"),
    [
        ([("03", -500), ("07", 500)], [("03", "06", -500)]),  # it had ended on the 7th, and now on the 3rd
        ([("03", -500), ("07", 200)], [("03", "06", -500), ("07", "09", -300)]),
        ([("03", 100), ("05", -300), ("08", 200)], [("03", "04", 100), ("05", "07", -200)]),
        ([("09", 100)], [("09", "09", 100)]),
        ([("09", 100), ("12", -100)], [("09", "09", 100)]),
        ([("10", 100)], []),  # of today: late for nobody
    ],
)
def test_mrr_differs_from_one_move_to_the_next(moved, spans):
    told = told_on("2025-11-10", *(("mrr", f"2025-11-{day}", cents) for day, cents in moved))

    found = [(late.key.date[-2:], late.until[-2:], late.cents) for late in late_changes(told)]

    assert found == spans


def test_what_moves_between_histories_of_one_day_is_no_restatement():
    told = told_on(
        "2025-11-10", ("collected_cents", "2025-11-03", 500), ("collected_cents", "2025-11-03", -500)
    )
    assert late_changes(told) == []


async def _record(books: TemporaryBooks, recorded) -> None:
    for told, moment in recorded:
        await books.ledger.append([incoming(told)], moment)


async def _figures_of(books: TemporaryBooks) -> Figures:
    async with books.store() as store:
        return await store.read(partial(_figures, store=store))


def _figures(connection: Connection, store: BookStore) -> Figures:
    books = store.positions(connection).books
    found = Figures()
    for figure, (book, total, column) in FIGURES.items():
        table = TOTALS[total]
        rows = connection.execute(
            select(table.c.currency, table.c.account, table.c.date, func.sum(table.c[column]))
            .where(table.c.book == books[book])
            .group_by(table.c.currency, table.c.account, table.c.date)
        )
        found.update({(figure, row[0], row[1], row[2]): int(row[3]) for row in rows if row[3]})
    return found


def _shown(figures: Figures, figure: str, currency: str, account: str | None, day: str) -> int:
    """MRR at the end of a day; of anything else its month's."""
    return sum(
        cents
        for (name, money, whose, of), cents in figures.items()
        if (name, money) == (figure, currency)
        and account in (None, whose)
        and (of <= day if figure == "mrr" else of[:7] == day[:7])
    )


def _restated(position: int, day: str, before: Figures, after: Figures) -> list[tuple]:
    """What the event at a position changed of days gone, day by day; MRR from a change to the next."""
    changed = Figures(after)
    changed.subtract(before)
    rows = []
    for figure, currency, account in sorted({key[:3] for key, cents in changed.items() if cents}):
        moved = {on: changed[figure, currency, account, on] for on in EVERY_DAY if on < day}
        if figure != "mrr":
            spans = [(on, on, cents) for on, cents in moved.items() if cents]
        else:
            spans = _levels(moved)
        rows += [
            (
                *(position, figure, currency, account, first, last, cents),
                *(
                    _shown(state, figure, currency, whose, first)
                    for whose in (account, None)
                    for state in (before, after)
                ),
            )
            for first, last, cents in spans
        ]
    return rows


def _levels(moved: dict[str, int]) -> list[tuple[str, str, int]]:
    """Runs of days on which a level differs by the same, from what it moved by on each day."""
    level, runs = 0, []
    for day, cents in moved.items():
        level += cents
        if level and not cents:
            runs[-1] = (runs[-1][0], day, level)
        elif level:
            runs.append((day, day, level))
    return runs

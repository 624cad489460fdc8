"""The engine over real files: once and whole, whoever races it or dies, and by whatever rules."""

import asyncio
from datetime import date
from fractions import Fraction

import pytest
from sqlalchemy.exc import OperationalError

from projections.book import Rules
from projections.mrr import MRR
from service.books.engine import Engine, Overtaken
from service.books.store import BookStore
from service.core.events import Customer
from service.verify import digests, replay, verify_totals
from tests.support.events import but, changed, created, event, invoice, item, payment, refund, subscription
from tests.support.random_deliveries import Killed, die
from tests.support.temporary_books import document, new_books, now
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("each_store")

TODAY = date(2025, 11, 13)
PLAN = subscription(item(53_500, "week"))
EVENTS = (
    created(PLAN, "2025-01-10"),
    changed(but(PLAN, items=(item(60_000, "week"),)), "2025-02-10"),
    event(invoice("open", subscription_id="sub_1"), "2025-02-11"),
    event(invoice("paid", subscription_id="sub_1"), "2025-02-12"),
    event(payment(payment_id="pi_2"), "2025-03-01"),
    event(refund(payment_id="pi_2"), "2025-03-02"),
)


async def positions(store: BookStore) -> set[int]:
    async with store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        return set(
            (await connection.run_sync(lambda view: store.checkpoints(view, positions.books))).values()
        )


async def test_an_engine_that_another_overtook_writes_nothing_and_goes_on_after_it():
    async with (
        new_books() as books,
        new_books() as other,
        books.store() as first,
        books.store() as second,
    ):
        fast, slow = (Engine(books.ledger, store, now) for store in (first, second))
        await books.append(EVENTS)
        write = second.write

        async def write_after_the_other(change):
            second.write = write
            await fast.advance()
            return await write(change)

        second.write = write_after_the_other
        with pytest.raises(Overtaken):
            await slow.advance()
        assert await digests(second) == await replay(books.ledger, first.rules, other.directory, first.books)
        assert await slow.catch_up() == 0
        await books.append([event(payment(payment_id="pi_3"), "2025-03-05")])
        assert await slow.catch_up() == 1
        await verify_totals(second)


async def test_a_transaction_that_dies_before_its_commit_leaves_no_trace():
    async with new_books() as books, books.store() as store:
        empty = await digests(store)
        await books.append(EVENTS)
        with pytest.raises(Killed):
            await Engine(books.ledger, store, die).catch_up()
        assert await positions(store) == {0}
        assert await digests(store) == empty


async def test_an_engine_whose_write_failed_takes_it_up_again():
    died = []

    def die_once(*_args):
        if not died:
            died.append(True)
            raise Killed
        return now()

    async with new_books() as books, new_books() as other, books.store() as store:
        await books.append(EVENTS)
        engine = Engine(books.ledger, store, die_once)
        with pytest.raises(Killed):
            await engine.catch_up()
        assert await engine.catch_up() == len(EVENTS)
        assert await digests(store) == await replay(books.ledger, store.rules, other.directory, store.books)


async def test_a_step_that_is_too_much_is_made_smaller_and_larger_again_later():
    sizes = []

    async with new_books() as books, books.store() as store:
        await books.append(EVENTS)
        engine = Engine(books.ledger, store, now, batch=8)
        write = store.write

        async def write_a_little(change):
            sizes.append(engine._size)
            if engine._size > 2:
                raise OperationalError("…", None, TimeoutError())
            return await write(change)

        store.write = write_a_little
        with pytest.raises(OperationalError):
            await engine.catch_up()
        assert await engine.advance() == 2
        store.write = write
        await engine.catch_up()
        assert await positions(store) == {len(EVENTS)}
        assert sizes[:2] == [8, 2]
        assert engine._size == 8


async def test_a_fault_comes_out_even_if_it_is_an_iterators_end():
    async with new_books() as books, books.store() as store:
        await books.append(EVENTS)
        engine = Engine(books.ledger, store, lambda: next(iter(())))
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(engine.catch_up(), PATIENCE_SECONDS)


async def test_events_delivered_again_are_in_the_ledger_once_and_move_nothing():
    async with new_books() as books, books.store() as store:
        await books.record(*EVENTS)
        before = await digests(store)
        await books.record(*EVENTS, *EVENTS[::-1])
        assert await digests(store) == before
        assert await positions(store) == {len(EVENTS)}


async def test_the_books_stop_where_they_are_told_to_and_never_go_back():
    async with new_books() as books, books.store() as store:
        await books.append(EVENTS)
        engine = Engine(books.ledger, store, now)
        assert await engine.catch_up(until=2) == 2
        assert await engine.catch_up(until=1) == 0
        assert await positions(store) == {2}
        assert await engine.catch_up() == len(EVENTS) - 2


async def test_a_book_that_is_new_catches_up_with_those_that_stand():
    async with new_books() as books, new_books() as other, books.store() as store:
        await books.append(EVENTS)
        async with books.store(books=(MRR,)) as alone:
            await Engine(books.ledger, alone, now).catch_up(until=4)
        assert await positions(store) == {0, 4}
        await Engine(books.ledger, store, now, batch=3).catch_up()
        assert await positions(store) == {len(EVENTS)}
        assert await digests(store) == await replay(books.ledger, store.rules, other.directory, store.books)


async def test_other_rules_build_their_own_books_beside_the_old_ones():
    async with new_books() as books, books.store() as old:
        await books.record(*EVENTS)
        before = await digests(old)
        async with books.store(Rules(weeks_per_month=Fraction(52, 12))) as new:
            assert await positions(new) == {0}
            await Engine(books.ledger, new, now).catch_up()
            assert (await document(new, "mrr", "usd", TODAY))["mrr_cents"] == 260_000
        assert (await document(old, "mrr", "usd", TODAY))["mrr_cents"] == 259_800
        assert await digests(old) == before


async def test_equal_bills_are_listed_in_one_order_whatever_order_they_came_in():
    both = [event(invoice(invoice_id=f"in_{n}"), "2025-11-13", event_id=f"evt_{n}") for n in (1, 2)]
    documents = []
    for order in (both, both[::-1]):
        async with new_books() as books:
            for told in order:
                await books.record(told)
            documents.append(await books.read("revenue-month-detail", "usd", TODAY))
    assert documents[0] == documents[1]


async def test_a_name_that_no_database_keeps_as_it_is_stops_nothing():
    async with new_books() as books:
        await books.record(event(Customer(customer_id="cus_1", name="Avery\0 Stone"), "2025-01-01"))
        await books.record(*EVENTS)
        (first, *_) = (await books.read("contracts", "usd", TODAY))["contracts"]
        assert first["customer_name"] == "Avery Stone"

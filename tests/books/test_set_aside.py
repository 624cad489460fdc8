"""A history from which a book can't be made is set aside from the event on that is too much."""

from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from random import Random

import pytest
from msgspec.structs import replace
from sqlalchemy.exc import OperationalError

from projections import BOOKS
from projections.book import Book, Stage
from projections.collections import COLLECTIONS, payment_cash_rows
from service.books.engine import Engine
from service.books.store import BookStore
from service.books.view import Scope, View
from service.core.events import Discount, Event, Payment
from service.ledger.append import read_head
from service.ledger.set_aside import SetAsideSubject, count_set_aside, read_set_aside
from service.ledger.store import Ledger
from service.lookback.positions import digest_at
from service.lookback.restated import find_restatements
from service.rebuild.fill import fill_books
from service.verify import digests, replay, verify_chain, verify_replay, verify_sample, verify_totals
from service.verify.sample import Sample
from tests.support.events import at, but, changed, created, event, invoice, item, payment, subscription
from tests.support.random_deliveries import Killed
from tests.support.temporary_books import NOW, TemporaryBooks, document, in_batches, new_books, now

pytestmark = pytest.mark.usefixtures("each_store")

TODAY = date(2025, 11, 13)
PLAN = subscription(item(10_000))
OTHER = subscription(item(7_000), subscription_id="sub_2", customer_id="cus_2")
# More discounts than any delivery may bring, each of which ends on a day of its own.
ENDLESS = tuple(
    Discount(percent_off=Decimal("0.01"), duration="repeating", ends_at=at("2025-12-01") + timedelta(days=n))
    for n in range(600)
)
POISON = changed(but(PLAN, discounts=ENDLESS), "2025-03-01")
EVENTS = (
    created(PLAN, "2025-01-10"),
    created(OTHER, "2025-01-11"),
    changed(but(PLAN, items=(item(12_000),)), "2025-02-10"),
    POISON,
    event(invoice("paid", subscription_id="sub_1"), "2025-03-02"),
    changed(but(PLAN, items=(item(50_000),), discounts=ENDLESS), "2025-04-01"),
    changed(but(OTHER, items=(item(8_000),)), "2025-04-02"),
)
UNREAD = EVENTS[3], EVENTS[5]
SUB_1 = "subscription|stripe||sub_1"


async def set_aside(ledger: Ledger) -> list[SetAsideSubject]:
    return await ledger.read(read_set_aside)


async def digests_of(books: TemporaryBooks) -> dict[str, str]:
    async with books.store() as store:
        return await digests(store)


async def filled(books: TemporaryBooks, other: TemporaryBooks) -> dict[str, str]:
    """The digests of books that are built by key from one ledger, beside those of another."""
    async with other.store() as made:
        until = (await books.ledger.read(read_head)).position
        await fill_books(books.settings, books.ledger, made, until, processes=1)
        await Engine(books.ledger, made, now).catch_up()
        return await digests(made)


async def test_the_books_go_on_without_what_is_too_much_and_say_so(logged):
    async with new_books() as books, new_books() as healthy:
        await books.append(EVENTS)
        await books.advance()
        assert await set_aside(books.ledger) == [
            SetAsideSubject(subject=SUB_1, up_to=3, position=8, at=NOW, book="mrr", error="TooMuchWork")
        ]
        assert [entry for entry in logged if entry["event"] == "history_set_aside"] == [
            {
                "event": "history_set_aside",
                "log_level": "error",
                "history": SUB_1,
                "book": "mrr",
                "error": "TooMuchWork",
            }
        ]
        mrr = await books.read("mrr", "usd", TODAY)
        await healthy.record(*(each for each in EVENTS if each not in UNREAD))
        assert mrr == await healthy.read("mrr", "usd", TODAY)
        assert mrr["mrr_cents"] == 12_000 + 8_000


async def test_live_books_rebuilt_books_and_a_replay_are_equal():
    async with new_books() as books, new_books() as built, new_books() as replayed:
        await books.append(EVENTS)
        await books.advance(batch=2)
        live = await digests_of(books)
        assert await filled(books, built) == live
        async with books.store() as store:
            assert await replay(books.ledger, store.rules, replayed.directory, store.books) == live
            await verify_chain(books.ledger)
            await verify_replay(books.ledger, store)
            await verify_totals(store)
            sample = Sample(10, 1)
            await verify_chain(books.ledger, add_names=sample.add_names)
            await verify_sample(books.ledger, store, sample)


async def test_a_rebuild_that_meets_it_first_sets_the_same_aside():
    async with new_books() as books, new_books() as built:
        await books.append(EVENTS)
        rebuilt = await filled(books, built)
        assert [(each.subject, each.up_to) for each in await set_aside(books.ledger)] == [(SUB_1, 3)]
        await books.advance()
        assert await digests_of(books) == rebuilt


async def test_the_order_and_batches_of_all_else_do_not_matter():
    chosen = []
    for seed in range(3):
        async with new_books() as books:
            random = Random(seed)
            ours = [each for each in EVENTS if getattr(each.data, "subscription_id", "") == "sub_1"]
            others = [each for each in EVENTS if each not in ours]
            events: list[Event] = [*ours]
            for other in random.sample(others, len(others)):
                events.insert(random.randint(0, len(events)), other)
            for batch in in_batches(events, [random.randint(1, 3) for _ in range(3)]):
                await books.append(batch)
            await books.advance(batch=random.randint(1, 5))
            chosen.append(await digests_of(books))
    assert chosen[0] == chosen[1] == chosen[2]


async def test_books_of_an_earlier_position_lack_the_same_events():
    position = 6  # after the events that are not read, and before the one that says so
    async with new_books() as books, new_books() as built, new_books() as folded:
        await books.append(EVENTS)
        before = [await books.ledger.read(partial(digest_at, position=at)) for at in (3, position)]
        await books.advance()
        async with built.store() as made, folded.store() as followed:
            await fill_books(books.settings, books.ledger, made, position, processes=1)
            await Engine(books.ledger, followed, now, batch=2).catch_up(until=position)
            assert await digests(made) == await digests(followed)
            assert (await document(made, "mrr", "usd", TODAY))["mrr_cents"] == 12_000 + 7_000
            assert await find_restatements(books.ledger, made, 0, position) == await find_restatements(
                books.ledger, followed, 0, position
            )
        after = [await books.ledger.read(partial(digest_at, position=at)) for at in (3, position)]
        assert [old == new for old, new in zip(before, after, strict=True)] == [True, False]


# A fold that is mended later


def fragile(history, rules):
    """Payments as the book has them, but for one that it can't read until it is mended."""
    if not mended and any(isinstance(each.data, Payment) and each.data.amount == 666 for each in history):
        raise ZeroDivisionError
    return payment_cash_rows(history, rules)


mended = False
FRAGILE: Book = replace(
    COLLECTIONS,
    stages=tuple(
        Stage(reads="payment", contribute=fragile, rows=stage.rows) if stage.reads == "payment" else stage
        for stage in COLLECTIONS.stages
    ),
)
MONEY = (
    event(payment(payment_id="pi_1", amount=100), "2025-03-01"),
    event(payment(payment_id="pi_2", amount=500), "2025-03-02"),
    event(payment(payment_id="pi_2", amount=666), "2025-03-03"),
    event(payment(payment_id="pi_2", amount=700), "2025-03-04"),
    event(payment(payment_id="pi_3", amount=900), "2025-03-05"),
)
FRAGILE_BOOKS = tuple(FRAGILE if book is COLLECTIONS else book for book in BOOKS)
PI_2 = "payment|stripe||pi_2"


@pytest.fixture
def repair(monkeypatch):
    def repair() -> None:
        monkeypatch.setattr(f"{__name__}.mended", True)

    return repair


async def test_lifted_after_a_repair_the_books_are_as_if_nothing_had_been_set_aside(repair):
    async with new_books() as books, new_books() as healthy, books.store(books=FRAGILE_BOOKS) as store:
        await books.append(MONEY)
        engine = Engine(books.ledger, store, now)
        await engine.catch_up()
        assert [(each.subject, each.up_to) for each in await set_aside(books.ledger)] == [(PI_2, 2)]
        repair()
        assert await books.ledger.lift([PI_2, "payment|stripe||pi_1"], NOW) == [PI_2]
        await engine.catch_up()
        await healthy.record(*MONEY)
        assert await digests(store) == await digests_of(healthy)
        assert await set_aside(books.ledger) == []
        await verify_chain(books.ledger)


async def test_lifted_without_a_repair_it_is_set_aside_again():
    async with new_books() as books, books.store(books=FRAGILE_BOOKS) as store:
        await books.append(MONEY)
        engine = Engine(books.ledger, store, now)
        await engine.catch_up()
        before = await digests(store)
        await books.ledger.lift([PI_2], NOW)
        await engine.catch_up()
        (found,) = await set_aside(books.ledger)
        assert (found.subject, found.up_to) == (PI_2, 2)
        after = await digests(store)
        assert {name for name in after if after[name] != before[name]} == {"set_aside"}  # its cause


async def test_a_worker_that_dies_once_it_has_set_one_aside_is_followed_by_one_that_goes_on():
    moments = iter([NOW])

    def dies_at_its_second_look():
        for moment in moments:
            return moment
        raise Killed

    async with new_books() as books, books.store(books=FRAGILE_BOOKS) as store:
        await books.append(MONEY)
        with pytest.raises(Killed):
            await Engine(books.ledger, store, dies_at_its_second_look).catch_up()
        assert len(await set_aside(books.ledger)) == 1
        assert await Engine(books.ledger, store, now).catch_up() == len(MONEY) + 1


async def test_of_two_workers_one_sets_it_aside():
    async with (
        new_books() as books,
        books.store(books=FRAGILE_BOOKS) as first,
        books.store(books=FRAGILE_BOOKS) as second,
    ):
        await books.append(MONEY)
        slow = Engine(books.ledger, first, now)
        append = books.ledger.set_aside

        async def after_the_other(*args):
            books.ledger.set_aside = append
            await Engine(books.ledger, second, now).catch_up()
            return await append(*args)

        books.ledger.set_aside = after_the_other
        assert await slow.catch_up() == 0
        async with books.ledger.reading() as reader:
            rows = await reader.rows(0, 100)
        assert [row["type"] for row in rows].count("subject.set_aside") == 1


async def test_while_the_ledger_is_away_nothing_is_set_aside_and_later_it_is():
    async with new_books() as books, books.store(books=FRAGILE_BOOKS) as store:
        await books.append(MONEY)
        engine, append = Engine(books.ledger, store, now), books.ledger.set_aside

        async def away(*_args):
            books.ledger.set_aside = append
            raise OperationalError("BEGIN", None, Exception("the ledger is away"))

        books.ledger.set_aside = away
        with pytest.raises(OperationalError):
            await engine.advance()
        assert await books.ledger.read(count_set_aside) == 0
        await engine.catch_up()
        assert await books.ledger.read(count_set_aside) == 1


async def test_answers_count_what_is_set_aside():
    async with new_books() as books:
        await books.append(EVENTS)
        await books.advance()
        async with books.store() as store:
            for scope, count in (
                (Scope(currency="eur", today=TODAY), 1),
                (Scope(currency="usd", today=TODAY, account="acct_2"), 0),
            ):
                assert await store.read(partial(count_in_answers, store=store, scope=scope)) == count


def count_in_answers(connection, store: BookStore, scope: Scope) -> int:
    books = store.positions(connection).books
    return View(connection=connection, books=books, scope=scope).counts()["set_aside"]

"""Standing documents: what is found is what would be made afresh, and a change removes it."""

from datetime import date
from fractions import Fraction

import pytest
from msgspec import json
from sqlalchemy import Connection

from projections.book import Rules
from service.books.engine import Engine
from service.books.view import ReadOptions, Scope
from service.core.events import Customer
from service.reads.catalog import READS
from service.reads.parameters import parse_all
from service.reads.snapshots import find, precompute, snapshot_name
from tests.support.events import at, but, created, event, invoice, item, payment, subscription
from tests.support.temporary_books import document, new_books, now

pytestmark = pytest.mark.usefixtures("each_store")

TODAY = date(2025, 11, 13)
DOLLARS = (
    created(subscription(item(24_900, "week"), next_bill_at=at("2025-11-20")), "2025-01-10"),
    event(invoice("paid"), "2025-11-13"),
    event(Customer(customer_id="cus_1", name="Avery"), "2025-01-09"),
)
EUROS = (
    created(subscription(subscription_id="sub_2", currency="eur"), "2025-01-10"),
    event(invoice(invoice_id="in_2", currency="eur"), "2025-11-13"),
)
STANDING = [read for read in READS if read.precomputed]


async def standing(store, currency: str, *, people: bool = True) -> dict:
    """The standing documents of a currency that are there, by their read."""

    def look(connection: Connection) -> dict:
        found = {}
        for read in STANDING:
            args = parse_all(read.parameters, {}, TODAY)
            scope = Scope(currency=currency, today=TODAY, people=people)
            name = snapshot_name(store, read, scope, args)
            if (body := find(connection, name, store.positions(connection).version)) is not None:
                found[read.name] = json.decode(body)
        return found

    return await store.read(look)


async def fresh(store, currency: str) -> dict:
    return {read.name: await document(store, read.name, currency, TODAY) for read in STANDING}


async def advance(books, store, *events) -> None:
    await books.append(events)
    await Engine(books.ledger, store, now).catch_up()


async def test_a_standing_document_is_what_would_be_made_afresh():
    async with new_books() as books, books.store() as store:
        await advance(books, store, *DOLLARS, *EUROS)
        assert await precompute(store, TODAY) == 2 * len(STANDING)
        for currency in ("usd", "eur"):
            assert await standing(store, currency) == await fresh(store, currency)


async def test_where_a_key_hides_names_documents_without_them_stand_beside_the_others():
    async with new_books() as books, books.store() as store:
        await advance(books, store, *DOLLARS)
        assert await precompute(store, TODAY, ReadOptions(hides_people=True)) == 2 * len(STANDING)
        assert await standing(store, "usd") == await fresh(store, "usd")
        hidden = await standing(store, "usd", people=False)
        assert len(hidden) == len(STANDING)
        assert "Avery" not in str(hidden)
        assert "Avery" in str(await fresh(store, "usd"))


async def test_a_standing_document_is_not_made_again():
    async with new_books() as books, books.store() as store:
        await advance(books, store, *DOLLARS)
        await precompute(store, TODAY)
        assert await precompute(store, TODAY) == 0


async def test_a_change_of_a_row_drops_the_documents_of_every_currency():
    async with new_books() as books, books.store() as store:
        await advance(books, store, *DOLLARS, *EUROS)
        await precompute(store, TODAY)
        await advance(books, store, event(payment(payment_id="pi_9"), "2025-11-13"))
        for currency in ("usd", "eur"):
            assert await standing(store, currency) == {}
        await precompute(store, TODAY)
        for currency in ("usd", "eur"):
            assert await standing(store, currency) == await fresh(store, currency)


async def test_a_change_of_a_name_drops_every_document():
    async with new_books() as books, books.store() as store:
        await advance(books, store, *DOLLARS, *EUROS)
        await precompute(store, TODAY)
        await advance(books, store, event(Customer(customer_id="cus_1", name="Blake"), "2025-02-09"))
        assert await standing(store, "usd") == await standing(store, "eur") == {}


async def test_an_event_that_changes_no_row_drops_nothing():
    async with new_books() as books, books.store() as store:
        await advance(books, store, *DOLLARS)
        await precompute(store, TODAY)
        await advance(books, store, event(payment(payment_id="pi_8", status="pending"), "2025-11-13"))
        assert len(await standing(store, "usd")) == len(STANDING)


async def test_another_day_has_documents_of_its_own():
    async with new_books() as books, books.store() as store:
        await advance(books, store, *DOLLARS)
        await precompute(store, TODAY)
        await precompute(store, date(2025, 11, 14))
        assert await standing(store, "usd") == {}


async def test_a_change_in_another_currency_shows_in_standing_documents():
    async with new_books() as books, books.store() as store:
        await advance(books, store, *DOLLARS, *EUROS)
        await precompute(store, TODAY)
        dearer = but(EUROS[0].data, items=(item(99_900),))
        await advance(books, store, event(dearer, "2025-02-01"))
        await precompute(store, TODAY)
        assert await standing(store, "usd") == await fresh(store, "usd")


async def test_other_rules_have_documents_of_their_own():
    async with new_books() as books, books.store() as store:
        await advance(books, store, *DOLLARS)
        async with books.store(Rules(weeks_per_month=Fraction(52, 12))) as other:
            await advance(books, other)
            await precompute(other, TODAY)
        await precompute(store, TODAY)
        assert await standing(store, "usd") == await fresh(store, "usd")

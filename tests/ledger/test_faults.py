"""Verification finds a change of any column, of the raw bytes, of the index, of a row or a total."""

import pytest
from msgspec import json
from sqlalchemy import Integer, LargeBinary

from handlers.standard import translation
from service.books.engine import Engine
from service.books.store import BookStore
from service.bootstrap import open_books
from service.core.delivery import Proof
from service.core.errors import Integrity
from service.ledger.chain import CHAINED
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.ledger.tables import Event
from service.settings import Settings
from service.verify import verify_all, verify_chain
from tests.ledger.tampering import tamper
from tests.support.deliveries import NOW, delivery
from tests.support.processes import subscription_event
from tests.support.stores import EACH_STORE

STORES = EACH_STORE


def longer(column: str, settings: Settings) -> str:
    """SQL for a column of bytes with one byte more."""
    if settings.database_url:
        return f"coalesce({column}, '') || 'x'::bytea"
    return f"cast(coalesce({column}, '') || 'x' AS BLOB)"


@pytest.mark.parametrize("column", [*CHAINED, "digest"])
async def test_a_change_of_any_column_is_found(ledger: Ledger, settings: Settings, column: str) -> None:
    await ledger.append([delivery("a"), delivery("b"), delivery("c")], NOW)
    assert await verify_chain(ledger) == 3

    kind = Event.__table__.c[column].type
    if isinstance(kind, Integer):
        value = f"{column} + 100"
    else:
        value = longer(column, settings) if isinstance(kind, LargeBinary) else f"{column} || 'x'"
    await tamper(ledger, f"UPDATE events SET {column} = {value} WHERE event_id = 'b'")

    with pytest.raises(Integrity, match=r"position (2|102)"):
        await verify_chain(ledger)


@pytest.mark.parametrize("column", ["headers", "body", "proof"])
async def test_a_change_of_a_raw_delivery_is_found(ledger: Ledger, settings: Settings, column: str) -> None:
    await ledger.append([delivery("a"), delivery("b")], NOW)

    await tamper(ledger, f"UPDATE deliveries SET {column} = {longer(column, settings)} WHERE position = 2")

    with pytest.raises(Integrity, match="raw delivery at position 2"):
        await verify_chain(ledger)


async def test_a_removed_event_is_found(ledger: Ledger) -> None:
    await ledger.append([delivery("a"), delivery("b"), delivery("c")], NOW)

    await tamper(ledger, "DELETE FROM events WHERE position = 2")

    with pytest.raises(Integrity, match="position 2 is missing"):
        await verify_chain(ledger)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM subjects WHERE position = 2", "lacks"),
        ("INSERT INTO subjects VALUES ('customer|stripe||cus_z', 1)", "no event makes"),
        ("DELETE FROM event_ids WHERE position = 2", "lacks"),
        ("UPDATE event_ids SET content_digest = 'x' WHERE position = 2", "lacks"),
        ("INSERT INTO event_ids VALUES ('z', 'stripe', '', 3, 'x')", "no event makes"),
    ],
)
async def test_a_change_of_an_index_is_found(ledger: Ledger, statement: str, said: str) -> None:
    await ledger.append([delivery("a"), delivery("b")], NOW)

    await tamper(ledger, statement)

    with pytest.raises(Integrity, match=said):
        await verify_chain(ledger)


async def fill_books(ledger: Ledger, store: BookStore) -> None:
    """Five subscriptions, in the ledger and in the books."""
    deliveries = []
    for number in range(5):
        event_id, body = subscription_event(number)
        proof = Proof(processor="standard.biller", method="test", received_at=NOW, message_id=event_id)
        events = translation.translate(json.decode(body), proof)
        deliveries.append(Incoming(events=events, content_digest=b"", headers=b"{}", body=body, proof=proof))
    await ledger.append(deliveries, NOW)
    await store.register()
    await Engine(ledger, store, lambda: NOW).catch_up()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE mrr_steps SET mrr_cents = mrr_cents + 1 WHERE contract_id = 'sub_2'", "book mrr differs"),
        (
            "UPDATE contracts SET next_bill_date = '2030-01-01' WHERE contract_id = 'sub_2'",
            "book bills differs",
        ),
        ("DELETE FROM bills WHERE contract_id = 'sub_2'", "book bills differs"),
        ("UPDATE bill_days SET stated_cents = stated_cents + 1", "book bills differs"),
        ("UPDATE movement_days SET new_cents = new_cents + 1", "book mrr differs"),
    ],
)
async def test_a_change_of_a_row_or_a_total_is_found(
    ledger: Ledger, settings: Settings, statement: str, said: str
) -> None:
    store = open_books(settings)
    await fill_books(ledger, store)
    assert await verify_all(settings)

    await tamper(store, statement)

    with pytest.raises(Integrity, match=said):
        await verify_all(settings)
    await store.close()

"""Whoever can write the ledger's database changes quarantine: nothing forged is recorded, and it is found."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import json as msgspec_json
from sqlalchemy import Connection, delete, insert, select, update

from handlers.stripe import payloads, translations
from handlers.stripe.translations import SUBSCRIPTION, ObjectTranslation
from service.bootstrap import open_ledger, prepare
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.intake.retranslate import Retranslator
from service.ledger import chain, tables
from service.ledger.quarantine_chain import ENTRY_COLUMNS, append_records
from service.ledger.store import Ledger
from service.ledger.vault import GENERAL, StoredBody, owners_of_sealed, seal
from service.settings import Settings
from service.verify import Fault, verify_chain
from tests.support.cli import Run, document
from tests.support.running import Daybook, running
from tests.support.senders import MX_TOKEN, STANDARD, STRIPE, stripe_event, stripe_subscription
from tests.support.small_ledger import changed_value
from tests.support.stores import EACH_STORE
from tests.support.temporary_books import NOW

STORES = EACH_STORE
HOW_IT_WAS = "it is not what was put into quarantine"

_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]
_records = tables.QuarantineRecord.__table__  # type: ignore[attr-defined]


def contract(cents: int) -> dict[str, Any]:
    return stripe_event("customer.subscription.created", stripe_subscription("1", cents))


def unreadable(*_told: Any) -> Any:
    raise Unreadable("a shape that is not known")


@pytest.fixture
async def waiting(daybook: Daybook, monkeypatch: pytest.MonkeyPatch) -> Daybook:
    """A signed contract of $249 in quarantine, which this version can read."""
    with monkeypatch.context() as older:
        older.setitem(
            translations.TRANSLATIONS_BY_PREFIX,
            "customer.subscription.",
            ObjectTranslation(payloads.Subscription, unreadable),
        )
        assert (await daybook.post(STRIPE, contract(24900))).json()["quarantined"]
    assert translations.TRANSLATIONS_BY_PREFIX["customer.subscription."] is SUBSCRIPTION
    return daybook


async def write(ledger: Ledger, change: Callable[[Connection], Any]) -> Any:
    return await ledger._database.write(change)


def forged_body(ledger: Ledger, connection: Connection, *, is_sealed: bool) -> bytes:
    body = json.dumps(contract(99_999_900)).encode()
    keys = ledger.vault.read_keys(connection, [GENERAL])
    return seal(keys, [GENERAL], body) if is_sealed else body


async def forge(ledger: Ledger, *, is_sealed: bool, is_chained: bool) -> None:
    """Replace the body; whoever holds the master key can seal it, and write the chain anew."""

    def change(connection: Connection) -> None:
        body = forged_body(ledger, connection, is_sealed=is_sealed)
        connection.execute(update(_quarantine).values(body=body))
        if is_chained:
            connection.execute(delete(_records))
            append_records(connection, connection.execute(select(_quarantine)).mappings().all())

    await write(ledger, change)


async def fault(ledger: Ledger) -> Fault:
    with pytest.raises(Fault) as found:
        await verify_chain(ledger)
    return found.value


@pytest.mark.parametrize(
    ("is_sealed", "is_chained", "reason"),
    [
        (False, False, HOW_IT_WAS),
        (True, False, HOW_IT_WAS),
        (False, True, "its body is not sealed"),
        (True, True, "no secret that is configured now made this signature"),
    ],
)
async def test_a_forged_body_is_not_recorded(
    waiting: Daybook, command: Run, is_sealed: bool, is_chained: bool, reason: str
) -> None:
    await forge(waiting.state.ledger, is_sealed=is_sealed, is_chained=is_chained)

    (retried,) = document(await command("quarantine", "retry", 1, "--json"), 1)["retried"]
    applied = document(await command("retranslate", "--apply", "--json"))

    assert (retried["outcome"], reason in retried["detail"]) == ("refused", True), retried
    assert (applied["released"], applied["left_out"]) == (0, {"refused in quarantine": 1})
    assert (await waiting.head(), await waiting.quarantine()) == (0, {("stripe", "unreadable"): 1})


async def test_a_forged_body_is_found_and_not_exported(waiting: Daybook, command: Run) -> None:
    await forge(waiting.state.ledger, is_sealed=False, is_chained=False)

    assert (await fault(waiting.state.ledger)).where.key == "id 1"
    assert (await command("export", "ledger", "-o", "out.ndjson")).exit_code == 1


@pytest.mark.parametrize("column", ENTRY_COLUMNS)
async def test_a_change_of_any_column_is_found(waiting: Daybook, column: str) -> None:
    ledger = waiting.state.ledger
    await waiting.post(STRIPE, b"no JSON")
    kind = _quarantine.c[column].type.python_type
    row = (await ledger.read(lambda c: c.execute(select(_quarantine)).mappings().all()))[0]
    value = 7 if column == "id" else changed_value(row[column], kind)
    value = "dismissed" if value == 1 and kind is str else value
    changed = update(_quarantine).where(_quarantine.c.id == 1)
    if column == "id":
        await write(ledger, lambda c: c.execute(delete(_quarantine).where(_quarantine.c.id == 1)))
    else:
        await write(ledger, lambda c: c.execute(changed.values({column: value})))

    found = await fault(ledger)

    assert (found.where.table, found.where.key) == ("quarantine", "id 1")


@pytest.mark.parametrize("column", [column.name for column in _records.c])
async def test_a_change_of_any_column_of_the_chain_is_found(waiting: Daybook, column: str) -> None:
    kind = _records.c[column].type.python_type
    record = await waiting.state.ledger.read(lambda c: c.execute(select(_records)).mappings().one())
    change = update(_records).values({column: changed_value(record[column], kind)})
    await write(waiting.state.ledger, lambda c: c.execute(change))

    assert (await fault(waiting.state.ledger)).where.table == "quarantine_chain"


async def test_a_settlement_that_nobody_made_is_found(waiting: Daybook, command: Run) -> None:
    await waiting.post(STRIPE, b"no JSON")
    document(await command("quarantine", "dismiss", 2, "--because", "a test", "--json"))
    assert await verify_chain(waiting.state.ledger) == 0

    settled = update(_quarantine).where(_quarantine.c.id == 1)
    await write(
        waiting.state.ledger, lambda c: c.execute(settled.values(settled_at_us=1, settled_as="dismissed"))
    )

    assert (await fault(waiting.state.ledger)).where.key == "id 1"


async def test_entries_and_records_that_are_gone_are_found(waiting: Daybook) -> None:
    ledger = waiting.state.ledger
    await waiting.post(STRIPE, b"no JSON")
    await waiting.post(STRIPE, b"no JSON either")
    await write(ledger, lambda c: c.execute(delete(_records).where(_records.c.number == 2)))
    assert (await fault(ledger)).where.key == "record 2"

    await write(ledger, lambda c: c.execute(delete(_records).where(_records.c.number == 3)))
    assert str(await fault(ledger)) == "quarantine, entry 2: its chain does not hold it"


async def test_a_secret_that_was_rolled_away_is_set_beside_the_new_one(waiting: Daybook) -> None:
    ledger, now = waiting.state.ledger, waiting.clock.now
    rolled = waiting.state.settings.model_copy(
        update={"stripe_webhook_secrets": ("whsec_another_of_stripe",)}
    )
    report = await Retranslator(ledger, waiting.clock, rolled, apply=True).run(0, lambda _: None)
    assert (report.released, report.left_out) == (0, {"refused in quarantine": 1})

    both = rolled.model_copy(update={"stripe_webhook_secrets": ("whsec_another_of_stripe", STRIPE.secret)})
    report = await Retranslator(ledger, lambda: now, both, apply=True).run(0, lambda _: None)

    assert (report.released, await waiting.quarantine()) == (1, {})


async def test_where_a_secret_is_gone_the_chain_is_the_proof_if_an_operator_says_so(
    waiting: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYBOOK_STRIPE_WEBHOOK_SECRETS", "whsec_another_of_stripe_that_is_long")
    (refused,) = document(await command("quarantine", "retry", 1, "--json"), 1)["retried"]
    assert "--by-chain" in refused["detail"]

    (recorded,) = document(await command("quarantine", "retry", 1, "--by-chain", "--json"))["retried"]

    assert recorded["outcome"] == "recorded"
    assert await verify_chain(waiting.state.ledger) == 1


async def test_even_then_a_body_must_be_as_it_was(
    waiting: Daybook, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYBOOK_STRIPE_WEBHOOK_SECRETS", "whsec_another_of_stripe_that_is_long")
    await forge(waiting.state.ledger, is_sealed=True, is_chained=False)

    (refused,) = document(await command("quarantine", "retry", 1, "--by-chain", "--json"), 1)["retried"]

    assert HOW_IT_WAS in refused["detail"]


async def test_what_came_without_a_signature_is_read_again(daybook: Daybook, command: Run) -> None:
    assert (await daybook.post(MX_TOKEN, MX_TOKEN.unreadable)).json()["quarantined"]

    (still,) = document(await command("quarantine", "retry", 1, "--json"), 1)["retried"]

    assert still["outcome"] == "unreadable"


async def test_a_delivery_that_is_not_the_recorded_one_is_not_retranslated(
    daybook: Daybook, command: Run
) -> None:
    await daybook.post(STRIPE, contract(24900))
    deliveries = tables.Delivery.__table__  # type: ignore[attr-defined]
    body = json.dumps(contract(99_999_900)).encode()
    await write(daybook.state.ledger, lambda c: c.execute(update(deliveries).values(body=body)))

    applied = document(await command("retranslate", "--apply", "--json"))

    assert (applied["changed"], applied["left_out"]) == (0, {"altered": 1})


async def test_what_was_in_quarantine_before_is_chained_at_the_migration(
    waiting: Daybook, settings: Settings, command: Run
) -> None:
    def older(connection: Connection) -> None:
        connection.exec_driver_sql("DROP TABLE quarantine_chain")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0006'")

    await write(waiting.state.ledger, older)

    prepare(settings)

    assert await verify_chain(waiting.state.ledger) == 0
    (retried,) = document(await command("quarantine", "retry", 1, "--json"))["retried"]
    assert retried["outcome"] == "recorded"


async def test_an_erasure_leaves_a_chain_that_holds(daybook: Daybook, command: Run) -> None:
    customer = {"type": "customer.recorded", "occurred_at": "2025-01-01T00:00:00Z"}
    person = {"customer_id": "cus_ada", "name": "Ada Example"}
    await daybook.post(STANDARD, {**customer, "data": person})
    await daybook.post(STANDARD, {**customer, "occurred_at": "never", "data": person})
    await daybook.catch_up()

    assert (await command("erase", "cus_ada", "--yes")).exit_code == 0

    assert (await daybook.get("/api/v1/quarantine/1"))["raw_body"] is None
    await verify_chain(daybook.state.ledger)


async def test_many_writers_make_one_chain(data_dir: Path, settings: Settings) -> None:
    async with running(data_dir) as one, running(data_dir) as other:
        posts = [each.post(STRIPE, f"no JSON {n}".encode()) for n in range(20) for each in (one, other)]
        await asyncio.gather(*posts)
        ledgers = [one.state.ledger, other.state.ledger]
        ids = await ledgers[0].read(lambda c: c.execute(select(_quarantine.c.id)).scalars().all())
        await asyncio.gather(
            *(ledgers[n % 2].dismiss([n], "a test", one.clock.now) for n in ids),
            *(each.post(STRIPE, f"later {n}".encode()) for n in range(5) for each in (one, other)),
        )
    ledger = open_ledger(settings)
    try:
        assert await verify_chain(ledger) == 0
        assert len(await ledger.read(lambda c: c.execute(select(_records)).all())) == 45
    finally:
        await ledger.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"processor": "standard.acme"},
        {"proof": ("message_id", "msg_other")},
        {"proof": ("processor", "standard.acme")},
        {"proof": ("trust", "fetched")},
    ],
    ids=str,
)
async def test_a_row_that_says_more_than_its_signature_proves_is_refused(
    waiting: Daybook, command: Run, changes: dict[str, Any]
) -> None:
    def change(connection: Connection) -> None:
        (entry,) = connection.execute(select(_quarantine)).mappings()
        values = dict(changes)
        if "proof" in values:
            name, value = values["proof"]
            values["proof"] = json.dumps({**json.loads(entry["proof"]), name: value}).encode()
        connection.execute(update(_quarantine).values(**values))
        append_records(connection, connection.execute(select(_quarantine)).mappings().all())

    await write(waiting.state.ledger, change)

    (retried,) = document(await command("quarantine", "retry", 1, "--json"), 1)["retried"]
    assert retried["outcome"] == "refused"
    assert await waiting.head() == 0


async def test_a_changed_entry_is_not_settled(waiting: Daybook, command: Run) -> None:
    emptied = update(_quarantine).values(detail="forged", body=b"")
    await write(waiting.state.ledger, lambda connection: connection.execute(emptied))

    (retried,) = document(await command("quarantine", "retry", 1, "--json"), 1)["retried"]
    dismissed = await command("quarantine", "dismiss", 1, "--because", "erased")

    assert (retried["outcome"], HOW_IT_WAS in retried["detail"]) == ("refused", True)
    assert dismissed.exit_code != 0
    with pytest.raises(Fault):
        await verify_chain(waiting.state.ledger)


FETCHED = Proof(processor="stripe", method="fetch", received_at=NOW, trust="fetched")


async def put_under_another_proof(daybook: Daybook, *, is_bound: bool) -> None:
    """Put a body of the ledger into quarantine, as fetched; whoever holds the database can chain that."""
    deliveries = tables.Delivery.__table__  # type: ignore[attr-defined]

    def change(connection: Connection) -> None:
        body = connection.execute(select(deliveries.c.body)).scalar_one()
        if not is_bound:
            body = forged_body(daybook.state.ledger, connection, is_sealed=True)
        entry = {
            "received_at_us": 1,
            "processor": "stripe",
            "reason": "unreadable",
            "detail": "",
            "content_digest": b"",
            "headers": b"{}",
            "body": body,
            "proof": msgspec_json.encode(FETCHED),
        }
        rows = connection.execute(insert(_quarantine).values(**entry).returning(_quarantine))
        append_records(connection, rows.mappings().all())

    await write(daybook.state.ledger, change)


@pytest.mark.parametrize(
    ("is_bound", "reason"), [(True, "is not what was sealed"), (False, "use --by-chain")]
)
async def test_a_sealed_body_is_worth_nothing_under_another_proof(
    daybook: Daybook, command: Run, is_bound: bool, reason: str
) -> None:
    await daybook.post(STRIPE, contract(24900))
    await put_under_another_proof(daybook, is_bound=is_bound)

    (retried,) = document(await command("quarantine", "retry", 1, "--json"), 1)["retried"]
    applied = document(await command("retranslate", "--apply", "--json"))

    assert (retried["outcome"], reason in retried["detail"]) == ("refused", True), retried
    assert (applied["released"], applied["left_out"]) == (0, {"refused in quarantine": 1})
    assert await daybook.head() == 1


async def test_a_delivery_under_another_proof_is_found_though_the_chain_was_written_anew(
    daybook: Daybook,
) -> None:
    await daybook.post(STRIPE, contract(24900))
    events, deliveries = tables.Event.__table__, tables.Delivery.__table__  # type: ignore[attr-defined]

    def change(connection: Connection) -> None:
        proof = msgspec_json.encode(FETCHED)
        connection.execute(update(deliveries).values(proof=proof))
        raw = connection.execute(select(deliveries)).mappings().one()
        digest = chain.delivery_digest(raw["headers"], raw["body"], proof)
        row = dict(connection.execute(select(events)).mappings().one()) | {"delivery_digest": digest}
        head = chain.link(chain.GENESIS, row)
        connection.execute(update(events).values(delivery_digest=digest, digest=head))
        if connection.dialect.name == "postgresql":
            connection.execute(update(tables.Turn.__table__).values(digest=head))  # type: ignore[attr-defined]

    await write(daybook.state.ledger, change)

    assert "what it came with" in str(await fault(daybook.state.ledger))


async def test_bodies_that_an_earlier_version_sealed_still_open(daybook: Daybook) -> None:
    """They were sealed alike, without their headers and proof."""
    await daybook.post(STRIPE, contract(24900))
    deliveries = tables.Delivery.__table__  # type: ignore[attr-defined]
    ledger = daybook.state.ledger

    def as_earlier(connection: Connection) -> None:
        raw = connection.execute(select(deliveries)).mappings().one()
        stored = StoredBody(*(raw[name] for name in StoredBody._fields))
        (body,) = ledger.vault.unseal_bodies(connection, [stored])
        assert body
        keys = ledger.vault.read_keys(connection, owners_of_sealed(stored.body))
        sealed = seal(keys, owners_of_sealed(stored.body), body)
        connection.execute(update(deliveries).values(body=sealed))

    await write(ledger, as_earlier)

    async with ledger.reading() as reader:
        assert json.loads((await reader.delivery(1))["body"]) == contract(24900)

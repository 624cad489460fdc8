"""What is promised of the ledger, on every backing store."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from service.core.events import CustomerErased, Event, Invoice, subjects
from service.core.moments import to_us
from service.ledger import chain
from service.ledger.draft import Draft, Head
from service.ledger.history import read_events, read_histories
from service.ledger.store import Ledger
from service.ledger.vault import KEY_BYTES
from service.verify import verify_chain
from tests.support.deliveries import NOW, delivery, refused
from tests.support.stores import EACH_STORE

STORES = EACH_STORE


async def rows(ledger: Ledger) -> list[dict]:
    async with ledger.reading() as reader:
        return await reader.rows(0, 10_000)


async def quarantined(ledger: Ledger) -> dict[tuple[str, str], int]:
    async with ledger.reading() as reader:
        return await reader.count_quarantined()


async def test_positions_follow_the_order_of_a_batch_from_1(ledger: Ledger) -> None:
    outcomes = await ledger.append([delivery("a"), delivery("b"), delivery("c")], NOW)

    assert [outcome.position for outcome in outcomes] == [1, 2, 3]
    assert [row["event_id"] for row in await rows(ledger)] == ["a", "b", "c"]


async def test_concurrent_writers_leave_no_gap_and_break_no_link(open_ledger: Callable[[], Ledger]) -> None:
    # given four ledgers open on one store, as four processes would have them
    ledgers = [open_ledger() for _ in range(4)]
    chance = random.Random(1)

    async def write(number: int) -> None:
        for n in range(15):
            await ledgers[number].append(
                [delivery(f"{number}-{n}-{k}") for k in range(chance.randint(1, 4))], NOW
            )

    # when all write at once
    await asyncio.gather(*(write(number) for number in range(4)))

    # then positions are 1, 2, 3, … and the chain holds
    found = await rows(ledgers[0])
    assert [row["position"] for row in found] == list(range(1, len(found) + 1))
    assert await verify_chain(ledgers[0]) == len(found)


async def test_an_event_delivered_again_keeps_its_first_position(ledger: Ledger) -> None:
    first, again = await ledger.append([delivery("a"), delivery("a")], NOW)
    (later,) = await ledger.append([delivery("a")], NOW)

    assert (first.duplicate, again.duplicate, later.duplicate) == (False, True, True)
    assert {first.position, again.position, later.position} == {1}
    assert len(await rows(ledger)) == 1


async def test_the_same_id_with_other_content_is_a_conflict_and_both_are_kept(ledger: Ledger) -> None:
    await ledger.append([delivery("a", b"one")], NOW)

    outcomes = await ledger.append([delivery("a", b"two"), delivery("a", b"two")], NOW)

    assert all(outcome.conflict and not outcome.duplicate and outcome.position == 1 for outcome in outcomes)
    assert [row["content_digest"] for row in await rows(ledger)] == [ledger.vault.digest(b"one")]
    assert await quarantined(ledger) == {("stripe", "conflict"): 1}


async def test_a_late_delivery_of_a_fetched_event_is_a_duplicate(ledger: Ledger) -> None:
    fetched = delivery("a", b"one")
    await ledger.append([replace(fetched, events=[replace(fetched.events[0], trust="fetched")])], NOW)

    (late,) = await ledger.append([delivery("a", b"as another version says it")], NOW)

    assert (late.position, late.duplicate, late.conflict) == (1, True, False)
    assert await quarantined(ledger) == {}


async def test_two_events_in_conflict_with_the_same_body_are_both_kept(ledger: Ledger) -> None:
    await ledger.append([delivery("a", b"one"), delivery("b", b"two")], NOW)

    outcomes = await ledger.append([delivery("a", b"x"), delivery("b", b"x")], NOW)

    assert all(outcome.conflict for outcome in outcomes)
    assert await quarantined(ledger) == {("stripe", "conflict"): 2}


async def test_ids_are_unique_only_within_a_processor(ledger: Ledger) -> None:
    outcomes = await ledger.append([delivery("a"), delivery("a", processor="standard.biller")], NOW)

    assert [outcome.position for outcome in outcomes] == [1, 2]


async def test_an_unreadable_delivery_is_kept_once_in_quarantine_and_nowhere_else(ledger: Ledger) -> None:
    outcomes = await ledger.append([refused(b"?"), refused(b"?"), refused(b"!", "malformed")], NOW)

    assert all(outcome.quarantined and outcome.position is None for outcome in outcomes)
    assert await quarantined(ledger) == {("stripe", "unreadable"): 1, ("stripe", "malformed"): 1}
    assert await rows(ledger) == []


async def test_the_events_of_one_delivery_share_its_raw_bytes(ledger: Ledger) -> None:
    (outcome,) = await ledger.append([delivery("a", events=3)], NOW)

    assert outcome.position == 3
    assert [row["delivery"] for row in await rows(ledger)] == [1, 1, 1]
    async with ledger.reading() as reader:
        assert (await reader.delivery(1))["body"] == b'{"id":"a"}'


async def test_a_failed_batch_leaves_nothing(ledger: Ledger) -> None:
    unwritable = replace(refused(b"?"), reason=object())  # no column can hold it

    with pytest.raises(OperationalError):
        await ledger.append([delivery("a"), unwritable], NOW)

    assert await rows(ledger) == []
    (outcome,) = await ledger.append([delivery("a")], NOW)

    assert outcome.position == 1
    assert not outcome.duplicate


async def test_histories_hold_every_event_of_a_subject_up_to_a_position(ledger: Ledger) -> None:
    await ledger.append([delivery("a", events=3), delivery("b")], NOW)
    name = "customer|stripe||cus_a"

    whole = await ledger.read(
        lambda connection: read_histories(connection, [name, "customer|stripe||none"], 4, ledger.vault)
    )
    early = await ledger.read(lambda connection: read_histories(connection, [name], 2, ledger.vault))

    assert [event.event_id for event in whole[name]] == ["a:0", "a:1", "a:2"]
    assert whole["customer|stripe||none"] == []
    assert [event.event_id for event in early[name]] == ["a:0", "a:1"]


async def test_events_come_back_as_they_were_told(ledger: Ledger) -> None:
    event = delivery("a").events[0]
    await ledger.append([delivery("a")], NOW)

    def history(connection: Connection) -> list[Event]:
        return read_histories(connection, ["customer|stripe||cus_a"], 1, ledger.vault)[
            "customer|stripe||cus_a"
        ]

    assert await ledger.read(history) == [event]
    nameless = replace(event, data=replace(event.data, name=None))
    assert await ledger.read(lambda connection: read_events(connection, 0, 10)) == [(1, nameless)]


async def test_a_reader_never_sees_half_a_batch(open_ledger: Callable[[], Ledger]) -> None:
    writer, reader = open_ledger(), open_ledger()
    seen: set[int] = set()

    async def look() -> None:
        while max(seen, default=0) < 200:
            async with reader.reading() as view:
                seen.add((await view.head()).position)

    looking = asyncio.create_task(look())
    for n in range(20):
        await writer.append([delivery(f"{n}-{k}") for k in range(10)], NOW)
    await looking

    assert all(position % 10 == 0 for position in seen)


async def test_when_a_processor_was_last_heard(ledger: Ledger) -> None:
    await ledger.append([delivery("a"), delivery("b", processor="mxmerchant"), delivery("c")], NOW)
    erased = delivery("d")
    erasure = replace(erased.events[0], data=CustomerErased(customer_id="cus_a"))
    await ledger.append([replace(erased, events=[erasure])], NOW + timedelta(days=1))  # nobody was heard

    async with ledger.reading() as reader:
        heard = await reader.last_heard()

    assert heard == {"stripe": to_us(NOW), "mxmerchant": to_us(NOW)}


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=5), max_size=6))
def test_any_batching_gives_the_same_positions(batches: list[list[str]]) -> None:
    keys = {f"customer|stripe||cus_{event_id}": bytes(KEY_BYTES) for event_id in "abcdef"}

    def positions(batching: list[list[str]]) -> dict[str, int]:
        head, known, found = Head(position=0, digest=chain.GENESIS), {}, {}
        for batch in batching:
            draft = Draft(head, known, {}, 0, keys, lambda content: content)
            for event_id in batch:
                draft.add(delivery(event_id))
            found |= {row["event_id"]: row["position"] for row in draft.events}
            if draft.events:
                head = Head(position=draft.events[-1]["position"], digest=draft.events[-1]["digest"])
        return found

    one_by_one = [[event_id] for batch in batches for event_id in batch]
    assert positions(batches) == positions(one_by_one)


def test_subjects_are_named_within_processor_and_account() -> None:
    invoice = Invoice(
        invoice_id="in_1", status="paid", currency="usd", amount_due=1, created_at=NOW, payment_ids=("pi_1",)
    )
    event = Event(processor="stripe", account="acct_1", event_id="e", occurred_at=NOW, data=invoice)

    assert subjects(event) == ["invoice|stripe|acct_1|in_1", "payment|stripe|acct_1|pi_1"]

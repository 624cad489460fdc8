"""Many workers: each partition has one writer, and who lost it can't write."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from service.books import leases
from service.books.engine import Engine, Overtaken
from service.books.leases import Leases
from service.books.tables import PARTITIONS
from service.bootstrap import open_books, open_leases
from service.ledger.store import Ledger
from service.settings import Settings
from service.verify import verify_replay, verify_totals
from tests.support.events import at, event, invoice, payment, subscription
from tests.support.partitions import HeldPartitions
from tests.support.temporary_books import NOW, incoming, now
from tests.support.waiting import PATIENCE_SECONDS

STORES = ["postgresql"]

OpenLeases = Callable[[], Leases]


@pytest.fixture(autouse=True)
def _nobody_is_dead_for_being_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "WORKER_TIMEOUT", timedelta(minutes=30))


@pytest.fixture
async def new_leases(settings: Settings) -> AsyncIterator[OpenLeases]:
    """The leases of a new worker."""
    async with AsyncExitStack() as stack:
        first = open_books(settings)
        stack.push_async_callback(first.close)
        await first.register()

        def make() -> Leases:
            leases = open_leases(settings)
            assert leases is not None
            stack.push_async_callback(leases.close)
            return leases

        yield make


def taken(*workers: Leases) -> list[int]:
    return sorted(part for worker in workers for part in worker.fences)


ALL = list(range(PARTITIONS))


async def test_the_first_worker_holds_everything_and_gives_later_ones_their_share(
    new_leases: OpenLeases,
) -> None:
    workers = [new_leases() for _ in range(3)]
    await workers[0].renew()
    assert taken(workers[0]) == ALL
    for _ in range(2):
        for worker in workers:
            await worker.renew()

    assert taken(*workers) == ALL
    assert sorted(len(worker.fences) for worker in workers) == [4, 6, 6]


async def test_what_a_stopped_worker_held_is_taken_at_once(
    new_leases: OpenLeases, settings: Settings
) -> None:
    stays, stops = new_leases(), open_leases(settings)
    assert stops is not None
    for _ in range(2):
        await stays.renew()
        await stops.renew()
    assert len(stays.fences) == PARTITIONS / 2

    await stops.close()
    await stays.renew()

    assert taken(stays) == ALL


async def forget(settings: Settings, name: str) -> None:
    """Let a worker's last word lie so long ago that it is dead to the others."""
    store = open_books(settings)
    long_ago = text("UPDATE workers SET seen_at = seen_at - interval '1 hour' WHERE name = :name")
    await store.write(lambda connection: connection.execute(long_ago, {"name": name}))
    await store.close()


async def test_what_a_dead_worker_held_is_taken_under_another_fence(
    new_leases: OpenLeases, settings: Settings
) -> None:
    alive, dead = new_leases(), new_leases()
    await dead.renew()
    fences = dict(dead.fences)
    await forget(settings, dead._worker)

    await alive.renew()

    assert alive.fences == {part: fence + 1 for part, fence in fences.items()}


async def test_a_worker_that_was_paused_and_wakes_up_late_can_not_write(
    new_leases: OpenLeases, settings: Settings, ledger: Ledger
) -> None:
    # given a worker that holds everything, and has not written what is there
    paused, other = new_leases(), new_leases()
    await paused.renew()
    store = open_books(settings)
    await ledger.append([incoming(event(subscription(), "2025-01-01"))], NOW)
    engine = Engine(ledger, store, now, paused)

    # when it is paused so long that another takes its partitions, and then goes on
    await forget(settings, paused._worker)
    await other.renew()
    with pytest.raises(Overtaken):
        await engine.advance()

    # then it has written nothing, even though the other has not written either
    assert set((await positions(store)).values()) == {0}
    assert await Engine(ledger, store, now, other).catch_up() == 1
    await verify_totals(store)
    await store.close()


async def positions(store) -> dict:
    def find(connection: Connection) -> dict:
        return store.checkpoints(connection, store.positions(connection).books)

    return await store.read(find)


async def test_partitions_are_not_taken_in_the_middle_of_their_holders_transaction(
    new_leases: OpenLeases, settings: Settings
) -> None:
    writing, other = new_leases(), new_leases()
    await writing.renew()
    await forget(settings, writing._worker)
    store = open_books(settings)
    checked, go_on = threading.Event(), threading.Event()

    def write(connection: Connection) -> None:
        writing.check(connection, ALL)
        checked.set()
        assert go_on.wait(PATIENCE_SECONDS)

    under_way = asyncio.create_task(store.write(write))
    await asyncio.to_thread(checked.wait, PATIENCE_SECONDS)
    await other.renew()
    assert taken(other) == []

    go_on.set()
    await under_way
    await other.renew()
    assert taken(other) == ALL
    await store.close()


async def test_workers_that_write_at_once_give_the_books_of_one(settings: Settings, ledger: Ledger) -> None:
    # given many subscriptions and invoices of few customers, so that every worker feeds the same keys
    events = []
    for number in range(240):
        day = f"2025-{1 + number % 12:02d}-{1 + number % 28:02d}"
        key = {"subscription_id": f"sub_{number % 60}", "customer_id": f"cus_{number % 3}"}
        events.append(
            event(subscription(**key, next_bill_at=at("2026-01-05")), day, event_id=f"evt_s{number}")
        )
        events.append(event(invoice(invoice_id=f"in_{number}", **key), day, event_id=f"evt_i{number}"))
        events.append(event(payment(payment_id=f"pi_{number % 90}"), day, event_id=f"evt_p{number}"))
    for start in range(0, len(events), 100):
        await ledger.append([incoming(each) for each in events[start : start + 100]], NOW)

    # when four workers take them in at once, in small steps
    stores = [open_books(settings) for _ in range(4)]
    await stores[0].register()
    engines = [
        Engine(ledger, store, now, HeldPartitions(range(number, PARTITIONS, 4)), batch=20)
        for number, store in enumerate(stores)
    ]
    await asyncio.gather(*(engine.catch_up() for engine in engines))

    # then the books are those of a replay by one, and every total is the sum of its rows
    position, _ = await verify_replay(ledger, stores[0])
    assert position == len(events)
    await verify_totals(stores[0])
    for store in stores:
        await store.close()

"""Positions are without gaps and in the order of the commits, however many processes append."""

import asyncio
import random
import threading
from functools import partial

import pytest
from sqlalchemy import Connection, text

from service.bootstrap import open_ledger
from service.core.errors import Unavailable
from service.core.moments import to_us
from service.ledger import master_key, range_partitions
from service.ledger.append import append_deliveries, lock_head, read_head
from service.ledger.draft import Outcome
from service.ledger.history import read_events
from service.ledger.store import Ledger
from service.ledger.writer import Writer
from service.settings import Settings, load
from service.storage import database
from service.verify import verify_chain
from tests.support.deliveries import NOW, delivery
from tests.support.postgres import PostgresServer
from tests.support.waiting import PATIENCE_SECONDS

STORES = ["postgresql"]


class Paused:
    """One append that begins its transaction, waits, appends, waits again, and only then commits."""

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        self.began, self.go, self.appended, self.commit = (threading.Event() for _ in range(4))

    def __call__(self, connection: Connection) -> list[Outcome]:
        connection.execute(text("SELECT txid_current()"))  # its transaction has a number from here on
        self.began.set()
        assert self.go.wait(PATIENCE_SECONDS)
        vault = master_key.open_vault(load())
        outcomes = append_deliveries(
            connection, lock_head(connection), [delivery(self.event_id)], to_us(NOW), vault
        )
        self.appended.set()
        assert self.commit.wait(PATIENCE_SECONDS)
        return outcomes


@pytest.fixture(autouse=True)
def _who_waits_for_a_lock_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_COMMAND_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setitem(database._WRITER_SETTINGS, "lock_timeout", f"{PATIENCE_SECONDS:.0f}s")


@pytest.fixture
def _who_pauses_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that does nothing is not ended: on a busy machine a test takes long between two steps."""
    monkeypatch.setitem(
        database._WRITER_SETTINGS, "idle_in_transaction_session_timeout", f"{PATIENCE_SECONDS:.0f}s"
    )


async def reached(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE_SECONDS)


@pytest.mark.usefixtures("_who_pauses_may")
async def test_writers_that_commit_in_the_opposite_order_of_their_start_hide_nothing_from_a_reader(
    settings: Settings, ledger: Ledger, another: Ledger
) -> None:
    # given a reader that takes in what it finds and never looks back
    reader = open_ledger(settings)
    seen: list[str] = []
    position = 0

    async def look() -> None:
        nonlocal position
        for at, event in await reader.read(partial(read_events, position=position, limit=100)):
            assert at == position + 1
            position = at
            seen.append(event.event_id)

    # when the transaction that began first appends last, while the other has not committed
    first, second = Paused("first"), Paused("second")
    early = asyncio.create_task(ledger._database.write(first))
    await reached(first.began)
    late = asyncio.create_task(another._database.write(second))
    await reached(second.began)
    second.go.set()
    await reached(second.appended)
    first.go.set()
    await look()
    assert not await asyncio.to_thread(first.appended.wait, 0.2)  # it waits for its turn
    second.commit.set()
    await late
    await look()
    await reached(first.appended)
    await look()
    first.commit.set()
    await early
    await look()

    # then the reader has seen both, in the order of the commits
    assert seen == ["second", "first"]
    assert await verify_chain(reader) == 2
    await reader.close()


@pytest.mark.usefixtures("_who_pauses_may")
async def test_an_append_waits_for_the_one_under_way_and_goes_on_behind_it(
    ledger: Ledger, another: Ledger
) -> None:
    # given a transaction that has appended, and has not committed
    under_way = Paused("a")
    under_way.go.set()
    first = asyncio.create_task(ledger._database.write(under_way))
    await reached(under_way.appended)

    # when others append meanwhile, one of them the same event
    waiting = [asyncio.create_task(another.append([delivery(name)], NOW)) for name in ("a", "b")]
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    assert not done
    under_way.commit.set()

    # then they come behind it, and know it
    await first
    (again,), (new,) = await asyncio.gather(*waiting)
    assert (again.position, again.duplicate) == (1, True)
    assert (new.position, new.duplicate) == (2, False)


async def test_many_processes_leave_no_gap_and_no_double(ledger: Ledger, another: Ledger) -> None:
    async def post(to: Ledger, numbers: range) -> list[int | None]:
        return [(await to.append([delivery(str(n))], NOW))[0].position for n in numbers]

    # the same hundred events to both, in opposite orders
    there, back = await asyncio.gather(post(ledger, range(100)), post(another, range(99, -1, -1)))

    assert there == back[::-1]
    assert sorted(there) == list(range(1, 101))
    assert await verify_chain(ledger) == 100


async def test_a_process_that_stops_in_the_middle_keeps_nobody_waiting_for_long(
    ledger: Ledger, another: Ledger
) -> None:
    stopped = Paused("a")
    stopped.go.set()
    hanging = asyncio.create_task(ledger._database.write(stopped))
    await reached(stopped.appended)

    (outcome,) = await another.append([delivery("b")], NOW)

    # then its transaction is over, and when it goes on it appends behind what came meanwhile
    assert outcome.position == 1
    stopped.commit.set()
    (late,) = await hanging
    assert (late.position, late.duplicate) == (2, False)
    assert await verify_chain(another) == 2


@pytest.fixture
async def small_partitions(
    ledger: Ledger, settings: Settings, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Parts of ten positions; the database's name."""
    database = str(settings.database_url).rsplit("/", 1)[1]
    for table in ("events", "deliveries"):
        for number in (0, 1):
            postgres.sql(f"DROP TABLE daybook.{table}_{number:05d}", database)
    monkeypatch.setattr(range_partitions, "PARTITION_SIZE", 10)
    await ledger._database.write(lambda connection: range_partitions.add_partitions(connection, 0, 1))
    return database


async def test_a_part_is_there_before_it_is_needed(
    ledger: Ledger, postgres: PostgresServer, small_partitions: str
) -> None:
    for start, count in ((0, 7), (7, 14), (21, 7), (28, 40)):  # within a part, into the next, over several
        await ledger.append([delivery(str(n)) for n in range(start, start + count)], NOW)

    assert await verify_chain(ledger) == 68
    children = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'daybook.events'::regclass"
    assert int(postgres.sql(children, small_partitions)) == 68 // 10 + 2
    (again,) = await ledger.append([delivery("0")], NOW)
    assert (again.position, again.duplicate) == (1, True)


@pytest.mark.usefixtures("small_partitions")
async def test_neither_a_long_read_nor_an_old_part_that_is_moved_stops_the_ledger(
    ledger: Ledger, another: Ledger, settings: Settings
) -> None:
    await ledger.append([delivery(str(n)) for n in range(15)], NOW)
    mover = open_ledger(settings)

    async with another.reading() as reader:  # as a dump or a verification would
        assert len(await reader.rows(0, 100)) == 15
        await ledger.append([delivery(str(n)) for n in range(15, 35)], NOW)

    moving, moved = threading.Event(), threading.Event()

    def move(connection: Connection) -> None:
        connection.exec_driver_sql("LOCK TABLE events_00000, deliveries_00000 IN ACCESS EXCLUSIVE MODE")
        moving.set()
        assert moved.wait(PATIENCE_SECONDS)

    under_way = asyncio.create_task(mover._database.write(move))
    await reached(moving)
    (outcome,) = await ledger.append([delivery("35")], NOW)
    assert outcome.position == 36
    assert (await another.read(read_head)).position == 36
    moved.set()
    await under_way
    await mover.close()
    assert await verify_chain(ledger) == 36


async def test_an_event_id_that_no_index_takes_does_not_keep_out_the_others(ledger: Ledger) -> None:
    writer = Writer(ledger, lambda: NOW, lambda _: None)
    too_long = delivery(random.Random(1).randbytes(4_000).hex())

    answers = await asyncio.gather(
        *(writer.append(each) for each in (delivery("a"), too_long, delivery("b"))), return_exceptions=True
    )

    assert isinstance(answers[1], Unavailable)
    assert [answers[0].position, answers[2].position] == [1, 2]
    await writer.close()

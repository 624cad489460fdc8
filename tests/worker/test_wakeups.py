"""No wake-up is lost: not during a run, not while Redis is away, not when all its keys are gone."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import pytest

from projections.book import Rules
from service.books.engine import Engine
from service.books.store import BookStore
from service.bootstrap import open_books, open_ledger, prepare
from service.core.delivery import Proof
from service.core.events import Customer, Event
from service.ledger.draft import Incoming
from service.ledger.writer import Writer
from service.queue.nudge import Nudger, connect
from service.settings import load
from service.storage.database import SqliteDatabase, books_path
from service.worker.advancer import Advancer
from service.worker.main import serve_jobs
from tests.support.ports import free_port
from tests.support.processes import DaybookProcesses, post
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS, eventually, wait_until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def daybook(tmp_path: Path, valkey: ValkeyServer) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path, valkey.connection_url) as daybook:
        yield daybook


def delivery(number: int) -> Incoming:
    event = Event(
        processor="standard.biller",
        event_id=f"evt_{number}",
        occurred_at=NOW,
        data=Customer(customer_id=f"cus_{number}"),
    )
    proof = Proof(processor="standard.biller", method="standard-webhooks", received_at=NOW)
    return Incoming(events=[event], content_digest=b"", headers=b"{}", body=b"{}", proof=proof)


class Counting(Advancer):
    """Counts how often it was woken."""

    calls = 0

    async def wake(self) -> None:
        self.calls += 1
        await super().wake()


class At(BookStore):
    """Books in a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(SqliteDatabase(books_path(directory), "NORMAL"), Rules())


class Held(At):
    """Waits before it commits, once `holding`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.holding, self.in_the_middle, self.go_on = False, threading.Event(), threading.Event()

    async def write(self, change):
        def held(connection):
            result = change(connection)
            if self.holding:
                self.in_the_middle.set()
                assert self.go_on.wait(PATIENCE_SECONDS)
            return result

        return await super().write(held)


async def test_an_event_committed_while_a_job_runs_shows_up_without_the_sweep(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    # given a worker with no sweep at all, whose first transaction waits before it commits
    settings = load(data_dir=tmp_path)
    prepare(settings)
    ledger, store = open_ledger(settings), Held(tmp_path)
    await store.register()
    store.holding = True
    advancer = Counting(
        Engine(ledger, store, lambda: NOW), store, lambda: date(2026, 1, 1), unwoken_seconds=600
    )
    stopping = asyncio.Event()
    to_redis = partial(connect, valkey.connection_url, "daybook")
    nudger = Nudger(to_redis(), lambda: None)
    writer = Writer(ledger, lambda: NOW, nudger.nudge)
    working = asyncio.create_task(serve_jobs(to_redis, advancer, [], stopping))

    # when a second event is committed, and its nudge taken, in the middle of the first one's run
    await writer.append(delivery(1))
    assert await asyncio.to_thread(store.in_the_middle.wait, PATIENCE_SECONDS)
    called = advancer.calls
    await writer.append(delivery(2))
    await eventually(lambda: advancer.calls > called, "the second nudge is taken")
    store.go_on.set()

    # then the same worker takes it in, though nothing else wakes it
    assert await reaches(store, 2)
    stopping.set()
    await working
    await writer.close()
    await nudger.close()
    await store.close()
    await ledger.close()


async def reaches(store: BookStore, position: int) -> bool:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with store.reading() as connection:
                positions = await connection.run_sync(store.positions)
            if set(positions.by_book.values()) == {position}:
                return True
            await asyncio.sleep(0.01)


class Slow(At):
    """Waits after the first read that comes once the run has asked for today: the snapshots' one."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.asked, self.in_the_middle, self.go_on = False, asyncio.Event(), asyncio.Event()

    def today(self) -> date:
        self.asked = True
        return NOW.date()

    async def read(self, query):
        result = await super().read(query)
        if self.asked:
            self.in_the_middle.set()
            await self.go_on.wait()
        return result


async def test_an_event_committed_after_a_runs_last_look_shows_up_without_the_sweep(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    # given a run that has found the ledger's end, and is not over
    prepare(load(data_dir=tmp_path))
    ledger, store = open_ledger(load(data_dir=tmp_path)), Slow(tmp_path)
    await store.register()
    await ledger.append([delivery(1)], NOW)
    advancer = Counting(Engine(ledger, store, lambda: NOW), store, store.today, unwoken_seconds=600)
    stopping = asyncio.Event()
    to_redis = partial(connect, valkey.connection_url, "daybook")
    nudger = Nudger(to_redis(), lambda: None)
    writer = Writer(ledger, lambda: NOW, nudger.nudge)
    working = asyncio.create_task(serve_jobs(to_redis, advancer, [], stopping))
    await store.in_the_middle.wait()

    # when an event is committed and its nudge taken just then
    called = advancer.calls
    await writer.append(delivery(2))
    await eventually(lambda: advancer.calls > called, "the nudge is taken")
    store.go_on.set()

    # then it is taken in, though nothing else wakes the worker
    assert await reaches(store, 2)
    stopping.set()
    await working
    await writer.close()
    await nudger.close()
    await store.close()
    await ledger.close()


class Faulty(Engine):
    """Fails the first two times, as with a row that nobody foresaw."""

    left = 2

    async def advance(self, until: int | None = None) -> int:
        self.left -= 1
        if self.left >= 0:
            raise IndexError("nobody foresaw this")
        return await super().advance(until)


async def test_a_run_that_fails_stops_nothing_and_is_tried_again(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    prepare(settings)
    ledger, store = open_ledger(settings), open_books(settings)
    await store.register()
    await ledger.append([delivery(1)], NOW)
    advancer = Advancer(Faulty(ledger, store, lambda: NOW), store, NOW.date, unwoken_seconds=0.01)
    advancing = asyncio.create_task(advancer.run())

    assert await reaches(store, 1)

    advancer.stop()
    await advancing
    await store.close()
    await ledger.close()


def test_web_answers_200_without_redis_and_workers_catch_up_when_it_is_back(tmp_path: Path) -> None:
    # given a Daybook whose Valkey is gone, and with it every key
    port = free_port()
    daybook = DaybookProcesses(tmp_path, f"redis://127.0.0.1:{port}")
    try:
        with ValkeyServer(port=port):
            daybook.start("web")
            daybook.start("worker")
            daybook.wait_ready()
            post(daybook, 1)
            wait_until(daybook.caught_up, "the first event is in the books")
        # when events come meanwhile
        answers = [post(daybook, number) for number in (2, 3)]
        assert [answer.status_code for answer in answers] == [200, 200]
        # then they are in the books once an empty Valkey is there again, and so are later ones
        with ValkeyServer(port=port):
            post(daybook, 4)
            wait_until(lambda: daybook.caught_up(4), "all are in the books")
            assert daybook.processes["worker"].poll() is None
    finally:
        daybook.stop()


def test_a_redis_that_hangs_delays_neither_webhooks_nor_books_for_long(
    daybook: DaybookProcesses, valkey: ValkeyServer
) -> None:
    # given web and worker that know a Redis which then says nothing more
    daybook.start("web")
    daybook.start("worker")
    daybook.wait_ready()
    post(daybook, 1)
    wait_until(daybook.caught_up, "the first event is in the books")
    valkey.pause()
    try:
        # when events come
        started = time.monotonic()
        answers = [post(daybook, number) for number in range(2, 52)]
        took = time.monotonic() - started
        # then they are answered as ever, and in the books though nothing nudged
        assert {answer.status_code for answer in answers} == {200}
        assert took < 75  # if they waited for Redis, each would for two seconds
        wait_until(lambda: daybook.caught_up(51), "all are in the books")
    finally:
        valkey.resume()
    assert daybook.processes["worker"].poll() is None

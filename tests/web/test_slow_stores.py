"""A store that is slow, or hangs: 503 within a bound whatever it does, never a 200 and never a hang."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.ledger import writer
from service.storage import database
from service.storage.database import ledger_path
from service.web import health, progress, reads
from tests.support.running import Daybook
from tests.support.senders import SENDERS, STRIPE, Sender
from tests.support.waiting import PATIENCE_SECONDS
from tests.web.test_prometheus import labels, samples


@pytest.fixture(autouse=True)
def _short_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (writer, "_COMMIT_SECONDS"),
        (writer, "_CLOSE_SECONDS"),
        (reads, "_READ_SECONDS"),
        (progress, "LOOK_SECONDS"),
        (health, "LOOK_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.2)


@asynccontextmanager
async def held_up(*works: Callable[[Callable[[Any], Any]], Coroutine[Any, Any, Any]]) -> AsyncIterator[None]:
    """A thread of each of these holds a connection, and does nothing with it, until the block ends."""
    released, began = threading.Event(), threading.Semaphore(0)

    def hang(_connection: Any) -> None:
        began.release()
        released.wait(2 * PATIENCE_SECONDS)

    tasks = [asyncio.create_task(work(hang)) for work in works]
    assert await asyncio.to_thread(began.acquire, timeout=PATIENCE_SECONDS) or not tasks
    try:
        yield
    finally:
        released.set()
        await asyncio.gather(*tasks)


async def timed(request: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
    """The answer, which did not wait for the stores: they are held up for longer."""
    return await asyncio.wait_for(request, PATIENCE_SECONDS)


def is_503(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 503
        and answer.headers["content-type"] == "application/problem+json"
        and int(answer.headers["retry-after"]) > 0
    )


@pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.name)
async def test_a_ledger_locked_for_long_is_503_and_the_retry_a_duplicate(
    daybook: Daybook, data_dir: Path, sender: Sender
) -> None:
    with closing(sqlite3.connect(ledger_path(data_dir), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = await timed(daybook.post(sender, sender.event("1", 100), message_id="msg_a"))
        other.execute("ROLLBACK")

    assert is_503(answer)
    # what waited for the lock is written now, though nobody waits for it
    async with asyncio.timeout(PATIENCE_SECONDS):
        await daybook.state.writer._queue.join()
    kept = await daybook.head()
    again = await daybook.post(sender, sender.event("1", 100), message_id="msg_a")
    assert again.status_code == 200
    assert again.json()["duplicate"] is True
    assert await daybook.head() == kept > 0


async def test_a_ledger_that_hangs_is_503_for_all_who_wait(daybook: Daybook) -> None:
    async with held_up(daybook.state.ledger._database.write):
        posts = (daybook.post(STRIPE, STRIPE.event(str(key), 100)) for key in range(20))
        answers = await asyncio.gather(*(timed(post) for post in posts))

        assert all(is_503(answer) for answer in answers)
        found = await samples(daybook)
        assert found["daybook_deliveries_total", labels(processor="stripe", outcome="unavailable")] == 20
        assert found["daybook_requests_in_flight", labels(kind="webhook")] == 0


async def test_books_that_hang_are_503_and_webhooks_are_taken(daybook: Daybook) -> None:
    threads = 40  # more than there are for reads
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    async with held_up(*[daybook.state.store._database.read] * threads):
        read = await timed(daybook.ask("/api/v1/mrr"))
        waiting = await timed(daybook.ask("/api/v1/mrr", at_least=1, timeout_ms=100))
        posted = await timed(daybook.post(STRIPE, STRIPE.event("2", 100)))

        assert is_503(read)
        assert is_503(waiting)
        assert posted.status_code == 200
    await daybook.catch_up()
    assert (await daybook.ask("/api/v1/mrr", at_least=2)).status_code == 200


async def test_connections_that_are_never_given_back_are_503(daybook: Daybook) -> None:
    async with AsyncExitStack() as taken:
        for _ in range(sum(database._SQLITE_READER_POOL.values())):
            await taken.enter_async_context(daybook.state.ledger.reading())

        read = await timed(daybook.ask("/api/v1/ledger/head"))
        ready = await timed(daybook.http.get("/readyz"))
        found = await samples(daybook)

        assert is_503(read)
        assert ready.status_code == 503
        assert found["daybook_stores_readable", ()] == 0
        assert ("daybook_ledger_position", ()) not in found
        assert found["daybook_requests_refused_total", labels(kind="read")] == 0  # the counters are there

    assert (await daybook.ask("/api/v1/ledger/head")).status_code == 200
    async with asyncio.timeout(PATIENCE_SECONDS):  # a busy machine may need longer than a scrape waits
        while (await samples(daybook))["daybook_stores_readable", ()] != 1:
            pass


async def test_reads_that_hang_keep_their_places_until_they_end(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a store that hangs would gather without bound the reads that nobody waits for any more."""
    ended = asyncio.Event()

    async def read(_query: Any) -> Any:
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue  # as closing a connection that hangs does
        raise OSError("gone")

    monkeypatch.setattr(daybook.state.store, "read", read)
    assert is_503(await timed(daybook.ask("/api/v1/mrr")))

    assert (await samples(daybook))["daybook_requests_in_flight", labels(kind="read")] == 1
    ended.set()
    assert is_503(await timed(daybook.ask("/api/v1/mrr")))  # an OSError
    assert (await samples(daybook))["daybook_requests_in_flight", labels(kind="read")] == 0

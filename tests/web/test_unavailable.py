"""What is said when a store or Redis is away: 503 and nothing kept, or 200 and all of it."""

import asyncio
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from service.storage.database import books_path, ledger_path
from tests.support.running import Daybook, running
from tests.support.senders import SENDERS, STRIPE, Sender

each = pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.name)


async def on_the_writers_connection(daybook: Daybook, statement: str) -> None:
    """Run a PRAGMA on the one connection that the ledger is written through."""
    with daybook.state.ledger._database._writer.connect() as connection:
        connection.exec_driver_sql(statement)


def is_503(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 503
        and answer.headers["content-type"] == "application/problem+json"
        and int(answer.headers["retry-after"]) > 0
        and "ledger" in answer.json()["detail"]
        and "INSERT" not in answer.text
    )


@each
async def test_a_full_disk_is_503_and_what_comes_again_after_it_is_new(
    daybook: Daybook, sender: Sender
) -> None:
    # given a ledger file that can't grow by a page (SQLite says: database or disk is full)
    await on_the_writers_connection(daybook, "PRAGMA max_page_count = 1")
    big = {**sender.event("1", 100), "note": "x" * 50_000}

    # when
    answer = await daybook.post(sender, big, message_id="msg_a")

    # then
    assert is_503(answer)
    assert await daybook.head() == 0
    assert await daybook.quarantine() == {}
    assert (await daybook.get("/api/v1/ledger/head"))["position"] == 0  # reads go on

    # and when there is room again
    await on_the_writers_connection(daybook, "PRAGMA max_page_count = 1000000")
    again = await daybook.post(sender, big, message_id="msg_a")

    assert again.status_code == 200
    assert again.json()["duplicate"] is False


async def test_deliveries_that_a_full_disk_refused_are_recorded_when_they_come_again(
    daybook: Daybook,
) -> None:
    await on_the_writers_connection(daybook, "PRAGMA max_page_count = 1")
    events = [{**STRIPE.event(str(n), 100), "note": "x" * 5_000} for n in range(20)]

    refused = await asyncio.gather(*(daybook.post(STRIPE, event) for event in events))
    await on_the_writers_connection(daybook, "PRAGMA max_page_count = 1000000")
    taken = await asyncio.gather(*(daybook.post(STRIPE, event) for event in events))

    assert any(is_503(answer) for answer in refused)
    kept_at_once = {n for n, answer in enumerate(refused) if answer.status_code == 200}
    assert {n for n, answer in enumerate(taken) if answer.json()["duplicate"]} == kept_at_once
    assert sorted(answer.json()["position"] for answer in taken) == list(range(1, 21))


async def test_a_ledger_locked_by_another_is_503_and_works_again_afterwards(data_dir: Path) -> None:
    async with running(data_dir) as daybook:
        await on_the_writers_connection(daybook, "PRAGMA busy_timeout = 50")
        with closing(sqlite3.connect(ledger_path(data_dir), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

            answer = await daybook.post(STRIPE, STRIPE.event("1", 100))

            assert is_503(answer)
            other.execute("ROLLBACK")
        assert await daybook.head() == 0
        assert (await daybook.post(STRIPE, STRIPE.event("1", 100))).json()["duplicate"] is False


async def test_with_the_books_away_webhooks_are_taken_and_reads_are_503(data_dir: Path) -> None:
    async with running(data_dir) as daybook:
        with closing(sqlite3.connect(books_path(data_dir))) as books, books:
            books.execute("ALTER TABLE checkpoints RENAME TO elsewhere")

        posted = await daybook.post(STRIPE, STRIPE.event("1", 100))
        read = await daybook.ask("/api/v1/mrr")
        ready = await daybook.http.get("/readyz")

        assert posted.status_code == 200
        assert read.status_code == 503
        assert read.headers["content-type"] == "application/problem+json"
        assert read.headers["retry-after"]
        assert "checkpoints" not in read.text
        assert ready.status_code == 503
        assert ready.headers["content-type"] == "application/problem+json"
        assert ready.headers["retry-after"]


async def test_with_redis_away_webhooks_are_taken_all_the_same(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    # given a port at which nobody listens any more
    async with running(data_dir, redis_url=f"redis://127.0.0.1:{port}") as daybook:
        for sender in SENDERS:
            answer = await daybook.post(sender, sender.event("1", 100))
            assert answer.status_code == 200
        await daybook.catch_up()

        assert (await daybook.get("/api/v1/mrr"))["active_contracts"] == 2

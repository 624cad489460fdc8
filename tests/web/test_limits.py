"""So many requests at once and no more: the next ones are told to come again, before anything is read."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.reads.snapshots import precompute
from service.web import app, webhooks
from tests.support.running import Daybook, running
from tests.support.senders import STRIPE
from tests.support.waiting import PATIENCE_SECONDS, eventually
from tests.web.http_server import serve
from tests.web.test_prometheus import labels, samples

MIB = 1 << 20
either_way = pytest.mark.parametrize("stated", [True, False], ids=["stated", "in chunks"])


def is_refused(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 503
        and answer.headers["content-type"] == "application/problem+json"
        and answer.headers["retry-after"] == "1"
        and "too many" in answer.json()["detail"]
    )


def upload(
    daybook: Daybook,
    key: str,
    go_on: asyncio.Event,
    length: int = 0,
    *,
    at_first: int = 10,
    stated: bool = True,
) -> Any:
    """A webhook of at least `length` bytes, which goes on after `at_first` of them when `go_on` says so."""
    body = json.dumps(STRIPE.event(key, 100)).encode().ljust(length)
    headers = STRIPE.sign(body, daybook.clock.now, "", STRIPE.secret)
    if stated:
        headers["Content-Length"] = str(len(body))

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:at_first]
        await go_on.wait()
        yield body[at_first:]

    return asyncio.create_task(daybook.http.post(STRIPE.path, content=slowly(), headers=headers))


async def in_flight(daybook: Daybook, kind: str, count: int) -> None:
    """Wait until so many are under way, as the gauge says."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if (await samples(daybook))["daybook_requests_in_flight", labels(kind=kind)] == count:
                return
            await asyncio.sleep(0.01)


async def test_one_webhook_too_many_is_503_and_the_others_are_kept(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_MAX_WEBHOOKS", 2)
    async with running(data_dir) as daybook:
        go_on = asyncio.Event()
        under_way = [upload(daybook, key, go_on) for key in ("1", "2")]
        await in_flight(daybook, "webhook", 2)

        refused = await daybook.post(STRIPE, STRIPE.event("3", 100))
        go_on.set()
        kept = await asyncio.gather(*under_way)

        assert is_refused(refused)
        assert [answer.status_code for answer in kept] == [200, 200]
        assert (await daybook.post(STRIPE, STRIPE.event("3", 100))).json()["position"] == 3
        found = await samples(daybook)
        assert found["daybook_requests_refused_total", labels(kind="webhook")] == 1
        assert found["daybook_requests_in_flight", labels(kind="webhook")] == 0
        assert found["daybook_deliveries_total", labels(processor="stripe", outcome="refused")] == 1


@either_way
async def test_bodies_are_bounded_by_the_sum_of_what_has_come(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, stated: bool
) -> None:
    # given room of which one client may have a body of the longest, and nearly all of one there
    monkeypatch.setattr(app, "_MAX_WEBHOOK_BYTES", (MIB + 10_000) * 8 // 7)
    async with running(data_dir) as daybook:
        go_on = asyncio.Event()
        under_way = upload(daybook, "1", go_on, MIB, at_first=MIB - 10, stated=stated)
        await in_flight(daybook, "webhook", 1)

        long = await daybook.post(STRIPE, json.dumps(STRIPE.event("2", 100)).encode().ljust(20_000))
        short = await daybook.post(STRIPE, STRIPE.event("3", 100))
        go_on.set()

        assert is_refused(long)
        assert short.status_code == 200
        assert (await under_way).status_code == 200
        assert (await daybook.post(STRIPE, STRIPE.event("2", 100))).status_code == 200


async def test_a_body_that_outgrows_what_is_left_is_refused_and_gives_it_back(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_MAX_WEBHOOK_BYTES", 50_000 * 8 // 7)
    async with running(data_dir) as daybook:
        first, second = asyncio.Event(), asyncio.Event()
        outgrown = upload(daybook, "1", first, 40_000, at_first=20_000)
        kept = upload(daybook, "2", second, 30_000, at_first=20_000)
        await in_flight(daybook, "webhook", 2)

        first.set()
        assert is_refused(await outgrown)
        second.set()
        assert (await kept).status_code == 200
        assert (await daybook.post(STRIPE, b" " * 49_000, secret="whsec_wrong")).status_code == 400


@either_way
async def test_who_sends_a_head_and_no_more_keeps_nobody_out(daybook: Daybook, stated: bool) -> None:
    # given more of them than there is room for bodies of the length that they state
    never = asyncio.Event()
    idle = [upload(daybook, str(n), never, MIB, at_first=0, stated=stated) for n in range(40)]
    await in_flight(daybook, "webhook", len(idle))

    answer = await daybook.post(STRIPE, STRIPE.event("signed", 100))

    assert answer.status_code == 200
    for task in idle:
        task.cancel()
    await asyncio.gather(*idle, return_exceptions=True)
    assert (await samples(daybook))["daybook_requests_in_flight", labels(kind="webhook")] == 0


async def test_a_refused_request_gives_its_place_back(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_MAX_WEBHOOKS", 1)
    monkeypatch.setattr(app, "_MAX_WEBHOOK_BYTES", MIB)
    async with running(data_dir) as daybook:
        for _ in range(3):
            assert (await daybook.post(STRIPE, b"x", secret="whsec_wrong")).status_code == 400
            assert (await daybook.post(STRIPE, b" " * (MIB + 1))).status_code == 413

        assert (await daybook.post(STRIPE, STRIPE.event("1", 100))).status_code == 200


def test_one_webhook_too_many_is_503_before_a_byte_of_its_body(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_MAX_WEBHOOKS", 0)
    with (
        serve(data_dir) as address,
        socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection,
    ):
        connection.sendall(
            f"POST {STRIPE.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))  # to the end: it is closed

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer.lower()


async def test_a_body_that_does_not_arrive_in_time_is_408(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_BODY_SECONDS", 0.1)
    async with running(data_dir) as daybook:
        answer = await asyncio.wait_for(upload(daybook, "1", asyncio.Event()), PATIENCE_SECONDS)

        assert answer.status_code == 408
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        assert await daybook.head() == 0


async def test_one_read_too_many_is_503(daybook: Daybook, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, read = asyncio.Event(), daybook.state.store.read

    async def held(query: Any) -> Any:
        await go_on.wait()
        return await read(query)

    monkeypatch.setattr(daybook.state.store, "read", held)
    under_way = [
        asyncio.create_task(daybook.ask("/api/v1/mrr", timeout_ms=number))
        for number in range(app._MAX_READS * 7 // 8)
    ]
    places = daybook.state.reads._requests  # the gauge of them is read from a store, too
    await eventually(lambda: places._held.total() == len(under_way), "all have begun")

    refused = await daybook.ask("/api/v1/mrr")
    posted = await daybook.post(STRIPE, STRIPE.event("1", 100))
    go_on.set()

    assert is_refused(refused)
    assert posted.status_code == 200  # a webhook needs none of the reads' room
    assert {answer.status_code for answer in await asyncio.gather(*under_way)} == {200}
    assert (await daybook.ask("/api/v1/mrr")).status_code == 200


async def test_reads_that_wait_for_the_books_take_no_place_of_others(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_MAX_READS", 1)
    monkeypatch.setattr(app, "_MAX_WAITING_READS", 2)
    async with running(data_dir) as daybook:
        await daybook.post(STRIPE, STRIPE.event("1", 100))
        paths = ("/api/v1/mrr", "/api/v1/ledger/head")

        def wait(path: str) -> Any:
            return asyncio.create_task(daybook.ask(path, at_least=1, timeout_ms=30_000, today="2025-11-13"))

        waiting = [wait(path) for path in paths]
        await in_flight(daybook, "waiting_read", 2)

        refused = await wait("/api/v1/mrr")
        answered = [await daybook.ask(path) for path in paths]
        await daybook.catch_up()

        assert is_refused(refused)
        assert [answer.status_code for answer in answered] == [200, 200]
        statuses = [answer.status_code for answer in await asyncio.gather(*waiting)]
        assert 200 in statuses
        assert set(statuses) <= {200, 503}  # both may come at once to the one place there is
        found = await samples(daybook)
        assert found["daybook_requests_refused_total", labels(kind="waiting_read")] == 1
        assert found["daybook_requests_in_flight", labels(kind="waiting_read")] == 0
        assert found["daybook_requests_in_flight", labels(kind="read")] == 0


async def test_snapshots_are_read_while_another_read_makes_its_document(daybook: Daybook) -> None:
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    await daybook.catch_up()
    await precompute(daybook.state.store, daybook.clock.now.date(), daybook.state.options)
    await daybook.state.maker.acquire()

    made = asyncio.create_task(daybook.ask("/api/v1/revenue/quarterly-forecast"))
    assert (await daybook.ask("/api/v1/mrr")).status_code == 200
    assert not made.done()

    daybook.state.maker.release()
    assert (await made).status_code == 200


async def test_all_that_wait_for_the_books_share_one_poll(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most = 0, 0
    read = daybook.state.store.read

    async def counted(query: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await read(query)
        finally:
            under_way -= 1

    monkeypatch.setattr(daybook.state.store, "read", counted)

    waiting = (daybook.ask("/api/v1/mrr", at_least=1, timeout_ms=500) for _ in range(100))
    answers = await asyncio.gather(*waiting)

    assert {answer.status_code for answer in answers} == {504}
    assert most == 1
    await eventually(lambda: daybook.state.progress._task is None, "the poll ends when nobody waits")


async def test_each_waits_for_its_own_position(daybook: Daybook) -> None:
    for key in ("1", "2"):
        await daybook.post(STRIPE, STRIPE.event(key, 100))
    await daybook.catch_up()

    now, soon, never = await asyncio.gather(
        *(
            daybook.ask("/api/v1/mrr", at_least=at, timeout_ms=wait)
            for at, wait in ((2, 0), (2, 500), (3, 100))
        )
    )

    assert (now.status_code, soon.status_code, never.status_code) == (200, 200, 504)
    assert "position 2, not yet 3" in never.json()["detail"]

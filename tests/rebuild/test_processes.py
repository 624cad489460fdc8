"""Rebuilds by real processes: under load, and killed hard at random moments."""

import asyncio
import multiprocessing
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from msgspec import json
from sqlalchemy import func, select

from service.books import tables
from service.books.engine import Engine
from service.bootstrap import books_for_rebuild, open_books, open_ledger, prepare
from service.rebuild.cutover import RebuildResult, rebuild
from service.settings import Settings, load
from service.storage.database import books_path
from service.verify import verify_all
from service.verify.replay import digests
from tests.support.effort import times
from tests.support.events import event, invoice, item, payment, refund, subscription
from tests.support.processes import DaybookProcesses, signed
from tests.support.temporary_books import NOW, incoming, now
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE_SECONDS, eventually

KILLS = times(20)
SEED = 5
CURRENCIES = ("eur", "gbp", "chf")


@pytest.fixture
def daybook(tmp_path: Path, valkey: ValkeyServer) -> Iterator[DaybookProcesses]:
    with DaybookProcesses(tmp_path, valkey.connection_url) as daybook:
        yield daybook


def life(number: int) -> list[Any]:
    who = {"customer_id": f"cus_{number // 3}"}
    pays = f"pi_{number}"
    return [
        event(subscription(item(1_000 + number), subscription_id=f"sub_{number}", **who), "2025-01-10"),
        event(invoice("paid", invoice_id=f"in_{number}", **who), f"2025-02-{1 + number % 28:02d}"),
        event(payment(payment_id=pays, **who), f"2025-03-{1 + number % 28:02d}"),
        event(refund(payment_id=pays, refund_id=f"re_{number}"), "2025-04-01"),
    ]


async def filled(settings: Settings, lives: int) -> None:
    """A ledger of so many lives, and its books."""
    prepare(settings)
    async with AsyncExitStack() as stack:
        ledger, store = open_ledger(settings), open_books(settings)
        stack.push_async_callback(ledger.close)
        stack.push_async_callback(store.close)
        for first in range(0, lives, 100):
            told = [
                incoming(each) for number in range(first, min(first + 100, lives)) for each in life(number)
            ]
            await ledger.append(told, NOW)
        await Engine(ledger, store, now).catch_up()


def command(daybook: DaybookProcesses, *arguments: str) -> subprocess.Popen[bytes]:
    return python(daybook, "-m", "service.cli", "rebuild", *arguments)


def python(daybook: DaybookProcesses, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=daybook.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    said, faults = await asyncio.to_thread(process.communicate)
    return process.returncode, said, faults


class Client:
    """Changes one subscription again and again, and reads after each change what it must be then."""

    def __init__(self, url: str, currency: str) -> None:
        self.answered: list[int] = []
        self.wrong: list[str] = []
        self._url = url
        self._currency = currency

    async def run(self, stopping: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=PATIENCE_SECONDS) as client:
            while not stopping.is_set():
                position = await self._post(client, len(self.answered) + 1)
                self.answered.append(position)
                await self._read(client, position, 1_000 + len(self.answered))

    async def _post(self, client: httpx.AsyncClient, number: int) -> int:
        body = {
            "type": "subscription.recorded",
            "occurred_at": f"2026-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z",
            "data": {
                "subscription_id": f"sub_{self._currency}",
                "customer_id": f"cus_{self._currency}",
                "status": "active",
                "currency": self._currency,
                "items": [{"interval": "month", "unit_amount": str(1_000 + number)}],
            },
        }
        event_id, raw = f"evt_{self._currency}_{number}", json.encode(body)
        answer = await client.post("/webhooks/standard/biller", content=raw, headers=signed(event_id, raw))
        if answer.status_code != 200:
            self.wrong.append(f"webhook {number}: {answer.status_code}")
            return 0
        return int(answer.json()["position"])

    async def _read(self, client: httpx.AsyncClient, position: int, expected: int) -> None:
        asked = {
            "currency": self._currency,
            "today": "2026-02-01",
            "at_least": position,
            "timeout_ms": 20_000,
        }
        answer = await client.get("/api/v1/mrr", params=asked)
        while answer.status_code == 504:  # on a busy machine the books may take longer than a read waits
            answer = await client.get("/api/v1/mrr", params=asked)
        document = answer.json()
        if answer.status_code != 200 or document["meta"]["position"] < position:
            self.wrong.append(f"read at {position}: {answer.status_code} {document.get('meta')}")
        elif document["mrr_cents"] != expected:
            self.wrong.append(f"read at {position}: {document['mrr_cents']} is not {expected}")


async def test_under_load_every_webhook_and_read_is_answered_and_right(daybook: DaybookProcesses) -> None:
    # given a web process and a worker, and clients that write and read what they wrote
    settings = load(data_dir=daybook.data_dir)
    await filled(settings, 250)
    daybook.start("web")
    daybook.start("worker")
    await asyncio.to_thread(daybook.wait_ready)
    clients = [Client(daybook.url, currency) for currency in CURRENCIES]
    stopping = asyncio.Event()
    at_work = [asyncio.create_task(client.run(stopping)) for client in clients]

    # when the books are rebuilt, by two processes, and the old ones removed
    before = [len(client.answered) for client in clients]
    code, said, faults = await ended(command(daybook, "--json", "--processes", "2"))
    assert code == 0, faults
    code, removed, faults = await ended(command(daybook, "--prune", "--json"))
    assert code == 0, faults
    await eventually(
        lambda: all(len(client.answered) > start for client, start in zip(clients, before, strict=True)),
        "every client is answered",
    )
    stopping.set()
    await asyncio.gather(*at_work)

    # then the new books are live, nothing went wrong meanwhile, and nothing is missing
    found = json.decode(said, type=RebuildResult)
    assert found.live
    assert [book.name for book in found.books if book.digest != book.live_digest] == []
    assert len(json.decode(removed)["removed"]) == len(found.books)
    assert [client.wrong for client in clients] == [[]] * len(clients)
    await eventually(daybook.caught_up, "the books reach the ledger's end")
    await verify_all(settings)


def rebuild_alone(data_dir: Path, begun: Any) -> None:
    """What the command does, without its start."""

    async def run() -> None:
        settings = load(data_dir=data_dir)
        async with books_for_rebuild(settings, []) as (ledger, store):
            begun.set()
            await rebuild(settings, ledger, store, now, processes=1)

    asyncio.run(run())


async def standing(settings: Settings) -> tuple[dict[str, int], dict[str, str], dict[str, int]]:
    """The live books: their ids, digests, and numbers of rows."""
    store = open_books(settings)

    def count(connection: Any, book_ids: dict[str, int]) -> dict[str, int]:
        live = list(book_ids.values())
        return {
            name: connection.execute(select(func.count()).where(table.c.book.in_(live))).scalar_one()
            for name, table in ((row.table, table) for row, table in tables.ROWS.items())
        }

    try:
        book_ids = (await store.read(store.positions)).books
        return book_ids, await digests(store), await store.read(lambda c: count(c, book_ids))
    finally:
        await store.close()


def test_a_rebuild_killed_at_random_moments_leaves_the_live_books_as_they_are(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    asyncio.run(filled(settings, 60))
    ids, *before = asyncio.run(standing(settings))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def begin() -> Any:
        begun = context.Event()
        process = context.Process(target=rebuild_alone, args=(tmp_path, begun))
        process.start()
        assert begun.wait(PATIENCE_SECONDS)
        return process

    # given how long a rebuild takes that nobody disturbs
    first = begin()
    started = time.monotonic()
    first.join(PATIENCE_SECONDS)
    seconds = time.monotonic() - started
    assert first.exitcode == 0
    whole, *after = asyncio.run(standing(settings))
    assert after == before
    assert not set(whole.values()) & set(ids.values())

    # when others are killed at random moments of that time
    chance, kills, unfinished = random.Random(SEED), 0, 0
    while kills < KILLS or unfinished < KILLS // 2:
        process = begin()
        time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.join(PATIENCE_SECONDS)
        # then the live books are those that were, or the new ones, and the same whichever they are
        now_live, *after = asyncio.run(standing(settings))
        assert after == before
        kills += 1
        unfinished += process.exitcode == -signal.SIGKILL and now_live == whole
        whole = now_live
        seconds *= 1.0 if process.exitcode else 0.8  # the first one was slow

    # and the one after them succeeds
    last = begin()
    last.join(PATIENCE_SECONDS)
    assert last.exitcode == 0
    rebuilt, *after = asyncio.run(standing(settings))
    assert after == before
    assert not set(rebuilt.values()) & set(whole.values())


async def at_work(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The two processes that another has started to build with."""

    def found() -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):  # one that ends just now
            family = psutil.Process(process.pid).children(recursive=True)
            both = [each for each in family if "spawn_main" in " ".join(each.cmdline())]
            return both if len(both) == 2 else []
        return []

    both: list[psutil.Process] = await eventually(found, "two processes are at work")
    return both


async def test_a_killed_rebuild_leaves_no_process_behind(daybook: DaybookProcesses) -> None:
    await filled(load(data_dir=daybook.data_dir), 40)
    whole = command(daybook, "--processes", "2")
    family = await at_work(whole)
    whole.kill()
    await ended(whole)
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, PATIENCE_SECONDS)
    assert alive == []

    bereaved = command(daybook, "--processes", "2")
    family = await at_work(bereaved)
    family[0].kill()
    code, _, faults = await ended(bereaved)
    assert (code, faults.count(b"\n")) == (3, 1)
    assert b"a process that was building was killed" in faults
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, PATIENCE_SECONDS)
    assert alive == []


async def test_books_that_were_damaged_are_told_by_their_keys_and_made_good_if_that_is_meant(
    daybook: DaybookProcesses,
) -> None:
    settings = load(data_dir=daybook.data_dir)
    await filled(settings, 30)
    ids, digests_before, _ = await standing(settings)
    with closing(sqlite3.connect(books_path(daybook.data_dir))) as connection, connection:
        connection.execute(
            "UPDATE mrr_steps SET mrr_cents = 7 WHERE contract_id = 'sub_12' AND book = ?", [ids["mrr"]]
        )

    code, said, _ = await ended(command(daybook, "--json"))
    assert code == 1
    found = json.decode(said, type=RebuildResult)
    assert not found.live
    (unlike,) = [unlike for book in found.books for unlike in book.differences]
    assert (unlike.table, unlike.key) == ("mrr_steps", "stripe||cus_4")
    assert (unlike.left[0]["mrr_cents"], unlike.right[0]["mrr_cents"]) == (7, 1_012)
    assert (await standing(settings))[0] == ids

    code, said, _ = await ended(command(daybook, "mrr", "--accept"))
    assert code == 0
    assert b"mrr: mrr_steps stripe||cus_4: 1 in the live book only, 1 in" in said
    assert (await standing(settings))[1] == digests_before


async def test_a_rebuild_without_progress_says_so_and_ends(daybook: DaybookProcesses) -> None:
    stuck = "import time; from service.commands.rebuild import _watch; _watch(0.2)(1); time.sleep(60)"
    code, _, faults = await ended(python(daybook, "-c", stuck))
    assert code == 1
    assert faults == b"daybook: no progress for 0 s; the live books are as they were\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("mrrr",), 2, b"mrrr: no such book; there are mrr, bills"),
        ((), 2, b"there is no ledger in"),
    ],
    ids=["a book that is not there", "no ledger"],
)
async def test_an_impossible_rebuild_is_refused_in_one_line(
    daybook: DaybookProcesses, arguments: tuple[str, ...], code: int, said: bytes
) -> None:
    found, _, faults = await ended(command(daybook, *arguments))
    assert found == code
    assert faults.startswith(b"daybook: " + said)
    assert faults.count(b"\n") == 1

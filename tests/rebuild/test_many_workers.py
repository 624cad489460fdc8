"""A rebuild where many workers keep the books."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from service.books.engine import Engine, Overtaken
from service.books.store import BookStore
from service.bootstrap import open_books, open_leases
from service.ledger.store import Ledger
from service.rebuild import builds
from service.rebuild.cutover import rebuild
from service.rebuild.fill import fill_books
from service.settings import Settings
from service.verify.replay import digests
from service.verify.totals import verify_totals
from tests.support.postgres import PostgresServer
from tests.support.query_plans import GROWING, WALKS, events_of
from tests.support.temporary_books import NOW, incoming, now

STORES = ["postgresql"]
EACH = len(events_of(0))


async def append(ledger: Ledger, numbers: range) -> None:
    told = [incoming(each) for number in numbers for each in events_of(number)]
    for start in range(0, len(told), 200):
        await ledger.append(told[start : start + 200], NOW)


@asynccontextmanager
async def worker(settings: Settings, ledger: Ledger, stopping: asyncio.Event) -> AsyncIterator[None]:
    """What a worker process does, here."""
    store, leases = open_books(settings), open_leases(settings)
    assert leases is not None
    engine = Engine(ledger, store, now, leases, batch=50)

    async def work() -> None:
        while not stopping.is_set():
            await leases.renew()
            with suppress(Overtaken):
                await engine.catch_up()
            await asyncio.sleep(0.02)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        stack.push_async_callback(leases.close)
        task = asyncio.create_task(work())
        yield
        stopping.set()
        await task


async def test_workers_go_on_and_reads_never_go_back(settings: Settings, ledger: Ledger) -> None:
    await append(ledger, range(60))
    stopping = asyncio.Event()
    async with AsyncExitStack() as stack:
        store = open_books(settings)
        stack.push_async_callback(store.close)
        await store.register()
        for _ in range(2):
            await stack.enter_async_context(worker(settings, ledger, stopping))

        async def arrive() -> None:
            for number in range(60, 160):
                await append(ledger, range(number, number + 1))
                await asyncio.sleep(0.01)

        async def read() -> list[int]:
            seen = []
            while not stopping.is_set():
                positions = await store.read(store.positions)
                assert len(positions.books) == len(store.books)
                seen.append(positions.position)
                await asyncio.sleep(0.005)
            return seen

        arriving, reading = asyncio.create_task(arrive()), asyncio.create_task(read())
        old = (await store.read(store.positions)).books

        found = await rebuild(settings, ledger, store, now, processes=2)

        await arriving
        while (await store.read(store.positions)).position < 160 * EACH:  # noqa: ASYNC110 - others move it
            await asyncio.sleep(0.02)
        stopping.set()
        seen = await reading
        assert found.live
        assert {book.digest == book.live_digest for book in found.books} == {True}
        assert seen == sorted(seen)
        assert not set((await store.read(store.positions)).books.values()) & set(old.values())
        await verify_totals(store)
        straight = await begun(store)
        await Engine(ledger, straight, now).catch_up()
        assert await digests(straight) == await digests(store)


async def begun(store: BookStore) -> BookStore:
    return store.with_builds(await store.write(partial(builds.start_builds, store=store)))


async def test_no_statement_of_a_build_walks_a_table_that_grows(
    settings: Settings, ledger: Ledger, postgres: PostgresServer
) -> None:
    database = str(settings.database_url).rsplit("/", 1)[1]
    await append(ledger, range(300))
    store = open_books(settings)
    await store.register()
    await Engine(ledger, store, now).catch_up()
    postgres.sql("SELECT pg_stat_reset()", database)
    made = await begun(store)
    await fill_books(settings, ledger, made, 300 * EACH, processes=1)
    await digests(made)
    await store.close()
    found = [line.split()[0] for line in postgres.sql(WALKS, database).splitlines()]
    assert {re.sub(r"_\d+$", "", table) for table in found} & GROWING == set()

"""A rebuild: the same books, made another way, in the live ones' place; or none of it."""

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import date
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import select, update

from projections.book import Rules
from projections.mrr import MRR, Step
from service.books import tables
from service.books.digest import differences
from service.books.engine import Engine, Overtaken
from service.books.store import BookStore, lay_out_file
from service.bootstrap import books_beside
from service.core.errors import ParameterError, Unavailable
from service.ledger.append import head
from service.reads.snapshots import find, make_ready
from service.rebuild import builds, cutover
from service.rebuild import fill as bulk
from service.rebuild.cutover import rebuild
from service.rebuild.fill import build, unseen
from service.storage.database import SqliteDatabase, books_path
from service.verify.replay import digests
from service.verify.totals import verify_totals
from tests.books.lives import lives
from tests.books.shelf import new_shelf, now
from tests.books.test_lives import examples
from tests.books.told import event, invoice, item, payment, subscription

pytestmark = pytest.mark.usefixtures("each_store")

TODAY = date(2025, 11, 13)
TOLD = [
    told
    for n in range(12)
    for told in (
        event(
            subscription(item(1_000 + n), subscription_id=f"sub_{n}", customer_id=f"cus_{n % 3}"),
            "2025-01-10",
        ),
        event(invoice("paid", invoice_id=f"in_{n}", customer_id=f"cus_{n % 3}"), f"2025-02-{n + 1:02d}"),
        event(payment(payment_id=f"pi_{n}", customer_id=f"cus_{n % 3}"), f"2025-03-{n + 1:02d}"),
    )
]


def _contribute_a_cent_more(history, rules):
    return [replace(row, mrr_cents=row.mrr_cents + 1) for row in MRR.stages[0].contribute(history, rules)]


@pytest.fixture(autouse=True, scope="module")
def _in_small_pieces():
    """Pages, tasks and transactions so small that each test has many."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("_PAGE", 7), ("_TASK", 5), ("_ROWS", 3)):
            patch.setattr(bulk, name, size)
        yield


# The same book by name and version, whose first stage says something else.
OTHER = replace(MRR, stages=(replace(MRR.stages[0], contribute=_contribute_a_cent_more), *MRR.stages[1:]))


@asynccontextmanager
async def kept(told=TOLD):
    """A ledger of these events with books that have taken them in."""
    async with new_shelf() as shelf, shelf.store() as store:
        await shelf.tell(*told)
        yield shelf, store


def rebuilt(shelf, store, **how):
    return rebuild(shelf.settings, shelf.ledger, store, now, processes=1, **how)


async def ids(store) -> dict[str, int]:
    return (await store.read(store.positions)).books


async def rows(store, table, book_id):
    query = select(table).where(table.c.book == book_id).order_by(table.c.id)
    return await store.read(lambda connection: [tuple(row) for row in connection.execute(query)])


@given(st.data(), lives())
@examples(4)
def test_what_is_built_by_key_is_what_the_engine_makes_at_any_position(data, life):
    until = data.draw(st.integers(0, len(life.events)), label="until")
    asyncio.run(_what_is_built_by_key_is_what_the_engine_makes(life, until))


async def _what_is_built_by_key_is_what_the_engine_makes(life, until):
    async with new_shelf(Rules(reporting_tz=life.zone)) as shelf, shelf.store() as store:
        await shelf.append(life.events)
        await Engine(shelf.ledger, store, now).catch_up(until)
        made = store.of(await store.write(partial(builds.begin, store=store)))
        await build(shelf.settings, shelf.ledger, made, until, processes=1)
        assert await digests(made) == await digests(store)

        # and what comes later finds nothing to tell them apart by
        for each in (made, store):
            await Engine(shelf.ledger, each, now).catch_up()
        assert await digests(made) == await digests(store)
        await verify_totals(made)


async def test_books_of_another_database_are_filled_as_well(tmp_path):
    async with kept() as (shelf, store):
        lay_out_file(tmp_path)
        other = BookStore(SqliteDatabase(books_path(tmp_path), "NORMAL"), store.rules, store.books)
        await other.register()
        await build(shelf.settings, shelf.ledger, other, len(TOLD), processes=1)
        assert await digests(other) == await digests(store)
        await other.close()


async def test_new_builds_take_the_live_ones_place_and_go_on(monkeypatch):
    monkeypatch.setattr(cutover, "_HOLD_SECONDS", 0)
    async with new_shelf() as shelf, shelf.store() as store:
        await shelf.append(TOLD)
        busy = Engine(shelf.ledger, store, now)
        assert await busy.advance() == len(TOLD)
        before, old = await digests(store), await ids(store)

        found = await rebuilt(shelf, store)

        assert found.live
        assert found.position == len(TOLD)
        assert {book.name: (book.live, book.digest, book.live_digest) for book in found.books} == {
            name: (old[name], value, value) for name, value in before.items()
        }
        assert await ids(store) == {book.name: book.build for book in found.books}
        assert await digests(store) == before
        # and an engine that was busy with the old ones can't write them any more, and goes on with the new
        await shelf.append([event(payment(payment_id="pi_later"), "2025-04-01")])
        with pytest.raises(Overtaken):
            await busy.advance()
        assert await busy.catch_up() == 1
        assert await digests(store) != before
        assert await digests(store.of(old)) == before
        await verify_totals(store)


async def test_a_fold_that_changed_without_its_version_is_told_and_not_switched_to():
    async with kept() as (shelf, store):
        old, before = await ids(store), await digests(store)
        async with shelf.store(books=(OTHER,)) as changed:
            found = await rebuilt(shelf, changed)

            assert not found.live
            (mrr,) = found.books
            assert mrr.live_digest == before["mrr"] != mrr.digest
            steps = [unlike for unlike in mrr.differences if unlike.table == "mrr_steps"]
            assert [unlike.key for unlike in steps] == sorted(
                f"subscription|stripe||sub_{n}" for n in range(12)
            )
            assert steps[0].right[0]["mrr_cents"] == steps[0].left[0]["mrr_cents"] + 1
            assert {unlike.table for unlike in mrr.differences} >= {"mrr_steps", "mrr_movements", "mrr_days"}
            assert (await ids(store), await digests(store)) == (old, before)

            assert (await rebuilt(shelf, changed, accept=True)).live
        assert (await digests(store))["mrr"] == mrr.digest
        assert {name: old[name] for name in old if name != "mrr"}.items() <= (await ids(store)).items()


@pytest.mark.parametrize("faulty", ["child_rows_of", "add_to"])
async def test_a_fault_in_the_bulk_path_is_no_live_book_s(monkeypatch, faulty):
    def all_but_one(*args, right=bulk.child_rows_of, **named):
        return {key: rows[1:] for key, rows in right(*args, **named).items()}

    def add_nothing(*_args):
        pass

    async with kept() as (shelf, store):
        old = await ids(store)
        monkeypatch.setattr(bulk, faulty, {"child_rows_of": all_but_one, "add_to": add_nothing}[faulty])
        found = await rebuilt(shelf, store)
        assert not found.live
        assert any(book.differences for book in found.books)
        assert await ids(store) == old


async def test_a_document_of_the_old_books_is_not_found_for_the_new_ones():
    async with kept() as (shelf, store):
        await make_ready(store, TODAY)
        version = (await store.read(store.positions)).version
        async with shelf.store(books=(OTHER,)) as changed:
            await rebuilt(shelf, changed, accept=True)
        after = (await store.read(store.positions)).version
        assert after > version
        names = tables.snapshots.c.name
        kept_names = await store.read(lambda c: c.execute(select(names)).scalars().all())
        assert kept_names
        assert not any([await store.read(partial(find, name=name, version=after)) for name in kept_names])
        assert await make_ready(store, TODAY) == len(kept_names)
        # and each later change still gives another
        await shelf.tell(event(subscription(item(5), subscription_id="sub_x"), "2025-05-01"))
        assert (await store.read(store.positions)).version > after


async def test_an_engine_does_not_pass_where_the_books_are_held_until_the_time_is_over():
    async with kept() as (shelf, store):
        made = await store.write(partial(builds.begin, store=store))
        await shelf.append([event(payment(payment_id=f"pi_later_{n}"), "2025-04-01") for n in range(2)])
        await Engine(shelf.ledger, store.of(made), now).catch_up(len(TOLD) + 1)
        at = await store.write(partial(builds.hold, store=store, builds=made, seconds=60))
        assert at == len(TOLD) + 1
        engine = Engine(shelf.ledger, store, now)
        for _ in range(2):
            with pytest.raises(Overtaken):
                await engine.catch_up()
        assert (await store.read(store.positions)).position == at
        assert await engine.advance(at) == 0
        over = update(tables.checkpoints).values(
            held_until_us=tables.checkpoints.c.held_until_us - 61_000_000
        )
        await store.write(lambda connection: connection.execute(over))
        assert await engine.catch_up() == 1


async def test_an_engine_in_the_middle_of_a_step_that_is_then_held_goes_up_to_there_only():
    async with kept() as (shelf, store):
        made = await store.write(partial(builds.begin, store=store))
        await shelf.append([event(payment(payment_id=f"pi_{n}"), "2025-04-01") for n in range(100, 104)])
        engine, write = Engine(shelf.ledger, store, now), store.write

        async def write_when_held(change):
            store.write = write
            await Engine(shelf.ledger, store, now).catch_up(len(TOLD) + 2)
            await store.write(partial(builds.hold, store=store, builds=made, seconds=60))
            return await write(change)

        slow = Engine(shelf.ledger, store, now)
        await slow.catch_up(len(TOLD))
        store.write = write_when_held
        with pytest.raises(Overtaken):
            await slow.advance()
        with pytest.raises(Overtaken):
            await engine.catch_up()
        assert (await store.read(store.positions)).position == len(TOLD) + 2


async def test_nothing_is_switched_to_that_lacks_what_is_read():
    async with kept() as (_, store):
        old = await ids(store)
        made = await store.write(partial(builds.begin, store=store))
        with pytest.raises(Overtaken):
            await store.write(partial(builds.switch, store=store, builds=made))
        assert await ids(store) == old
        assert await store.read(partial(store.held, books=old)) is None


async def test_a_version_that_nobody_has_kept_becomes_live_beside_the_earlier_one():
    async with kept() as (shelf, store):
        old = await ids(store)
        raised = replace(MRR, version=MRR.version + 1)
        async with books_of(shelf, raised) as risen:
            found = await rebuilt(shelf, risen)
            assert found.live
            assert [(book.live, book.live_digest, book.differences) for book in found.books] == [
                (None, None, [])
            ]
            assert (await ids(risen)).keys() == {"mrr"}
            assert (await risen.read(risen.positions)).position == len(TOLD)
            assert await ids(store) == old  # for what still runs of the earlier version
            removed = await builds.prune(risen, unseen)
            assert [(each.version, each.build) for each in removed] == [(MRR.version, old["mrr"])]
            assert (await ids(risen)).keys() == {"mrr"}


async def test_a_version_whose_processes_start_meanwhile_is_not_waited_for():
    async with kept() as (shelf, _), books_of(shelf, replace(MRR, version=MRR.version + 1)) as risen:
        write = risen.write

        async def write_and_start(change):
            risen.write = write
            done = await write(change)
            await risen.register()
            return done

        risen.write = write_and_start
        found = await rebuilt(shelf, risen)
        assert found.live
        assert [book.live for book in found.books] == [None]
        assert await ids(risen) == {"mrr": found.books[0].build}
        assert len(await builds.prune(risen, unseen)) == 2


@asynccontextmanager
async def books_of(shelf, *books):
    """Books that nobody has registered."""
    async with books_beside(shelf.settings, ["mrr"]) as (_, store):
        yield BookStore(store._database, store.rules, books, store.partitions)


async def test_what_is_not_live_is_removed_with_all_of_its_rows_and_no_id_comes_again():
    async with kept() as (shelf, store):
        old, before = await ids(store), await digests(store)
        await rebuilt(shelf, store)
        killed = await store.write(partial(builds.begin, store=store))
        live = await ids(store)
        removed = await builds.prune(store, unseen)
        assert {each.build for each in removed} == {*old.values(), *killed.values()}
        assert sum(each.rows for each in removed) > len(TOLD)
        for table in (*tables.ROWS.values(), *tables.TOTALS.values(), tables.checkpoints, tables.key_locks):
            query = select(table.c.book).distinct()
            found = await store.read(
                lambda connection, query=query: connection.execute(query).scalars().all()
            )
            assert not set(found) - {*live.values(), *(await of_policies(store))}
        assert (await ids(store), await digests(store)) == (live, before)
        assert await builds.prune(store, unseen) == []
        again = await store.write(partial(builds.begin, store=store))
        assert min(again.values()) > max(killed.values())


async def of_policies(store) -> list[int]:
    query = select(tables.books.c.id).where(tables.books.c.name.like("%:%"))
    return await store.read(lambda connection: connection.execute(query).scalars().all())


async def test_what_was_removed_while_it_was_built_is_not_written():
    async with kept() as (shelf, store):
        made = store.of(await store.write(partial(builds.begin, store=store)))
        read = shelf.ledger.read

        async def read_when_removed(query):
            await builds.prune(store, unseen)
            return await read(query)

        shelf.ledger.read = read_when_removed
        with pytest.raises(Overtaken):
            await build(shelf.settings, shelf.ledger, made, len(TOLD), processes=1)


async def test_live_books_that_are_behind_are_caught_up_or_left_if_the_operator_says_so(monkeypatch):
    async with kept() as (shelf, store):
        await shelf.append([event(payment(payment_id=f"pi_{n}"), "2025-04-01") for n in range(100, 130)])
        assert (await rebuilt(shelf, store)).position == len(TOLD) + 30

        monkeypatch.setattr("service.rebuild.cutover._FAR", 20)
        await shelf.append([event(payment(payment_id=f"pi_{n}"), "2025-05-01") for n in range(200, 230)])
        found = await rebuilt(shelf, store, accept=True)
        assert found.live
        assert {book.live_digest for book in found.books} == {None}
        assert (await store.read(store.positions)).position == len(TOLD) + 60


async def test_events_that_arrive_meanwhile_are_in_the_new_books():
    async with kept() as (shelf, store):
        worker = Engine(shelf.ledger, store, now)
        write, late = (
            store.write,
            [event(payment(payment_id=f"pi_{n}"), "2025-04-01") for n in range(100, 200)],
        )

        async def write_as_more_arrives(change):
            if late:
                await shelf.append([late.pop(), late.pop()])
                store.write = write
                with suppress(Overtaken):
                    await worker.catch_up()
                store.write = write_as_more_arrives
            return await write(change)

        store.write = write_as_more_arrives
        found = await rebuilt(shelf, store)
        store.write = write
        await worker.catch_up()
        assert found.live
        assert len(late) < 100
        assert len(TOLD) < found.position <= (await shelf.ledger.read(head)).position
        await verify_totals(store)
        straight = store.of(await store.write(partial(builds.begin, store=store)))
        await Engine(shelf.ledger, straight, now).catch_up()
        assert await digests(store) == await digests(straight)


async def test_books_that_did_not_wait_are_not_compared_but_met_again(monkeypatch):
    async with kept() as (shelf, store):
        right = cutover._Cutover._advance
        later = [event(payment(payment_id=f"pi_later_{n}"), "2025-04-01") for n in range(2)]

        async def advance_and_be_overtaken(self, live, at):
            await right(self, live, at)
            if later:
                await shelf.append([later.pop()])
                await Engine(shelf.ledger, store, now).catch_up()

        monkeypatch.setattr(cutover, "_HOLD_SECONDS", 0)
        monkeypatch.setattr(cutover._Cutover, "_advance", advance_and_be_overtaken)
        found = await rebuilt(shelf, store)
        assert (found.live, found.position) == (True, len(TOLD) + 2)


async def test_one_rebuild_at_a_time():
    async with kept() as (shelf, _), books_beside(shelf.settings, []):
        with pytest.raises(Unavailable):
            async with books_beside(shelf.settings, []):
                pass


async def test_only_books_that_there_are():
    async with kept() as (shelf, _):
        with pytest.raises(ParameterError, match=r"mrr:stripe"):
            async with books_beside(shelf.settings, ["mrrr"]):
                pass


async def test_two_books_of_two_databases_are_told_apart_by_their_keys():
    async with (
        kept() as (_, store),
        kept(TOLD[3:]) as (_, other),
        store.reading() as one,
        other.reading() as two,
    ):
        mine, theirs = (one, (await ids(store))["mrr"]), (two, (await ids(other))["mrr"])
        assert await differences(MRR, mine, mine) == []
        found = await differences(MRR, mine, theirs)
        (step,) = [unlike for unlike in found if unlike.table == Step.table]
        assert (step.key, len(step.left), step.right) == ("subscription|stripe||sub_0", 1, [])
        named = {unlike.table for unlike in found}
        assert named == {"mrr_steps", "mrr_movements", "mrr_days", "movement_days"}
        assert len(await differences(MRR, mine, theirs, limit=1)) == 4

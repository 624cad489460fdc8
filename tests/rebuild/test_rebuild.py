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
from projections.mrr import MRR, Step, step_rows
from service.books import tables
from service.books.digest import differences
from service.books.engine import Engine, Overtaken
from service.books.store import BookStore, lay_out_file
from service.bootstrap import books_for_rebuild
from service.core.errors import ParameterError, Unavailable
from service.core.progress import no_progress
from service.ledger.append import read_head
from service.reads.snapshots import find, precompute
from service.rebuild import builds, cutover
from service.rebuild import fill as bulk
from service.rebuild.cutover import rebuild
from service.rebuild.fill import fill_books
from service.storage.database import SqliteDatabase, books_path
from service.verify.replay import digests
from service.verify.totals import verify_totals
from tests.support.effort import examples
from tests.support.events import event, invoice, item, payment, subscription
from tests.support.random_scenarios import scenarios
from tests.support.temporary_books import new_books, now

pytestmark = pytest.mark.usefixtures("each_store")

TODAY = date(2025, 11, 13)
EVENTS = [
    events
    for n in range(12)
    for events in (
        event(
            subscription(item(1_000 + n), subscription_id=f"sub_{n}", customer_id=f"cus_{n % 3}"),
            "2025-01-10",
        ),
        event(invoice("paid", invoice_id=f"in_{n}", customer_id=f"cus_{n % 3}"), f"2025-02-{n + 1:02d}"),
        event(payment(payment_id=f"pi_{n}", customer_id=f"cus_{n % 3}"), f"2025-03-{n + 1:02d}"),
    )
]


def _contribute_a_cent_more(rows, rules):
    return [replace(step, mrr_cents=step.mrr_cents + 1) for step in step_rows(rows, rules)]


@pytest.fixture(autouse=True, scope="module")
def _in_small_pieces():
    """Pages, tasks and transactions so small that each test has many."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("_KEYS_PER_PAGE", 7), ("_READS_PER_TASK", 5), ("_ROWS_PER_TRANSACTION", 3)):
            patch.setattr(bulk, name, size)
        yield


# The same book by name and version, whose stage of steps says something else.
OTHER = replace(
    MRR,
    stages=tuple(
        replace(stage, contribute=_contribute_a_cent_more) if stage.contribute is step_rows else stage
        for stage in MRR.stages
    ),
)


@asynccontextmanager
async def filled_books(events=EVENTS):
    """A ledger of these events with books that have taken them in."""
    async with new_books() as books, books.store() as store:
        await books.record(*events)
        yield books, store


def rebuilt(books, store, **how):
    return rebuild(books.settings, books.ledger, store, now, processes=1, **how)


async def ids(store) -> dict[str, int]:
    return (await store.read(store.positions)).books


async def rows(store, table, book_id):
    query = select(table).where(table.c.book == book_id).order_by(table.c.id)
    return await store.read(lambda connection: [tuple(row) for row in connection.execute(query)])


@given(st.data(), scenarios())
@examples(4)
def test_what_is_built_by_key_is_what_the_engine_makes_at_any_position(data, scenario):
    until = data.draw(st.integers(0, len(scenario.events)), label="until")
    asyncio.run(_what_is_built_by_key_is_what_the_engine_makes(scenario, until))


async def _what_is_built_by_key_is_what_the_engine_makes(scenario, until):
    async with new_books(Rules(reporting_tz=scenario.zone)) as books, books.store() as store:
        await books.append(scenario.events)
        await Engine(books.ledger, store, now).catch_up(until)
        made = store.with_builds(await store.write(partial(builds.start_builds, store=store)))
        await fill_books(books.settings, books.ledger, made, until, processes=1)
        assert await digests(made) == await digests(store)

        # and what comes later finds nothing to tell them apart by
        for each in (made, store):
            await Engine(books.ledger, each, now).catch_up()
        assert await digests(made) == await digests(store)
        await verify_totals(made)


async def test_books_of_another_database_are_filled_as_well(tmp_path):
    async with filled_books() as (books, store):
        lay_out_file(tmp_path)
        other = BookStore(SqliteDatabase(books_path(tmp_path), "NORMAL"), store.rules, store.books)
        await other.register()
        await fill_books(books.settings, books.ledger, other, len(EVENTS), processes=1)
        assert await digests(other) == await digests(store)
        await other.close()


async def test_new_builds_take_the_live_ones_place_and_go_on(monkeypatch):
    monkeypatch.setattr(cutover, "_HOLD_SECONDS", 0)
    async with new_books() as books, books.store() as store:
        await books.append(EVENTS)
        busy = Engine(books.ledger, store, now)
        assert await busy.advance() == len(EVENTS)
        before, old = await digests(store), await ids(store)

        found = await rebuilt(books, store)

        assert found.live
        assert found.position == len(EVENTS)
        assert {book.name: (book.live, book.digest, book.live_digest) for book in found.books} == {
            name: (old[name], value, value) for name, value in before.items()
        }
        assert await ids(store) == {book.name: book.build for book in found.books}
        assert await digests(store) == before
        # and an engine that was busy with the old ones can't write them any more, and goes on with the new
        await books.append([event(payment(payment_id="pi_later"), "2025-04-01")])
        with pytest.raises(Overtaken):
            await busy.advance()
        assert await busy.catch_up() == 1
        assert await digests(store) != before
        assert await digests(store.with_builds(old)) == before
        await verify_totals(store)


async def test_a_fold_that_changed_without_its_version_is_told_and_not_switched_to():
    async with filled_books() as (books, store):
        old, before = await ids(store), await digests(store)
        async with books.store(books=(OTHER,)) as changed:
            found = await rebuilt(books, changed)

            assert not found.live
            (mrr,) = found.books
            assert mrr.live_digest == before["mrr"] != mrr.digest
            steps = [unlike for unlike in mrr.differences if unlike.table == "mrr_steps"]
            assert [unlike.key for unlike in steps] == [f"stripe||cus_{n}" for n in range(3)]
            assert [len(unlike.left) for unlike in steps] == [4, 4, 4]
            assert steps[0].right[0]["mrr_cents"] == steps[0].left[0]["mrr_cents"] + 1
            assert {unlike.table for unlike in mrr.differences} >= {"mrr_steps", "mrr_movements", "mrr_days"}
            assert (await ids(store), await digests(store)) == (old, before)

            assert (await rebuilt(books, changed, accept=True)).live
        assert (await digests(store))["mrr"] == mrr.digest
        assert {name: old[name] for name in old if name != "mrr"}.items() <= (await ids(store)).items()


@pytest.mark.parametrize("faulty", ["read_children", "add_rows_to_sums"])
async def test_a_fault_in_the_bulk_path_is_no_live_book_s(monkeypatch, faulty):
    def all_but_one(*args, right=bulk.read_children, **named):
        return {key: rows[1:] for key, rows in right(*args, **named).items()}

    def add_nothing(*_args):
        pass

    async with filled_books() as (books, store):
        old = await ids(store)
        monkeypatch.setattr(
            bulk, faulty, {"read_children": all_but_one, "add_rows_to_sums": add_nothing}[faulty]
        )
        found = await rebuilt(books, store)
        assert not found.live
        assert any(book.differences for book in found.books)
        assert await ids(store) == old


async def test_a_document_of_the_old_books_is_not_found_for_the_new_ones():
    async with filled_books() as (books, store):
        await precompute(store, TODAY)
        version = (await store.read(store.positions)).version
        async with books.store(books=(OTHER,)) as changed:
            await rebuilt(books, changed, accept=True)
        after = (await store.read(store.positions)).version
        assert after > version
        names = tables.snapshots.c.name
        kept_names = await store.read(lambda c: c.execute(select(names)).scalars().all())
        assert kept_names
        assert not any([await store.read(partial(find, name=name, version=after)) for name in kept_names])
        assert await precompute(store, TODAY) == len(kept_names)
        # and each later change still gives another
        await books.record(event(subscription(item(5), subscription_id="sub_x"), "2025-05-01"))
        assert (await store.read(store.positions)).version > after


async def test_an_engine_does_not_pass_where_the_books_are_held_until_the_time_is_over():
    async with filled_books() as (books, store):
        made = await store.write(partial(builds.start_builds, store=store))
        await books.append([event(payment(payment_id=f"pi_later_{n}"), "2025-04-01") for n in range(2)])
        await Engine(books.ledger, store.with_builds(made), now).catch_up(len(EVENTS) + 1)
        at = await store.write(partial(builds.hold_live_books, store=store, builds=made, seconds=60))
        assert at == len(EVENTS) + 1
        engine = Engine(books.ledger, store, now)
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
    async with filled_books() as (books, store):
        made = await store.write(partial(builds.start_builds, store=store))
        await books.append([event(payment(payment_id=f"pi_{n}"), "2025-04-01") for n in range(100, 104)])
        engine, write = Engine(books.ledger, store, now), store.write

        async def write_when_held(change):
            store.write = write
            await Engine(books.ledger, store, now).catch_up(len(EVENTS) + 2)
            await store.write(partial(builds.hold_live_books, store=store, builds=made, seconds=60))
            return await write(change)

        slow = Engine(books.ledger, store, now)
        await slow.catch_up(len(EVENTS))
        store.write = write_when_held
        with pytest.raises(Overtaken):
            await slow.advance()
        with pytest.raises(Overtaken):
            await engine.catch_up()
        assert (await store.read(store.positions)).position == len(EVENTS) + 2


async def test_a_build_that_is_behind_does_not_become_live():
    async with filled_books() as (_, store):
        old = await ids(store)
        made = await store.write(partial(builds.start_builds, store=store))
        with pytest.raises(Overtaken):
            await store.write(partial(builds.make_live, store=store, builds=made))
        assert await ids(store) == old
        assert await store.read(partial(store.held_position, books=old)) is None


async def test_a_version_that_nobody_has_kept_becomes_live_beside_the_earlier_one():
    async with filled_books() as (books, store):
        old = await ids(store)
        raised = replace(MRR, version=MRR.version + 1)
        async with open_some(books, raised) as risen:
            found = await rebuilt(books, risen)
            assert found.live
            assert [(book.live, book.live_digest, book.differences) for book in found.books] == [
                (None, None, [])
            ]
            assert (await ids(risen)).keys() == {"mrr"}
            assert (await risen.read(risen.positions)).position == len(EVENTS)
            assert await ids(store) == old  # for what still runs of the earlier version
            removed = await builds.prune(risen, no_progress)
            assert [(each.version, each.build) for each in removed] == [(MRR.version, old["mrr"])]
            assert (await ids(risen)).keys() == {"mrr"}


async def test_a_version_whose_processes_start_meanwhile_is_not_waited_for():
    async with filled_books() as (books, _), open_some(books, replace(MRR, version=MRR.version + 1)) as risen:
        write = risen.write

        async def write_and_start(change):
            risen.write = write
            done = await write(change)
            await risen.register()
            return done

        risen.write = write_and_start
        found = await rebuilt(books, risen)
        assert found.live
        assert [book.live for book in found.books] == [None]
        assert await ids(risen) == {"mrr": found.books[0].build}
        assert len(await builds.prune(risen, no_progress)) == 2


@asynccontextmanager
async def open_some(books, *chosen):
    """Books that nobody has registered."""
    async with books_for_rebuild(books.settings, ["mrr"]) as (_, store):
        yield BookStore(store._database, store.rules, chosen, store.partitions)


async def test_builds_that_are_not_live_are_removed_with_their_rows_and_no_id_comes_again():
    async with filled_books() as (books, store):
        old, before = await ids(store), await digests(store)
        await rebuilt(books, store)
        killed = await store.write(partial(builds.start_builds, store=store))
        live = await ids(store)
        removed = await builds.prune(store, no_progress)
        assert {each.build for each in removed} == {*old.values(), *killed.values()}
        assert sum(each.rows for each in removed) > len(EVENTS)
        for table in (*tables.ROWS.values(), *tables.TOTALS.values(), tables.checkpoints, tables.key_locks):
            query = select(table.c.book).distinct()
            found = await store.read(
                lambda connection, query=query: connection.execute(query).scalars().all()
            )
            assert not set(found) - {*live.values(), *(await of_policies(store))}
        assert (await ids(store), await digests(store)) == (live, before)
        assert await builds.prune(store, no_progress) == []
        again = await store.write(partial(builds.start_builds, store=store))
        assert min(again.values()) > max(killed.values())


async def of_policies(store) -> list[int]:
    query = select(tables.books.c.id).where(tables.books.c.name.like("%:%"))
    return await store.read(lambda connection: connection.execute(query).scalars().all())


async def test_a_build_that_was_removed_meanwhile_is_not_written():
    async with filled_books() as (books, store):
        made = store.with_builds(await store.write(partial(builds.start_builds, store=store)))
        read = books.ledger.read

        async def read_when_removed(query):
            await builds.prune(store, no_progress)
            return await read(query)

        books.ledger.read = read_when_removed
        with pytest.raises(Overtaken):
            await fill_books(books.settings, books.ledger, made, len(EVENTS), processes=1)


async def test_live_books_that_are_behind_are_caught_up_or_left_if_the_operator_says_so(monkeypatch):
    async with filled_books() as (books, store):
        await books.append([event(payment(payment_id=f"pi_{n}"), "2025-04-01") for n in range(100, 130)])
        assert (await rebuilt(books, store)).position == len(EVENTS) + 30

        monkeypatch.setattr("service.rebuild.cutover._FAR_EVENTS", 20)
        await books.append([event(payment(payment_id=f"pi_{n}"), "2025-05-01") for n in range(200, 230)])
        found = await rebuilt(books, store, accept=True)
        assert found.live
        assert {book.live_digest for book in found.books} == {None}
        assert (await store.read(store.positions)).position == len(EVENTS) + 60


async def test_events_that_arrive_meanwhile_are_in_the_new_books():
    async with filled_books() as (books, store):
        worker = Engine(books.ledger, store, now)
        write, late = (
            store.write,
            [event(payment(payment_id=f"pi_{n}"), "2025-04-01") for n in range(100, 200)],
        )

        async def write_as_more_arrives(change):
            if late:
                await books.append([late.pop(), late.pop()])
                store.write = write
                with suppress(Overtaken):
                    await worker.catch_up()
                store.write = write_as_more_arrives
            return await write(change)

        store.write = write_as_more_arrives
        found = await rebuilt(books, store)
        store.write = write
        await worker.catch_up()
        assert found.live
        assert len(late) < 100
        assert len(EVENTS) < found.position <= (await books.ledger.read(read_head)).position
        await verify_totals(store)
        straight = store.with_builds(await store.write(partial(builds.start_builds, store=store)))
        await Engine(books.ledger, straight, now).catch_up()
        assert await digests(store) == await digests(straight)


async def test_books_that_did_not_wait_are_not_compared_but_met_again(monkeypatch):
    async with filled_books() as (books, store):
        right = cutover._Cutover._advance_live
        later = [event(payment(payment_id=f"pi_later_{n}"), "2025-04-01") for n in range(2)]

        async def advance_and_be_overtaken(self, live, at):
            await right(self, live, at)
            if later:
                await books.append([later.pop()])
                await Engine(books.ledger, store, now).catch_up()

        monkeypatch.setattr(cutover, "_HOLD_SECONDS", 0)
        monkeypatch.setattr(cutover._Cutover, "_advance_live", advance_and_be_overtaken)
        found = await rebuilt(books, store)
        assert (found.live, found.position) == (True, len(EVENTS) + 2)


async def test_one_rebuild_at_a_time():
    async with filled_books() as (books, _), books_for_rebuild(books.settings, []):
        with pytest.raises(Unavailable):
            async with books_for_rebuild(books.settings, []):
                pass


async def test_an_unknown_book_can_not_be_rebuilt():
    async with filled_books() as (books, _):
        with pytest.raises(ParameterError, match=r"mrr:stripe"):
            async with books_for_rebuild(books.settings, ["mrrr"]):
                pass


async def test_two_books_of_two_databases_are_told_apart_by_their_keys():
    async with (
        filled_books() as (_, store),
        filled_books(EVENTS[3:]) as (_, other),
        store.reading() as one,
        other.reading() as two,
    ):
        mine, theirs = (one, (await ids(store))["mrr"]), (two, (await ids(other))["mrr"])
        assert await differences(MRR, mine, mine) == []
        found = await differences(MRR, mine, theirs)
        (step,) = [unlike for unlike in found if unlike.table == Step.table]
        assert (step.key, len(step.left), step.right) == ("stripe||cus_0", 1, [])
        named = {unlike.table for unlike in found}
        assert named == {
            *("contract_starts", "contract_states", "mrr_steps", "mrr_movements"),
            *("mrr_days", "movement_days"),
        }
        assert len(await differences(MRR, mine, theirs, limit=1)) == 6

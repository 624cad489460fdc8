"""Builds of books: a book has one live build, and may have others. They are started, made live, and removed.

The functions that take a connection run in a write transaction.
"""

import time
from asyncio import sleep
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Connection,
    Table,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)

from service.books import tables
from service.books.engine import Overtaken
from service.books.store import BookStore, add_checkpoints
from service.core.progress import Advance, Progress
from service.storage.statements import POSTGRESQL, HotStatement, now_us

_FOREVER_US = 1 << 62
_ROWS_PER_TRANSACTION = 2_000  # to remove in one transaction
_PAUSE = 0.5  # after each transaction, as a share of its time: a live worker writes meanwhile

_FILLED_TABLES = (*tables.ROWS.values(), *tables.TOTALS.values(), tables.key_locks)
_BUILD_TABLES = (*_FILLED_TABLES, tables.checkpoints)
_b, _c = tables.books.c, tables.checkpoints.c
_SET_HOLD = HotStatement(
    lambda dialect: (
        update(tables.checkpoints)
        .values(held=bindparam("at"), held_until_us=now_us(dialect) + bindparam("for_us", type_=BigInteger))
        .where(_c.book == bindparam("of_book"))
    )
)


def start_builds(connection: Connection, store: BookStore) -> dict[str, int]:
    """Add an empty build of each book of the store, which is not live; their ids by name."""
    query = insert(tables.books).returning(_b.id)
    ids = {
        name: connection.execute(
            query, {"name": name, "version": version, "rules": rules, "live": False}
        ).scalar_one()
        for name, version, rules in sorted(store.versions)
    }
    add_checkpoints(connection, list(ids.values()), store.partitions)
    return ids


def hold_live_books(
    connection: Connection, store: BookStore, builds: Mapping[str, int], seconds: float
) -> int:
    """Hold the live books of these builds at the highest position of any partition of both; that position.

    After so many seconds they go on by themselves, in case the holding process is killed.
    """
    _lock_checkpoints(connection)
    live = _live_books(connection, store, builds)
    highest = select(func.max(_c.position)).where(_c.book.in_([*live.values(), *builds.values()]))
    position = int(connection.execute(highest).scalar_one())
    for book_id in live.values():
        _SET_HOLD.run(connection, position, round(seconds * 1e6), book_id)
    return position


def release_live_books(connection: Connection, store: BookStore, builds: Mapping[str, int]) -> None:
    """Let the live books of these builds move on."""
    _lock_checkpoints(connection)
    for book_id in _live_books(connection, store, builds).values():
        _SET_HOLD.run(connection, 0, 0, book_id)


def make_live(connection: Connection, store: BookStore, builds: Mapping[str, int]) -> dict[str, int]:
    """Make these builds live in place of the live ones, which never move again; return the replaced ones.

    Raises Overtaken, and changes nothing, if any partition of a live one is ahead of that of its build.
    """
    _lock_checkpoints(connection)
    live = _live_books(connection, store, builds)
    for book_id in live.values():
        _SET_HOLD.run(connection, 0, _FOREVER_US, book_id)
    live_positions, new_positions = (store.checkpoints(connection, ids) for ids in (live, dict(builds)))
    if any(position > new_positions[unit] for unit, position in live_positions.items()):
        raise Overtaken("the live books have moved on")
    version_by_id = _versions(connection, [*live.values(), *builds.values()])
    connection.execute(update(tables.books).where(_b.id.in_(live.values())).values(live=False))
    for name, book_id in builds.items():
        base = version_by_id[live[name]] + 1 - version_by_id[book_id] if name in live else 0
        connection.execute(update(tables.books).where(_b.id == book_id).values(live=True, base=base))
    return live


def _lock_checkpoints(connection: Connection) -> None:
    """Wait for the transactions that move books at the moment, and let none begin to until this one ends.

    Two that lock checkpoints row by row, each in an order of its own, could wait for each other.
    """
    if connection.dialect.name == POSTGRESQL:  # SQLite has one writer at a time
        connection.exec_driver_sql(f"LOCK TABLE {tables.checkpoints.name} IN SHARE ROW EXCLUSIVE MODE")


def _live_books(connection: Connection, store: BookStore, builds: Mapping[str, int]) -> dict[str, int]:
    """The ids of the live books of these builds, by name, in the order in which an engine moves them."""
    live = store.positions(connection).books
    return {book.name: live[book.name] for book in store.books if book.name in live and book.name in builds}


def _versions(connection: Connection, ids: list[int]) -> dict[int, int]:
    query = select(_c.book, cast(func.sum(_c.changed) + func.max(_b.base), BigInteger))
    joined = query.join_from(tables.checkpoints, tables.books, _c.book == _b.id)
    return dict(connection.execute(joined.where(_c.book.in_(ids)).group_by(_c.book)).all())


class RemovedBuild(Struct, frozen=True, kw_only=True):
    """A removed build, and the number of its rows."""

    name: str
    version: int
    build: int
    rows: int


async def prune(store: BookStore, progress: Progress) -> list[RemovedBuild]:
    """Remove every build of these books that is not live, and live ones of earlier versions.

    Live builds under other rules stay: they are the books of other settings. No build may be made meanwhile.
    """
    removed = []
    for build, name, version in await store.read(lambda connection: _unneeded(connection, store)):
        async with store.reading() as view:
            size = await view.run_sync(_count_rows, build)
        with progress(f"removing {name}, build {build}", size) as advance:
            rows = await _remove(store, build, advance)
        removed.append(RemovedBuild(name=name, version=version, build=build, rows=rows))
    return removed


def _unneeded(connection: Connection, store: BookStore) -> list[tuple[int, str, int]]:
    current = {(name, rules): version for name, version, rules in store.versions}
    names = {name for name, _ in current}
    query = select(_b.id, _b.name, _b.version, _b.rules, _b.live).order_by(_b.id)
    return [
        (row.id, row.name, row.version)
        for row in connection.execute(query)
        if row.name in names and (not row.live or row.version < current.get((row.name, row.rules), 0))
    ]


def _count_rows(connection: Connection, build: int) -> int:
    counts = (select(func.count()).select_from(table).where(table.c.book == build) for table in _BUILD_TABLES)
    return sum(connection.execute(query).scalar_one() for query in counts)


async def _remove(store: BookStore, build: int, advance: Advance) -> int:
    """Remove a build's rows, some at a time, then the build itself; the number of rows."""
    count = await _remove_rows(store, build, _BUILD_TABLES, advance)
    await store.write(lambda connection: connection.execute(delete(tables.books).where(_b.id == build)))
    return count


async def remove_rows(store: BookStore, build: int, advance: Advance) -> None:
    """Make a build as it was when it was started."""
    await _remove_rows(store, build, _FILLED_TABLES, advance)


async def _remove_rows(store: BookStore, build: int, of_tables: Iterable[Table], advance: Advance) -> int:
    count = 0
    for table in of_tables:
        while removed := await _remove_some(store, table, build):
            advance(removed)
            count += removed
    return count


async def _remove_some(store: BookStore, table: Table, build: int) -> int:
    key = list(table.primary_key)
    batch = select(*key).where(table.c.book == build).limit(_ROWS_PER_TRANSACTION)
    query = delete(table).where(tuple_(*key).in_(batch), *([table.c.book == build] if len(key) > 1 else []))
    started = time.perf_counter()
    count: Any = await store.write(lambda connection: connection.execute(query).rowcount)
    await sleep(_PAUSE * (time.perf_counter() - started))
    return int(count)

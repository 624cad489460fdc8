"""Builds: several of one book, one of them live. Made, levelled with live ones, switched to, removed.

Plain functions on a connection of a write transaction, where nothing else is said.
"""

import time
from asyncio import sleep
from collections.abc import Mapping
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
from service.storage.statements import HotStatement, now_us

_FOREVER_US = 1 << 62
_ROWS = 2_000  # removed in one transaction
_REST = 0.5  # between two of them, of what the first took: a live worker's turn

_OF_BUILDS = (*tables.ROWS.values(), *tables.TOTALS.values(), tables.key_locks, tables.checkpoints)
_b, _c = tables.books.c, tables.checkpoints.c
_HOLD = HotStatement(
    lambda dialect: (
        update(tables.checkpoints)
        .values(held=bindparam("at"), held_until_us=now_us(dialect) + bindparam("for_us", type_=BigInteger))
        .where(_c.book == bindparam("of_book"))
    )
)


def begin(connection: Connection, store: BookStore) -> dict[str, int]:
    """A new build of each book of the store, empty and not live; their ids by name."""
    of = insert(tables.books).returning(_b.id)
    ids = {
        name: connection.execute(
            of, {"name": name, "version": version, "rules": rules, "live": False}
        ).scalar_one()
        for name, version, rules in sorted(store.versions)
    }
    add_checkpoints(connection, list(ids.values()), store.partitions)
    return ids


def hold(connection: Connection, store: BookStore, builds: Mapping[str, int], seconds: float) -> int:
    """Let no live book that these builds are of move past where the first of all is; that position.

    Each goes on by itself after so many seconds: whoever holds them may be killed.
    """
    live = _standing(connection, store, builds)
    for book_id in live.values():
        _HOLD.run(connection, 0, 0, book_id)  # whoever moves it just now ends first
    reached = select(func.max(_c.position)).where(_c.book.in_([*live.values(), *builds.values()]))
    at = int(connection.execute(reached).scalar_one())
    for book_id in live.values():
        _HOLD.run(connection, at, round(seconds * 1e6), book_id)
    return at


def release(connection: Connection, store: BookStore, builds: Mapping[str, int]) -> None:
    """Let the live books that these builds are of move on."""
    for book_id in _standing(connection, store, builds).values():
        _HOLD.run(connection, 0, 0, book_id)


def switch(connection: Connection, store: BookStore, builds: Mapping[str, int]) -> dict[str, int]:
    """Put these builds in the place of the live ones, which never move again; what was live.

    Raises Overtaken, and nothing is changed, if a live one holds more of any partition than its build.
    """
    live = _standing(connection, store, builds)
    for book_id in live.values():
        _HOLD.run(connection, 0, _FOREVER_US, book_id)
    standing, risen = (store.checkpoints(connection, ids) for ids in (live, dict(builds)))
    if any(position > risen[unit] for unit, position in standing.items()):
        raise Overtaken("the live books have moved on")
    version_of = _versions(connection, [*live.values(), *builds.values()])
    connection.execute(update(tables.books).where(_b.id.in_(live.values())).values(live=False))
    for name, book_id in builds.items():
        base = version_of[live[name]] + 1 - version_of[book_id] if name in live else 0
        connection.execute(update(tables.books).where(_b.id == book_id).values(live=True, base=base))
    return live


def _standing(connection: Connection, store: BookStore, builds: Mapping[str, int]) -> dict[str, int]:
    """The live books that builds are of, in the order in which an engine moves them."""
    live = store.positions(connection).books
    return {book.name: live[book.name] for book in store.books if book.name in live and book.name in builds}


def _versions(connection: Connection, ids: list[int]) -> dict[int, int]:
    query = select(_c.book, cast(func.sum(_c.changed) + func.max(_b.base), BigInteger))
    joined = query.join_from(tables.checkpoints, tables.books, _c.book == _b.id)
    return dict(connection.execute(joined.where(_c.book.in_(ids)).group_by(_c.book)).all())


class Removed(Struct, frozen=True, kw_only=True):
    """A build that is there no more, and how many rows of it."""

    name: str
    version: int
    build: int
    rows: int


async def prune(store: BookStore, progress: Progress) -> list[Removed]:
    """Remove every build of these books that is not live, and live ones of earlier versions.

    What is live under other rules stays: it is some other settings' book. Meanwhile nothing may be built.
    """
    removed = []
    for build, name, version in await store.read(lambda connection: _unneeded(connection, store)):
        async with store.reading() as view:
            size = await view.run_sync(_size, build)
        with progress(f"removing {name}, build {build}", size) as advance:
            rows = await _remove(store, build, advance)
        removed.append(Removed(name=name, version=version, build=build, rows=rows))
    return removed


def _unneeded(connection: Connection, store: BookStore) -> list[tuple[int, str, int]]:
    kept = {(name, rules): version for name, version, rules in store.versions}
    names = {name for name, _ in kept}
    query = select(_b.id, _b.name, _b.version, _b.rules, _b.live).order_by(_b.id)
    return [
        (row.id, row.name, row.version)
        for row in connection.execute(query)
        if row.name in names and (not row.live or row.version < kept.get((row.name, row.rules), 0))
    ]


def _size(connection: Connection, build: int) -> int:
    counts = (select(func.count()).select_from(table).where(table.c.book == build) for table in _OF_BUILDS)
    return sum(connection.execute(query).scalar_one() for query in counts)


async def _remove(store: BookStore, build: int, advance: Advance) -> int:
    """Remove a build's rows, some at a time, then the build."""
    count = 0
    for table in _OF_BUILDS:
        while removed := await _remove_some(store, table, build):
            advance(removed)
            count += removed
    await store.write(lambda connection: connection.execute(delete(tables.books).where(_b.id == build)))
    return count


async def _remove_some(store: BookStore, table: Table, build: int) -> int:
    key = list(table.primary_key)
    some = select(*key).where(table.c.book == build).limit(_ROWS)
    query = delete(table).where(tuple_(*key).in_(some), *([table.c.book == build] if len(key) > 1 else []))
    started = time.perf_counter()
    count: Any = await store.write(lambda connection: connection.execute(query).rowcount)
    await sleep(_REST * (time.perf_counter() - started))
    return int(count)

"""Snapshots: documents that the worker leaves ready, so that a read is a lookup.

A transaction that changes rows of a currency removes that currency's snapshots as it commits, so
what is found is right at the books' position. They are made again once the worker has caught up.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from msgspec import json
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from service.books.engine import Changes
from service.books.store import BookStore
from service.books.tables import TOTALS, snapshots
from service.reads.catalog import READS, Read
from service.reads.parameters import parse_all
from service.reads.view import Scope, View


def snapshot_name(store: BookStore, read: Read, scope: Scope, args: dict[str, Any]) -> str:
    """The name under which a document stands: of which books, what was asked, every default filled in."""
    asked = json.encode([store.rules_key, scope.account, scope.today, args]).decode()
    return f"{scope.currency}|{read.name}|{asked}"


async def find(connection: AsyncConnection, name: str) -> bytes | None:
    """The document of this name, if it stands."""
    return (await connection.execute(select(snapshots.c.body).where(snapshots.c.name == name))).scalar()


def drop_stale(connection: Connection, changes: Mapping[str, Changes]) -> None:
    """Remove the snapshots of every currency whose rows changed; all of them if a name did."""
    rows = [row for change in changes.values() for row in (*change.removed, *change.added)]
    for currency in {getattr(row, "currency", "") for row in rows}:
        connection.execute(delete(snapshots).where(snapshots.c.name.startswith(currency, autoescape=True)))


async def make_ready(store: BookStore, today: date) -> int:
    """Make those standing documents that are missing, in one transaction; how many that were."""
    made = 0
    async with store.writing() as connection:
        marks = await connection.run_sync(store.checkpoints)
        position = min(at for _, at in marks.values())
        books = {name: book_id for name, (book_id, _) in marks.items()}
        days = TOTALS["bill_days"]
        known = await connection.execute(
            select(days.c.currency).distinct().where(days.c.book == books["bills"])
        )
        for currency in known.scalars().all():
            view = View(connection=connection, books=books, scope=Scope(currency=currency, today=today))
            made += await _make(store, view, position)
        await connection.execute(
            delete(snapshots).where(snapshots.c.name.not_like(f'%"{today.isoformat()}"%'))
        )
    return made


async def _make(store: BookStore, view: View, position: int) -> int:
    made = 0
    for read in READS:
        if read.standing:
            args = parse_all(read.parameters, {}, view.scope.today)
            name = snapshot_name(store, read, view.scope, args)
            if await find(view.connection, name) is None:
                body = json.encode(await read.answer(view, args))
                row = {"name": name, "position": position, "body": body}
                await view.connection.execute(sqlite.insert(snapshots).on_conflict_do_nothing(), row)
                made += 1
    return made

"""Learning: what predictions are made from, fitted by the one worker that leads.

A fit reads all orders and movements of a currency, and is done again some time after they have changed:
predictions need not be of the newest event, and say what they are of.
"""

import asyncio
from collections.abc import Callable
from datetime import date
from time import perf_counter
from typing import Any

from msgspec import json
from msgspec.structs import replace
from sqlalchemy import Connection, Row, select

from projections.mrr import Movement
from projections.revenue import Order
from service.advancer import safely
from service.books import learnt, snapshots
from service.books.engine import Engine
from service.books.store import BookStore, Marks
from service.books.tables import ROWS
from service.reads.view import Scope, View

_LOOK_SECONDS = 2.0
_QUIET = 20  # it rests so many times as long as it has worked

_orders = ROWS[Order]
_movements = ROWS[Movement]


async def keep_learning(engine: Engine, store: BookStore, today: Callable[[], date]) -> None:
    """Learn for ever, whenever the books have changed and this process leads."""

    async def look() -> None:
        if engine.leads and not await engine.is_behind():
            await learn(store, today())

    while True:
        started = perf_counter()
        await safely(look)
        await asyncio.sleep(max(_LOOK_SECONDS, _QUIET * (perf_counter() - started)))


async def learn(store: BookStore, today: date) -> int:
    """Fit what is missing for `today`, or is of older rows; for how many currencies that was."""
    stale = await store.read(lambda connection: _stale(connection, store, today))
    for currency in stale:
        async with store.reading() as connection:
            marks, orders, moves = await connection.run_sync(_history, store, currency, today)
        documents = await asyncio.to_thread(_documents, orders, moves, today, marks.position)
        await learnt.keep(store, currency, marks, today, documents)
    return len(stale)


def _stale(connection: Connection, store: BookStore, today: date) -> list[str]:
    """The currencies of which nothing is learnt from these rows for this day."""
    marks = store.marks(connection)
    return [
        currency
        for currency in snapshots.currencies(connection, marks)
        if not learnt.is_fresh(connection, store, "model", currency, marks.stamp, today)
    ]


def _history(
    connection: Connection, store: BookStore, currency: str, today: date
) -> tuple[Marks, list[Row[Any]], list[Row[Any]]]:
    """Where the books are, every order, and every movement, of one currency until the end of `today`."""
    marks = store.marks(connection)
    view = View(connection=connection, books=marks.books, scope=Scope(currency=currency, today=today))
    until = today.isoformat()

    def who(of: Any) -> tuple[Any, ...]:
        return of.c.processor, of.c.account, of.c.customer_id, of.c.date

    orders = select(*who(_orders), _orders.c.amount_cents).where(
        *view.within(_orders, "revenue"), _orders.c.date <= until, _orders.c.customer_id != ""
    )
    moves = select(*who(_movements), _movements.c.closing_cents).where(
        *view.within(_movements, "mrr"), _movements.c.date <= until
    )
    return marks, view.all(orders), view.all(moves)


def _documents(orders: list[Row[Any]], moves: list[Row[Any]], today: date, position: int) -> dict[str, bytes]:
    """The model and its backtest. Customers are numbered by their ids, whatever order the rows came in."""
    from service.predictions.backtest import backtest  # noqa: PLC0415 - numpy is for this process alone
    from service.predictions.fit import fit, history  # noqa: PLC0415

    customers = {who: n for n, who in enumerate(sorted({row[:3] for row in (*orders, *moves)}))}
    days: dict[str, int] = {}

    def plain(rows: list[Any]) -> list[tuple[int, int, int]]:
        return [(customers[row[:3]], _day(days, row[3]), row[4]) for row in rows]

    known, day = history(len(customers), plain(orders), plain(moves)), today.toordinal()
    return {
        "model": json.encode(replace(fit(known, day), position=position)),
        "backtest": json.encode({"position": position, **backtest(known, day)}),
    }


def _day(known: dict[str, int], day: str) -> int:
    if day not in known:
        known[day] = date.fromisoformat(day).toordinal()
    return known[day]

"""Learning: what predictions are made from, fitted by the one worker that leads.

A fit reads all orders and movements of a currency, and is done again some time after they have changed:
predictions need not be of the newest event, and say what they are of.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from msgspec import json
from msgspec.structs import replace
from sqlalchemy import Connection, Select, Table, select

from projections.mrr import Movement
from projections.revenue import Order
from service.books.engine import Engine
from service.books.store import BookPositions, BookStore
from service.books.tables import ROWS
from service.reads import snapshots, stored_models
from service.storage.tasks import run_safely

T = TypeVar("T")
_Fact = tuple[int, int, int]

_LOOK_SECONDS = 2.0
_QUIET = 20  # it rests so many times as long as it has worked
_PIECE = 10_000  # rows; in between, whatever else the worker does has its turn


async def keep_training(engine: Engine, store: BookStore, today: Callable[[], date]) -> None:
    """Learn for ever, whenever the books have changed and this process leads."""

    async def look() -> None:
        if engine.is_leader and not await engine.is_behind():
            await train(store, today())

    while True:
        started = perf_counter()
        await run_safely(look)
        await asyncio.sleep(max(_LOOK_SECONDS, _QUIET * (perf_counter() - started)))


async def train(store: BookStore, today: date) -> None:
    """Fit what is missing for `today`, or is of older rows."""
    for currency in await store.read(lambda connection: _stale(connection, store, today)):
        await run_safely(partial(_train, store, currency, today))


async def _train(store: BookStore, currency: str, today: date) -> None:
    """Read a currency's history in pieces, fit, and keep what came of it."""
    history = _History()
    async with store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        for query, rows in history.queries(positions, currency, today):
            async for piece in (await connection.stream(query)).partitions(_PIECE):
                history.add(piece, rows)
    documents = await _in_daemon(partial(_documents, history, today, positions.position))
    await stored_models.keep(store, currency, positions, today, documents)


async def _in_daemon(work: Callable[[], T]) -> T:
    """What a function gives in a thread that no exit of this process waits for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            call = partial(done.set_result, work())
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            call = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if done.done() else call())

    threading.Thread(target=run, name="learner", daemon=True).start()
    return await done


def _stale(connection: Connection, store: BookStore, today: date) -> list[str]:
    """The currencies of which nothing is learnt from these rows for this day."""
    positions = store.positions(connection)
    return [
        currency
        for currency in snapshots.currencies(connection, positions)
        if not stored_models.is_fresh(connection, store, "model", currency, positions.version, today)
    ]


class _History:
    """What customers of a currency paid, and what their MRR became: (customer, day, minor units)."""

    def __init__(self) -> None:
        self.orders: list[_Fact] = []
        self.moves: list[_Fact] = []
        self._customers: dict[tuple[str, str, str], int] = {}
        self._days: dict[str, int] = {}

    def queries(
        self, positions: BookPositions, currency: str, today: date
    ) -> list[tuple[Select[Any], list[_Fact]]]:
        """What to ask until the end of `today`, each with where its rows belong."""

        def ask(table: Table, book: str, column: str) -> Select[Any]:
            columns = (table.c[name] for name in ("processor", "account", "customer_id", "date", column))
            within = (table.c.book == positions.books[book], table.c.currency == currency)
            return select(*columns).where(
                *within, table.c.date <= today.isoformat(), table.c.customer_id != ""
            )

        return [
            (ask(ROWS[Order], "revenue", "amount_cents"), self.orders),
            (ask(ROWS[Movement], "mrr", "closing_cents"), self.moves),
        ]

    def add(self, rows: Sequence[Any], to: list[_Fact]) -> None:
        """Take in rows of one of the queries."""
        for processor, account, customer_id, day, cents in rows:
            customer = self._customers.setdefault((processor, account, customer_id), len(self._customers))
            if day not in self._days:
                self._days[day] = date.fromisoformat(day).toordinal()
            to.append((customer, self._days[day], cents))

    def numbered(self) -> tuple[int, Iterator[_Fact], Iterator[_Fact]]:
        """How many customers, orders and movements; customers by their ids, however the rows came."""
        ranks = [0] * len(self._customers)
        for rank, who in enumerate(sorted(self._customers)):
            ranks[self._customers[who]] = rank
        orders, moves = (((ranks[c], day, cents) for c, day, cents in of) for of in (self.orders, self.moves))
        return len(ranks), orders, moves


def _documents(history: _History, today: date, position: int) -> dict[str, bytes]:
    """The model and its backtest."""
    from service.predictions import backtest, fit  # noqa: PLC0415 - numpy is for this process alone

    known, day = fit.history(*history.numbered()), today.toordinal()
    return {
        "model": json.encode(replace(fit.fit(known, day), position=position)),
        "backtest": json.encode({"position": position, **backtest.backtest(known, day)}),
    }

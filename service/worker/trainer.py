"""Trains the prediction models, in the worker that leads.

Fitting reads all orders and movements of a currency, and is repeated some time after they have changed.
Predictions need not include the newest event; they show the position of their model.
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
_Entry = tuple[int, int, int]

_CHECK_SECONDS = 2.0
_REST_FACTOR = 20  # training rests for so many times as long as it took
_BATCH = 10_000  # rows; between batches, the worker's other tasks get their turn


async def keep_training(engine: Engine, store: BookStore, today: Callable[[], date]) -> None:
    """Train for ever, whenever the books have changed and this process leads."""

    async def train_if_leading() -> None:
        if engine.is_leader and not await engine.is_behind():
            await train(store, today())

    while True:
        started = perf_counter()
        await run_safely(train_if_leading)
        await asyncio.sleep(max(_CHECK_SECONDS, _REST_FACTOR * (perf_counter() - started)))


async def train(store: BookStore, today: date) -> None:
    """Fit the models that are missing for `today`, or that were made from older rows."""
    for currency in await store.read(lambda connection: _stale_currencies(connection, store, today)):
        await run_safely(partial(_train, store, currency, today))


async def _train(store: BookStore, currency: str, today: date) -> None:
    """Read a currency's history in batches, and save its models with their backtests."""
    history = _History()
    async with store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        for query, entries in history.queries(positions, currency, today):
            async for batch in (await connection.stream(query)).partitions(_BATCH):
                history.add(batch, entries)
    documents = await _run_in_daemon_thread(partial(_fit_accounts, history, today, positions.position))
    await stored_models.save(store, currency, positions, today, documents)


async def _run_in_daemon_thread(work: Callable[[], T]) -> T:
    """The result of a function, run in a thread that does not delay the exit of this process."""
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


def _stale_currencies(connection: Connection, store: BookStore, today: date) -> list[str]:
    """The currencies without a model made from the present rows for this day."""
    positions = store.positions(connection)
    return [
        currency
        for currency in snapshots.list_currencies(connection, positions)
        if not stored_models.is_fresh(connection, store, "model", currency, positions.version, today)
    ]


class _History:
    """Orders and MRR movements in one currency, as (customer, day, minor units)."""

    def __init__(self) -> None:
        self.orders: list[_Entry] = []
        self.moves: list[_Entry] = []
        self._customers: dict[tuple[str, str, str], int] = {}
        self._days: dict[str, int] = {}

    def queries(
        self, positions: BookPositions, currency: str, today: date
    ) -> list[tuple[Select[Any], list[_Entry]]]:
        """The queries for rows until the end of `today`, each with the list that takes its rows."""

        def select_until_today(table: Table, book: str, column: str) -> Select[Any]:
            columns = (table.c[name] for name in ("processor", "account", "customer_id", "date", column))
            conditions = (table.c.book == positions.books[book], table.c.currency == currency)
            return select(*columns).where(
                *conditions, table.c.date <= today.isoformat(), table.c.customer_id != ""
            )

        return [
            (select_until_today(ROWS[Order], "revenue", "amount_cents"), self.orders),
            (select_until_today(ROWS[Movement], "mrr", "closing_cents"), self.moves),
        ]

    def add(self, rows: Sequence[Any], entries: list[_Entry]) -> None:
        """Add the rows of a query to its list."""
        for processor, account, customer_id, day, cents in rows:
            customer = self._customers.setdefault((processor, account, customer_id), len(self._customers))
            if day not in self._days:
                self._days[day] = date.fromisoformat(day).toordinal()
            entries.append((customer, self._days[day], cents))

    def accounts(self) -> dict[str, list[int]]:
        """The customers of each account, numbered as in `numbered`."""
        customers: dict[str, list[int]] = {}
        for number, (_, account, _) in enumerate(sorted(self._customers)):
            customers.setdefault(account, []).append(number)
        return customers

    def numbered(self) -> tuple[int, Iterator[_Entry], Iterator[_Entry]]:
        """The number of customers, orders and movements; customers are numbered in order of their ids."""
        ranks = [0] * len(self._customers)
        for rank, customer in enumerate(sorted(self._customers)):
            ranks[self._customers[customer]] = rank
        orders, moves = (
            ((ranks[c], day, cents) for c, day, cents in entries) for entries in (self.orders, self.moves)
        )
        return len(ranks), orders, moves


def _fit_accounts(history: _History, today: date, position: int) -> dict[str | None, dict[str, bytes]]:
    """The documents of all accounts together, under None, and of each."""
    from service.predictions import backtest, fit  # noqa: PLC0415 - numpy is for this process alone

    def documents(arrays: fit.History) -> dict[str, bytes]:
        day = today.toordinal()
        return {
            "model": json.encode(replace(fit.fit(arrays, day), position=position)),
            "backtest": json.encode({"position": position, **backtest.backtest(arrays, day)}),
        }

    whole, accounts = fit.build_history(*history.numbered()), history.accounts()
    together = documents(whole)
    fitted: dict[str | None, dict[str, bytes]] = {None: together}
    for account, customers in accounts.items():
        fitted[account] = documents(whole.of_customers(customers)) if len(accounts) > 1 else together
    return fitted

"""Measures in this process the cost of an event on PostgreSQL in each part: the parameters of `scale`.

CPU is counted by process, so that a busy machine matters little; of durations, the best of several counts.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
from msgspec import Struct, json
from sqlalchemy import Connection

from bench import load
from bench.dataset import NOW
from bench.processes import cpu_between, cpu_seconds
from bench.scale import CostLine, line_through
from handlers import stripe
from service.books.engine import Engine
from service.books.store import BookStore
from service.books.tables import PARTITIONS
from service.bootstrap import open_books, open_ledger, prepare
from service.core.delivery import Proof
from service.intake.translation import content_digest
from service.ledger.append import read_head
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.settings import Settings
from service.settings import load as load_settings
from tests.support.postgres import PostgresServer

SIZES = (1, 8, 32, 128, 256)
WIDE, SMALL, SMALL_BATCHES = 1_000, 16, 60  # events of a large batch and a small one, and how many small ones


class TransactionCost(Struct, frozen=True, kw_only=True):
    """The cost of a transaction: duration, CPU of this process and of PostgreSQL, and bytes of WAL."""

    seconds: float
    own_cpu: float
    postgres_cpu: float
    wal: float


class Costs(Struct, frozen=True, kw_only=True):
    """The costs of transactions by the size of their batch; sizes on disk are in bytes."""

    turn: CostLine  # an append, from its first message to its commit
    turn_cpu: CostLine  # of that, the web process's CPU
    turn_postgres: CostLine  # and PostgreSQL's
    fold: CostLine  # a worker's transaction, by the events in partitions that it holds: its own CPU
    fold_postgres: CostLine  # and PostgreSQL's
    pass_over: float  # a worker's CPU for an event in a partition of another
    appends: dict[int, TransactionCost]
    folds: dict[str, TransactionCost]
    wal_append: float
    wal_fold: float
    disk_ledger: float
    disk_books: float


async def baseline(server: PostgresServer) -> dict[str, float]:
    """Rows a second that PostgreSQL itself takes here, durably, from one connection."""
    connection = await asyncpg.connect(server.new_database().replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE rows (id BIGINT PRIMARY KEY, event TEXT UNIQUE, data BYTEA)")
    add = await connection.prepare(
        "INSERT INTO rows SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[])"
    )
    body, number, rates = load.event(0), 0, {}
    for name, size, times in (("batches of 200", 200, 20), ("one by one", 1, 600)):
        best = 0.0
        for _ in range(3):
            started = time.perf_counter()
            for _ in range(times):
                numbers = range(number, number + size)
                number += size
                await add.fetch(list(numbers), [f"evt_{n}" for n in numbers], [body] * size)
            best = max(best, times * size / (time.perf_counter() - started))
        rates[name] = best
    await connection.close()
    return rates


async def measure(server: PostgresServer) -> Costs:
    """Append and fold in batches of several sizes, on a database of their own."""
    url = server.new_database()
    with TemporaryDirectory() as directory:
        settings = load_settings(data_dir=Path(directory), database_url=url)
        prepare(settings)
        ledger = open_ledger(settings)
        wal = _wal(server)
        appends = await _append_costs(server, ledger)
        appended, wal = (await ledger.read(read_head)).position, _wal(server) - wal
        analyze(server, url)
        folds = await _fold_costs(server, ledger, settings)
        sizes = _sizes(server, url)
        await ledger.close()
    batches = list(appends)
    wide, small, narrow = (folds[name] for name in ("wide", "small", "narrow"))
    share = 1 / PARTITIONS
    return Costs(
        turn=line_through(batches, [spent.seconds for spent in appends.values()]),
        turn_cpu=line_through(batches, [spent.own_cpu for spent in appends.values()]),
        turn_postgres=line_through(batches, [spent.postgres_cpu for spent in appends.values()]),
        fold=line_through([WIDE, SMALL], [wide.own_cpu, small.own_cpu]),
        fold_postgres=line_through([WIDE, SMALL], [wide.postgres_cpu, small.postgres_cpu]),
        pass_over=max(0.0, (narrow.own_cpu - wide.own_cpu * share) / (1 - share)) / WIDE,
        appends=appends,
        folds=folds,
        wal_append=wal / appended,
        wal_fold=wide.wal / WIDE,
        disk_ledger=sizes["daybook"] / appended,
        disk_books=sizes["books"] / (4 * WIDE * (1 + share) + SMALL_BATCHES * SMALL),
    )


def incoming(first: int, count: int) -> list[Incoming]:
    """The load's webhooks as the web process would append them."""
    deliveries = []
    for number in range(first, first + count):
        body = load.event(number)
        payload = json.decode(body)
        proof = Proof(processor="stripe", method="bench", received_at=NOW)
        deliveries.append(
            Incoming(
                events=list(stripe.PROCESSOR.translate(payload, proof)),
                content_digest=content_digest(payload, stripe.PROCESSOR),
                headers=b'{"stripe-signature":"t=1762000000,v1=' + b"0" * 64 + b'"}',
                body=body,
                proof=proof,
            )
        )
    return deliveries


async def _append_costs(server: PostgresServer, ledger: Ledger) -> dict[int, TransactionCost]:
    """The costs of appends by the size of the batch."""
    await ledger.append(incoming(10**6, 64), NOW)  # connects
    costs_by_size, first = {}, 0
    for size in SIZES:
        times = max(12, min(160, 1_536 // size))
        batches = iter([incoming(first + size * n, size) for n in range(times)])
        first += size * times
        costs_by_size[size] = await _measure_cost(
            server, lambda batches=batches: ledger.append(next(batches), NOW), times
        )
    return costs_by_size


async def _fold_costs(
    server: PostgresServer, ledger: Ledger, settings: Settings
) -> dict[str, TransactionCost]:
    """The costs of folds: with all partitions in large and in small batches, and with one partition."""
    costs = {}
    store = await _empty_books(settings)
    wide = Engine(ledger, store, lambda: NOW, batch=WIDE)
    await wide.advance()  # connects
    analyze(server, settings.database_url or "")
    costs["wide"] = await _measure_cost(server, wide.advance, 3)
    small = Engine(ledger, store, lambda: NOW, batch=SMALL)
    costs["small"] = await _measure_cost(server, small.advance, SMALL_BATCHES)
    await store.close()
    store = await _empty_books(settings.model_copy(update={"weeks_per_month": Fraction(52, 12)}))
    narrow = Engine(ledger, store, lambda: NOW, _OnePartition(), batch=WIDE)
    await narrow.advance()
    costs["narrow"] = await _measure_cost(server, narrow.advance, 3)
    await store.close()
    return costs


async def _empty_books(settings: Settings) -> BookStore:
    prepare(settings)
    store = open_books(settings)
    await store.register()
    return store


class _OnePartition:
    """Holds one partition of all."""

    def __init__(self) -> None:
        self.fences = {0: 0}

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """There is no other worker."""


async def _measure_cost(
    server: PostgresServer, work: Callable[[], Awaitable[Any]], times: int
) -> TransactionCost:
    """The best duration and the mean CPU of a transaction; the CPU clock is too coarse for a single one."""
    wal, postgres, own_cpu = _wal(server), cpu_seconds(postmaster(server)), time.process_time()
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        durations.append(time.perf_counter() - started)
    return TransactionCost(
        seconds=min(durations),
        own_cpu=(time.process_time() - own_cpu) / times,
        postgres_cpu=cpu_between(postgres, cpu_seconds(postmaster(server))) / times,
        wal=(_wal(server) - wal) / times,
    )


def analyze(server: PostgresServer, url: str) -> None:
    """Update the statistics, as autovacuum would within a minute; plans are for empty tables until then."""
    server.sql("ANALYZE", database=url.rsplit("/", 1)[1])


def postmaster(server: PostgresServer) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def _wal(server: PostgresServer) -> int:
    return int(server.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


def _sizes(server: PostgresServer, url: str) -> dict[str, int]:
    """Bytes of tables with their indexes: the ledger's, and the books'."""
    output = server.sql(
        """SELECT CASE WHEN nspname = 'daybook' THEN nspname ELSE 'books' END,
            sum(pg_table_size(c.oid) + pg_indexes_size(c.oid))
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relkind = 'r' AND nspname LIKE 'daybook%' GROUP BY 1""",
        database=url.rsplit("/", 1)[1],
    )
    return {name: int(size) for name, size in (line.split("|") for line in output.splitlines())}

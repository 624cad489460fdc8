"""What an event costs on PostgreSQL in each part, measured in this process: the parameters of `scale`.

CPU is counted by process, so that a busy machine changes little; of times the best of several is taken.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import psutil
from msgspec import Struct, json
from sqlalchemy import Connection

from bench import load
from bench.scale import Line, line_through
from handlers import ENDPOINTS
from service.books.engine import Engine
from service.books.store import BookStore
from service.books.tables import PARTITIONS
from service.bootstrap import open_books, open_ledger, prepare
from service.core.delivery import Proof
from service.intake.translation import content_digest
from service.ledger.append import head
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.settings import Settings
from service.settings import load as load_settings
from tests.support.postgres import PostgresServer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = (1, 8, 32, 128, 256)
WIDE, SMALL, SMALLS = 1_000, 16, 60  # events of a large batch and a small one, and how many small ones
_STRIPE = next(endpoint for endpoint in ENDPOINTS if endpoint.path == "/webhooks/stripe")


class Spent(Struct, frozen=True, kw_only=True):
    """What a transaction took: in all, of this process's CPU and of PostgreSQL's, and bytes of WAL."""

    seconds: float
    ours: float
    theirs: float
    wal: float


class Costs(Struct, frozen=True, kw_only=True):
    """What a transaction costs, by the size of its batch; sizes in bytes."""

    turn: Line  # an append, from its first message to its commit
    turn_cpu: Line  # of that, the web process's CPU
    turn_postgres: Line  # and PostgreSQL's
    fold: Line  # a worker's transaction, by the events in partitions that it holds: its own CPU
    fold_postgres: Line  # and PostgreSQL's
    pass_over: float  # a worker's CPU for an event in a partition of another
    appends: dict[int, Spent]
    folds: dict[str, Spent]
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
    body, at, found = load.event(0), 0, {}
    for name, size, times in (("batches of 200", 200, 20), ("one by one", 1, 600)):
        best = 0.0
        for _ in range(3):
            started = time.perf_counter()
            for _ in range(times):
                numbers = range(at, at + size)
                at += size
                await add.fetch(list(numbers), [f"evt_{n}" for n in numbers], [body] * size)
            best = max(best, times * size / (time.perf_counter() - started))
        found[name] = best
    await connection.close()
    return found


async def measure(server: PostgresServer) -> Costs:
    """Append and fold in batches of several sizes, on a database of their own."""
    url = server.new_database()
    with TemporaryDirectory() as directory:
        settings = load_settings(data_dir=Path(directory), database_url=url)
        prepare(settings)
        ledger = open_ledger(settings)
        wal = _wal(server)
        appends = await _appends(server, ledger)
        appended, wal = (await ledger.read(head)).position, _wal(server) - wal
        analyze(server, url)
        folds = await _folds(server, ledger, settings)
        sizes = _sizes(server, url)
        await ledger.close()
    batches = list(appends)
    wide, small, narrow = (folds[name] for name in ("wide", "small", "narrow"))
    share = 1 / PARTITIONS
    return Costs(
        turn=line_through(batches, [spent.seconds for spent in appends.values()]),
        turn_cpu=line_through(batches, [spent.ours for spent in appends.values()]),
        turn_postgres=line_through(batches, [spent.theirs for spent in appends.values()]),
        fold=line_through([WIDE, SMALL], [wide.ours, small.ours]),
        fold_postgres=line_through([WIDE, SMALL], [wide.theirs, small.theirs]),
        pass_over=max(0.0, (narrow.ours - wide.ours * share) / (1 - share)) / WIDE,
        appends=appends,
        folds=folds,
        wal_append=wal / appended,
        wal_fold=wide.wal / WIDE,
        disk_ledger=sizes["daybook"] / appended,
        disk_books=sizes["books"] / (4 * WIDE * (1 + share) + SMALLS * SMALL),
    )


def incoming(first: int, count: int) -> list[Incoming]:
    """What the web process makes of the load's webhooks."""
    made = []
    for number in range(first, first + count):
        body = load.event(number)
        payload = json.decode(body)
        proof = Proof(processor="stripe", method="bench", received_at=NOW)
        made.append(
            Incoming(
                events=list(_STRIPE.translate(payload, proof)),
                content_digest=content_digest(payload, _STRIPE),
                headers=b'{"stripe-signature":"t=1762000000,v1=' + b"0" * 64 + b'"}',
                body=body,
                proof=proof,
            )
        )
    return made


async def _appends(server: PostgresServer, ledger: Ledger) -> dict[int, Spent]:
    """By the size of the batch, one after another."""
    await ledger.append(incoming(10**6, 64), NOW)  # connects
    found, at = {}, 0
    for size in SIZES:
        times = max(12, min(160, 1_536 // size))
        batches = iter([incoming(at + size * n, size) for n in range(times)])
        at += size * times
        found[size] = await _spent(server, lambda batches=batches: ledger.append(next(batches), NOW), times)
    return found


async def _folds(server: PostgresServer, ledger: Ledger, settings: Settings) -> dict[str, Spent]:
    """By what a worker holds: everything in large batches and in small ones, or one partition."""
    found = {}
    store = await _empty_books(settings)
    wide = Engine(ledger, store, lambda: NOW, batch=WIDE)
    await wide.advance()  # connects
    analyze(server, settings.database_url or "")
    found["wide"] = await _spent(server, wide.advance, 3)
    small = Engine(ledger, store, lambda: NOW, batch=SMALL)
    found["small"] = await _spent(server, small.advance, SMALLS)
    await store.close()
    store = await _empty_books(settings.model_copy(update={"weeks_per_month": Fraction(52, 12)}))
    narrow = Engine(ledger, store, lambda: NOW, _One(), batch=WIDE)
    await narrow.advance()
    found["narrow"] = await _spent(server, narrow.advance, 3)
    await store.close()
    return found


async def _empty_books(settings: Settings) -> BookStore:
    prepare(settings)
    store = open_books(settings)
    await store.register()
    return store


class _One:
    """Holds one partition of all."""

    def __init__(self) -> None:
        self.fences = {0: 0}

    def check(self, connection: Connection, partitions: Iterable[int]) -> None:
        """Nobody else is there."""


async def _spent(server: PostgresServer, work: Callable[[], Awaitable[Any]], times: int) -> Spent:
    """Its best time, and its CPU on the average: ticks are too long for a single one."""
    wal, postgres, ours = _wal(server), cpu_seconds(postmaster(server)), time.process_time()
    each = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        each.append(time.perf_counter() - started)
    return Spent(
        seconds=min(each),
        ours=(time.process_time() - ours) / times,
        theirs=cpu_between(postgres, cpu_seconds(postmaster(server))) / times,
        wal=(_wal(server) - wal) / times,
    )


def analyze(server: PostgresServer, url: str) -> None:
    """What autovacuum does within a minute: without statistics, plans made for empty tables stand."""
    server.sql("ANALYZE", database=url.rsplit("/", 1)[1])


def postmaster(server: PostgresServer) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def cpu_seconds(pid: int) -> dict[int, float]:
    """What a process and each of its children have used so far, by process id."""
    found = {}
    family = psutil.Process(pid)
    for process in (family, *family.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def cpu_between(before: dict[int, float], after: dict[int, float]) -> float:
    """What was used meanwhile. What has ended, as autovacuum's processes do, is left out."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def _wal(server: PostgresServer) -> int:
    return int(server.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


def _sizes(server: PostgresServer, url: str) -> dict[str, int]:
    """Bytes of tables with their indexes: the ledger's, and the books'."""
    found = server.sql(
        """SELECT CASE WHEN nspname = 'daybook' THEN nspname ELSE 'books' END,
            sum(pg_table_size(c.oid) + pg_indexes_size(c.oid))
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relkind = 'r' AND nspname LIKE 'daybook%' GROUP BY 1""",
        database=url.rsplit("/", 1)[1],
    )
    return {name: int(size) for name, size in (line.split("|") for line in found.splitlines())}

"""Reading the books for a reconciliation: rows by key, live keys in pages, waiting for the ledger's head."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import date
from typing import TypeVar

from sqlalchemy import Connection, func, select

from projections.bills import Bill, Contract
from projections.book import Row
from service.books.overdue import makes_contract_overdue
from service.books.store import BookStore
from service.books.tables import ROWS, STATEMENTS
from service.core.errors import Unavailable
from service.ledger.store import Ledger

R = TypeVar("R", bound=Row)

_PAGE = 5_000
_MAX_OVERDUE = 1_000  # of more, all are listed sooner than these are fetched one by one
_LOOK_SECONDS = 0.1
_MAX_IDLE_LOOKS = 600  # without progress of the books: a minute


async def read_row_by_key(
    store: BookStore, row_type: type[R], book: str, keys: Iterable[str]
) -> dict[str, R]:
    """The row under each of these keys, in a table with at most one row a key."""
    return {key: found[0] for key, found in (await read_rows_by_key(store, row_type, book, keys)).items()}


async def read_rows_by_key(
    store: BookStore, row_type: type[R], book: str, keys: Iterable[str]
) -> dict[str, list[R]]:
    """All rows under each of these keys."""
    statements, key_list, column = STATEMENTS[row_type], list(keys), _key_column(row_type)
    find = statements.by_key if column == "key" else statements.by_parent_key

    def query(connection: Connection) -> dict[str, list[R]]:
        rows_by_key: dict[str, list[R]] = {}
        for _, key, *values in find.run(connection, store.positions(connection).books[book], key_list):
            row = statements.to_row(values)
            rows_by_key.setdefault(key if column == "key" else row.parent_key, []).append(row)  # type: ignore[arg-type]
        return rows_by_key

    return await store.read(query)


async def read_live_keys(
    store: BookStore, row_type: type[Row], book: str, prefix: str, is_live: Callable[[str], bool]
) -> AsyncIterator[Sequence[str]]:
    """The keys with `prefix` whose rows have a live status, a page of the table at a time."""
    table, after = ROWS[row_type], prefix
    key_column = table.c[_key_column(row_type)]

    def read_page(connection: Connection) -> list[tuple[str, str]]:
        query = (
            select(key_column, table.c.status)
            .where(table.c.book == store.positions(connection).books[book])
            .where(key_column > after, key_column < prefix + "\U0010ffff")
            .order_by(key_column)
            .limit(_PAGE)
        )
        return [(key, status) for key, status in connection.execute(query)]

    while rows := await store.read(read_page):
        after = rows[-1][0]
        yield [key for key, status in rows if is_live(status)]


async def read_overdue_keys(store: BookStore, prefix: str, today: date) -> Sequence[str]:
    """The keys with `prefix` of overdue contracts: those longest overdue, where there are very many."""
    bills = ROWS[Bill]

    def query(connection: Connection) -> Sequence[str]:
        statement = (
            select(bills.c.key)
            .where(bills.c.book == store.positions(connection).books["bills"])
            .where(bills.c.key > prefix, bills.c.key < prefix + "\U0010ffff", makes_contract_overdue(today))
            .group_by(bills.c.key)
            .order_by(func.min(bills.c.date), bills.c.key)
            .limit(_MAX_OVERDUE)
        )
        return connection.execute(statement).scalars().all()

    return await store.read(query)


async def read_accounts(store: BookStore, row_type: type[Row], book: str, prefix: str) -> list[str]:
    """The accounts of the rows whose keys start with "kind|processor|", one look-up each."""
    table = ROWS[row_type]
    key_column = table.c[_key_column(row_type)]

    def query(connection: Connection) -> list[str]:
        in_book = table.c.book == store.positions(connection).books[book]
        statement = select(table.c.account, key_column).where(in_book).order_by(key_column).limit(1)
        accounts: list[str] = []
        after = prefix
        while next_row := connection.execute(statement.where(key_column > after)).one_or_none():
            account, key = next_row
            if not key.startswith(prefix):
                break
            accounts.append(account)
            after = key.rpartition("|")[0] + "}"  # the character after "|": past all of this account
        return accounts

    return await store.read(query)


def _key_column(row_type: type[Row]) -> str:
    """The column with the name of the history of the row's object: contracts are made by customer."""
    return "parent_key" if row_type is Contract else "key"


async def wait_for_head(ledger: Ledger, store: BookStore, pause: Callable[[float], Awaitable[None]]) -> None:
    """Wait until the books have reached the ledger's present head.

    Raises Unavailable if they make no progress for a minute.
    """
    async with ledger.reading() as reader:
        head = (await reader.head()).position
    idle_looks, last_position = 0, -1
    while (position := (await store.read(store.positions)).position) < head:
        idle_looks, last_position = (
            (idle_looks + 1, last_position) if position <= last_position else (0, position)
        )
        if idle_looks > _MAX_IDLE_LOOKS:
            raise Unavailable(
                f"the books hold position {last_position}, not yet {head}; is a worker running?"
            )
        await pause(_LOOK_SECONDS)

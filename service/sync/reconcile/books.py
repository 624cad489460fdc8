"""What a reconciliation asks of the books: rows by their keys, the live ones in pages, and to catch up."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from sqlalchemy import Connection, select

from projections.book import Row
from service.books.store import BookStore
from service.books.tables import ROWS, STATEMENTS
from service.core.errors import Unavailable
from service.ledger.store import Ledger

R = TypeVar("R", bound=Row)

_PAGE = 5_000
_LOOK_SECONDS = 0.1
_QUIET_LOOKS = 600  # without an event taken in: a minute


async def rows_of(store: BookStore, row: type[R], book: str, keys: Iterable[str]) -> dict[str, R]:
    """The row under each of these keys, of a table that has one at most for each."""
    return {key: rows[0] for key, rows in (await several_of(store, row, book, keys)).items()}


async def several_of(store: BookStore, row: type[R], book: str, keys: Iterable[str]) -> dict[str, list[R]]:
    """All rows under each of these keys."""
    statements, names = STATEMENTS[row], list(keys)

    def find(connection: Connection) -> dict[str, list[R]]:
        found: dict[str, list[R]] = {}
        for _, key, *values in statements.by_key.run(
            connection, store.positions(connection).books[book], names
        ):
            found.setdefault(key, []).append(statements.to_row(values))  # type: ignore[arg-type]
        return found

    return await store.read(find)


async def live_keys(
    store: BookStore, row: type[Row], book: str, prefix: str, is_live: Callable[[str], bool]
) -> AsyncIterator[Sequence[str]]:
    """The keys that start with `prefix` of rows with a live status, a page of the table at a time."""
    table, after = ROWS[row], prefix

    def page(connection: Connection) -> list[tuple[str, str]]:
        query = (
            select(table.c.key, table.c.status)
            .where(table.c.book == store.positions(connection).books[book])
            .where(table.c.key > after, table.c.key < prefix + "\U0010ffff")
            .order_by(table.c.key)
            .limit(_PAGE)
        )
        return [(key, status) for key, status in connection.execute(query)]

    while found := await store.read(page):
        after = found[-1][0]
        yield [key for key, status in found if is_live(status)]


async def accounts_of(store: BookStore, row: type[Row], book: str, prefix: str) -> list[str]:
    """The accounts of the rows whose keys start with "kind|processor|", one look-up each."""
    table = ROWS[row]

    def find(connection: Connection) -> list[str]:
        of_book = table.c.book == store.positions(connection).books[book]
        query = select(table.c.account, table.c.key).where(of_book).order_by(table.c.key).limit(1)
        found: list[str] = []
        after = prefix
        while next_row := connection.execute(query.where(table.c.key > after)).one_or_none():
            account, key = next_row
            if not key.startswith(prefix):
                break
            found.append(account)
            after = key.rpartition("|")[0] + "}"  # the character after "|": past all of this account
        return found

    return await store.read(find)


async def reach_head(ledger: Ledger, store: BookStore, pause: Callable[[float], Awaitable[None]]) -> None:
    """Wait until the books hold all that the ledger does now.

    Raises Unavailable if they take in nothing for a minute.
    """
    async with ledger.reading() as reader:
        head = (await reader.head()).position
    quiet, at = 0, -1
    while (found := (await store.read(store.positions)).position) < head:
        quiet, at = (quiet + 1, at) if found <= at else (0, found)
        if quiet > _QUIET_LOOKS:
            raise Unavailable(f"the books hold position {at}, not yet {head}; is a worker running?")
        await pause(_LOOK_SECONDS)

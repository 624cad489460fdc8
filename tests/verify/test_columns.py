"""One byte changed in any column of the ledger or the books is found, and where."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace
from sqlalchemy import Table

from projections import BOOKS
from projections.book import Book, Rules
from service.books.store import BookStore
from service.books.tables import ROWS, TOTALS, row_types
from service.bootstrap import open_ledger
from service.ledger.chain import CHAINED
from service.ledger.tables import Delivery, Event, EventId, Subject
from service.settings import Settings
from service.storage.database import SqliteDatabase
from service.verify import Fault, verify_chain, verify_totals
from service.verify.fault import Location
from service.verify.replay import compare_books
from tests.support.small_ledger import changed_value, copy_of

LEDGER = [model.__table__ for model in (Event, EventId, Delivery, Subject)]
KEYS = {"id", "book", "key", "partition"}


def columns(*tables: Table) -> list[Any]:
    return [
        pytest.param(table, column.name, id=f"{table.name}-{column.name}")
        for table in tables
        for column in table.c
    ]


def tables_of(*books: Book, rows: bool = True, totals: bool = True) -> list[Any]:
    """The books with each of their tables: several books may have rows of one type."""
    return [
        pytest.param(book, table, id=f"{book.name}-{table.name}")
        for book in books
        for table in (
            *(ROWS[row] for row in row_types(book) if rows),
            *(TOTALS[total.table] for total in book.totals if totals),
        )
    ]


def columns_of(tables: list[Any], without: str) -> list[Any]:
    """The books with their tables and each column of these but one."""
    return [
        pytest.param(book, table, column.name, id=f"{book.name}-{table.name}-{column.name}")
        for book, table in (param.values for param in tables)
        for column in table.c
        if column.name != without
    ]


def change(path: Path, table: Table, column: str, where: str = "TRUE") -> dict[str, Any]:
    """Change one byte of a column in the middle row; the row as it was."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(f"SELECT * FROM {table.name} WHERE {where}").fetchall()
        row = dict(rows[len(rows) // 2])
        keys = [key.name for key in table.primary_key]
        same = " AND ".join(f"{key} = ?" for key in keys)
        connection.execute(
            f"UPDATE {table.name} SET {column} = ? WHERE {same}",
            [changed_value(row[column], table.c[column].type.python_type), *(row[k] for k in keys)],
        )
        connection.commit()
    return row


async def fault_in_ledger(settings: Settings) -> Location:
    ledger = open_ledger(settings)
    try:
        with pytest.raises(Fault) as found:
            await verify_chain(ledger)
    finally:
        await ledger.close()
    return found.value.where


@pytest.mark.parametrize(("table", "column"), columns(*LEDGER))
async def test_a_byte_of_the_ledger_is_found(settings: Settings, table: Table, column: str) -> None:
    row = change(settings.data_dir / "ledger.db", table, column)

    where = await fault_in_ledger(settings)

    assert where.table == table.name
    assert where.position in {row["position"], changed_value(row["position"])}
    if column in {"content_digest", "delivery_digest", "digest"} or (table.name, column) == (
        "events",
        "delivery",
    ):
        assert where.columns == (column,)


def test_every_column_of_an_event_is_in_the_chain() -> None:
    assert {*CHAINED, "digest"} == {column.name for column in Event.__table__.c}


@pytest.mark.parametrize(
    ("statement", "table", "position"),
    [
        ("DELETE FROM events WHERE position = 5", "events", 5),
        ("DELETE FROM deliveries WHERE position = 5", "deliveries", 5),
        ("DELETE FROM event_ids WHERE position = 5", "event_ids", 5),
        ("DELETE FROM subjects WHERE position = 5", "subjects", 5),
        ("INSERT INTO deliveries VALUES (99, '', '', '')", "deliveries", 99),
        ("INSERT INTO event_ids SELECT 'z', processor, account, 5, '' FROM events LIMIT 1", "event_ids", 5),
        ("INSERT INTO subjects VALUES ('customer|stripe||cus_z', 5)", "subjects", 5),
        ("INSERT INTO subjects VALUES ('customer|stripe||cus_z', 99)", "subjects", 99),
        ("DELETE FROM set_aside", "set_aside", 10),
        ("UPDATE set_aside SET up_to = 5", "set_aside", 10),
        ("INSERT INTO set_aside VALUES ('customer|stripe||cus_1', 1, 5)", "set_aside", 5),
    ],
)
async def test_what_is_missing_or_too_much_in_the_ledger_is_found(
    settings: Settings, statement: str, table: str, position: int
) -> None:
    with closing(sqlite3.connect(settings.data_dir / "ledger.db")) as connection:
        connection.execute(statement)
        connection.commit()

    where = await fault_in_ledger(settings)

    assert (where.table, where.position) == (table, position)


# The books

IN_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
ROWS_OF_BOOKS = tables_of(*BOOKS, totals=False)
TOTALS_OF_BOOKS = tables_of(*BOOKS, rows=False)


@pytest.fixture(scope="module")
def copy(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of one copy for all tests of books: opening one takes longer than any of them."""
    return copy_of(origin, tmp_path_factory.mktemp("copy"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(copy: Settings, origin: Path) -> AsyncIterator[tuple[SqliteDatabase, SqliteDatabase]]:
    """The database to change, and the one as a replay makes it: what it was before."""
    databases = SqliteDatabase(copy.data_dir / "books.db"), SqliteDatabase(origin / "books.db")
    yield databases
    for database in databases:
        await database.close()


@pytest.fixture
def path(origin: Path, copy: Settings) -> Path:
    """The file to change, as it was before."""
    changed = copy.data_dir / "books.db"
    with closing(sqlite3.connect(origin / "books.db")) as before, closing(sqlite3.connect(changed)) as after:
        before.backup(after)
    return changed


@pytest.fixture
def stores(opened: tuple[SqliteDatabase, SqliteDatabase], book: Book) -> tuple[BookStore, BookStore]:
    """The book, from both."""
    live, replayed = (BookStore(database, Rules(), [book]) for database in opened)
    return live, replayed


@pytest.fixture
def stores_of_stage(
    opened: tuple[SqliteDatabase, SqliteDatabase], book: Book, table: Table
) -> tuple[BookStore, BookStore]:
    """Of the book the stage that makes the table's rows: most others are compared in vain."""
    stage = next(stage for stage in book.stages if any(ROWS[row] is table for row in stage.rows))
    alone = replace(book, stages=(stage,), totals=())
    live, replayed = (BookStore(database, Rules(), [alone]) for database in opened)
    return live, replayed


async def fault_in_books(live: BookStore, replayed: BookStore) -> Location:
    async with live.reading() as connection:
        with pytest.raises(Fault) as found:
            await compare_books(connection, live, replayed)
    return found.value.where


def of_book(path: Path, book: Book) -> str:
    """A condition that holds for the rows of that book, not for those of others in the same table."""
    with closing(sqlite3.connect(path)) as connection:
        ((book_id,),) = connection.execute("SELECT id FROM books WHERE name = ?", [book.name])
    return f"book = {book_id}"


@pytest.mark.parametrize(("book", "table", "column"), columns_of(ROWS_OF_BOOKS, without="id"))
@IN_ONE_LOOP
async def test_a_byte_of_a_row_is_found(
    path: Path, stores_of_stage: tuple[BookStore, BookStore], book: Book, table: Table, column: str
) -> None:
    row = change(path, table, column, of_book(path, book))

    where = await fault_in_books(*stores_of_stage)

    assert where.table == table.name
    if column not in KEYS:
        assert (where.key, where.columns) == (row["key"], (column,))


@pytest.mark.parametrize(("book", "table", "column"), columns_of(TOTALS_OF_BOOKS, without="partition"))
@IN_ONE_LOOP
async def test_a_byte_of_a_total_is_found(
    path: Path, stores: tuple[BookStore, BookStore], book: Book, table: Table, column: str
) -> None:
    row = change(path, table, column, of_book(path, book))

    where = await fault_in_books(*stores)
    with pytest.raises(Fault) as found:
        await verify_totals(stores[0])

    assert {where.table, found.value.where.table} == {table.name}
    if column not in {key.name for key in table.primary_key}:
        group = "|".join(str(row[key.name]) for key in table.primary_key if key.name not in KEYS)
        assert (where.key, where.columns) == (group, (column,))
        assert found.value.where == where


@pytest.mark.parametrize(("book", "table"), TOTALS_OF_BOOKS)
@IN_ONE_LOOP
async def test_a_total_in_a_partition_that_there_is_not_is_found(
    path: Path, stores: tuple[BookStore, BookStore], book: Book, table: Table
) -> None:
    change(path, table, "partition", of_book(path, book))

    with pytest.raises(Fault, match="partition") as found:
        await verify_totals(stores[0])

    assert found.value.where == Location(table=table.name, columns=("partition",))


@pytest.mark.parametrize(
    "statement", ["DELETE FROM {} WHERE {}", "INSERT INTO {} SELECT {} FROM {} WHERE {}"]
)
@pytest.mark.parametrize(("book", "table"), tables_of(*BOOKS))
@IN_ONE_LOOP
async def test_a_row_that_is_missing_or_there_twice_is_found(
    path: Path, stores: tuple[BookStore, BookStore], book: Book, table: Table, statement: str
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        if statement.startswith("DELETE"):
            connection.execute(f"DELETE FROM {table.name} WHERE {of_book(path, book)}")
        else:
            again = {"id": "id + 1000", "partition": "partition + 1"}
            values = ", ".join(again.get(column.name, column.name) for column in table.c)
            connection.execute(
                f"INSERT INTO {table.name} SELECT {values} FROM {table.name} WHERE {of_book(path, book)}"
            )
        connection.commit()

    where = await fault_in_books(*stores)

    assert where.table == table.name

"""The rows of the books in their tables: by the keys that contributed them, and by their parent keys."""

from collections.abc import Collection, Iterator, Sequence

from msgspec.structs import astuple
from sqlalchemy import Connection

from projections.book import Book, Row, Stage, Total
from projections.fold import (
    Contributed,
    KeyColumn,
    RowChanges,
    Stored,
    Sums,
    key_batches,
    new_sums,
    row_types_read,
)
from service.books import tables
from service.storage.statements import POSTGRESQL, HotInsert

# One transaction at a time contributes to a parent key, whose rows may be of several partitions. All lock in
# the same order, stage by stage and key by key, so no deadlock arises.
_LOCK_KEYS = HotInsert(
    tables.key_locks,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=("book", "stage", "key"), set_={"key": insert.excluded.key}
    ),
)


class WrittenRows:
    """The rows of one book, in a transaction that writes them."""

    def __init__(self, connection: Connection, book_id: int) -> None:
        self._connection = connection
        self._book_id = book_id

    def children(self, stage: Stage, keys: Sequence[str]) -> Iterator[dict[str, list[Row]]]:
        """The rows under these parent keys, which stay locked until the transaction ends.

        Some keys at a time: PostgreSQL ends a transaction that is idle for some seconds.
        """
        if keys and self._connection.dialect.name == POSTGRESQL:
            stage_name = stage.rows[0].table
            _LOCK_KEYS.add(self._connection, [(self._book_id, stage_name, key) for key in keys])
        for batch in key_batches(keys):
            yield read_children(self._connection, self._book_id, stage, batch)

    def replace(self, stage: Stage, contributed: Contributed) -> RowChanges:
        """Write the difference between the stored rows and the contributed ones."""
        changes = RowChanges([], [])
        missing = {key: rows.copy() for key, rows in contributed.items()}
        for row_type in stage.rows:
            statements, stale_ids = tables.STATEMENTS[row_type], []
            for row_id, key, row in read_rows(self._connection, self._book_id, row_type, "key", contributed):
                if row in missing[key]:
                    del missing[key][row]
                else:
                    stale_ids.append(row_id)
                    changes.removed.append(row)
            if stale_ids:
                statements.delete.run(self._connection, stale_ids)
            new = [(key, row) for key, rows in missing.items() for row in rows if type(row) is row_type]
            if new:
                values = [(self._book_id, key, *astuple(row)) for key, row in new]
                statements.insert.add(self._connection, values)
                changes.added += [row for _, row in new]
        return changes


def read_rows(
    connection: Connection, book_id: int, row_type: type[Row], column: KeyColumn, keys: Collection[str]
) -> Iterator[tuple[int, str, Row]]:
    """The rows of a type with these keys in the column, each with its id and the key that contributed it."""
    statements = tables.STATEMENTS[row_type]
    query = statements.by_key if column == "key" else statements.by_parent_key
    for row_id, key, *values in query.run(connection, book_id, list(keys)):
        yield row_id, key, statements.to_row(values)


def read_children(
    connection: Connection, book_id: int, stage: Stage, keys: Sequence[str]
) -> dict[str, list[Row]]:
    """The rows that a later stage reads under each of these parent keys."""
    rows: dict[str, list[Row]] = {key: [] for key in keys}
    for row_type in row_types_read(stage):
        for _, _, row in read_rows(connection, book_id, row_type, "parent_key", keys):
            rows[row.parent_key].append(row)
    return rows


def histories_under(connection: Connection, book_id: int, book: Book, stage: Stage, key: str) -> set[str]:
    """The histories from which the rows come that a later stage reads under a parent key."""
    names: set[str] = set()
    earlier = book.stages[: book.stages.index(stage)]
    for row_type in row_types_read(stage):
        makers = [each for each in earlier if row_type in each.rows]
        keys = {maker for _, maker, _ in read_rows(connection, book_id, row_type, "parent_key", [key])}
        for maker in makers:
            if isinstance(maker.reads, str):
                own = {each for each in keys if each.startswith(f"{maker.reads}|")}
                names |= own
            else:
                for each in keys:
                    names |= histories_under(connection, book_id, book, maker, each)
    return names


def read_gross(connection: Connection, total: Total, book_id: int) -> Sums:
    """The sums of a gross total of one book over all partitions."""
    sums = new_sums(total)
    for currency, cents in tables.READ_GROSS[total.table].run(connection, book_id):
        sums[currency,] = [cents]
    return sums


def stored_rows(connection: Connection, book_id: int) -> Stored:
    """The rows of one book in this view, for rows in memory in front of them."""

    def read(row_type: type[Row], column: KeyColumn, keys: Sequence[str]) -> Iterator[tuple[str, Row]]:
        return ((key, row) for _, key, row in read_rows(connection, book_id, row_type, column, keys))

    return read

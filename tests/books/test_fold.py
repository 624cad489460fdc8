"""One fold: a book has the same rows in memory, in its tables, and in memory in front of its tables."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from projections import BOOKS
from projections.book import Book, Row, Rules
from projections.fold import MemoryRows
from service.books.rows import stored_rows
from service.books.tables import ROWS, STATEMENTS, row_types
from tests.support.effort import examples
from tests.support.folded_books import moved, rows_of
from tests.support.random_scenarios import Scenario, scenarios
from tests.support.temporary_books import new_books

pytestmark = pytest.mark.usefixtures("each_store")


@given(st.data(), scenarios())
@examples(15)
def test_rows_in_memory_are_those_of_the_tables_and_move_as_they_do(data, scenario):
    events = data.draw(st.permutations(scenario.events), label="events")
    count = data.draw(st.integers(0, len(events)), label="how many the tables have")
    asyncio.run(rows_in_memory_are_those_of_the_tables_and_move_as_they_do(scenario, events, count))


async def rows_in_memory_are_those_of_the_tables_and_move_as_they_do(
    scenario: Scenario, events: list, count: int
) -> None:
    rules = Rules(reporting_tz=scenario.zone)
    async with new_books(rules) as books:
        await books.record(*events[:count])
        async with books.store() as store:

            def compare(connection: Connection) -> None:
                ids = store.positions(connection).books
                for book in BOOKS:
                    stored = _rows(connection, book, ids[book.name])
                    assert stored == Counter(rows_of(book, events[:count], rules)), book.name
                    changes = moved(book, events, MemoryRows(stored_rows(connection, ids[book.name])), rules)
                    assert not Counter(changes.removed) - stored, book.name
                    stored.subtract(changes.removed)
                    stored.update(changes.added)
                    assert +stored == Counter(rows_of(book, events, rules)), book.name

            await store.read(compare)


def _rows(connection: Connection, book: Book, book_id: int) -> Counter[Row]:
    """All rows of a book in its tables."""
    rows: Counter[Row] = Counter()
    for row_type in row_types(book):
        table = ROWS[row_type]
        columns = [table.c[name] for name in row_type.__struct_fields__]
        found = connection.execute(select(*columns).where(table.c.book == book_id))
        rows.update(STATEMENTS[row_type].to_row(tuple(values)) for values in found)
    return rows

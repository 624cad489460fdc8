"""A sum beyond 64 bits is an error on either store, and never a figure that is nearly right."""

import pytest
from sqlalchemy.exc import SQLAlchemyError

from service.books import tables
from tests.support.temporary_books import new_books

pytestmark = pytest.mark.usefixtures("each_store")


async def test_a_sum_beyond_64_bits_is_an_error() -> None:
    key, half = (1, 0, "usd", "", "2025-11-01", "month", 1), 2**62
    add = tables.ADD_TO_TOTALS["mrr_days"].add
    async with new_books() as books, books.store() as store:
        await store.write(lambda connection: add(connection, [(*key, half, 0, 1)]))

        with pytest.raises(SQLAlchemyError):
            await store.write(lambda connection: add(connection, [(*key, half, 0, 1)]))

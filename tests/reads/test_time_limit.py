"""A read of SQLite's books ends in time, whatever it asks, and leaves its connection fit for the next."""

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from service.storage import database
from service.storage.database import SqliteDatabase

ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE i < 0"
)


async def test_a_read_that_takes_too_long_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_COMMAND_SECONDS", 0.2)
    store = SqliteDatabase(tmp_path / "books.db", time_limited=True)

    def count(connection: Connection) -> int:
        return int(connection.execute(text("SELECT 1")).scalar_one())

    try:
        await store.write(lambda connection: connection.exec_driver_sql("CREATE TABLE t (i)"))
        with pytest.raises(OperationalError):
            await store.read(lambda connection: connection.execute(ENDLESS).all())
        assert await store.read(count) == 1
    finally:
        await store.close()

"""Changes that nobody may make."""

from service.books.store import BookStore
from service.ledger.store import Ledger


async def tamper(store: Ledger | BookStore, statement: str) -> None:
    changed = await store._database.write(lambda connection: connection.exec_driver_sql(statement).rowcount)
    assert changed != 0  # of a table it is -1

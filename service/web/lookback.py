"""Look back: answer a read from books that hold only the events known at an earlier moment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace
from sqlalchemy import Connection

from service.lookback.make_file import open_file
from service.lookback.positions import wanted_books
from service.web.state import State


def is_at_position(connection: Connection, books: dict[str, int], state: State, position: int) -> bool:
    """Whether all partitions of the books hold exactly the events up to this position."""
    return set(state.store.checkpoints(connection, books).values()) == {position}


@asynccontextmanager
async def state_as_known(state: State, position: int, timeout_ms: int) -> AsyncIterator[State]:
    """The state with books of the first `position` events. Raises Unavailable while they are being built."""
    wanted = await wanted_books(state.ledger, position)
    path = await state.lookback.find_or_make(wanted, timeout_ms)
    store = open_file(state.settings, path)
    try:
        yield replace(state, store=store)
    finally:
        await store.close()

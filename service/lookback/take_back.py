"""Books of an earlier position, made from a copy of the live ones.

The histories of all later events are folded again without these. What no later event touches is the same.
"""

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, delete

from projections.fold import FoldError
from service.books import tables
from service.books.engine import fold_again
from service.books.store import BookStore, has_layout
from service.ledger.append import read_head
from service.ledger.history import read_names_between
from service.ledger.store import Ledger
from service.rebuild.fill import move_checkpoints
from service.storage.database import books_path, open_to_look

_HISTORIES_AT_ONCE = 2_000


def copy_books(data_dir: Path, path: Path) -> bool:
    """Copy the live books as they are at one moment, if this version laid them out, and whether it did."""
    if not (books_path(data_dir).exists() and has_layout(data_dir)):
        return False
    with closing(open_to_look(books_path(data_dir))) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
    return True


async def take_back(ledger: Ledger, store: BookStore, position: int, most: int) -> bool:
    """Take the books of a copy back to a position. They may be of no use if it returns False.

    So it is if not all books are there, at one position, and at most so many events ahead.
    """
    positions = await store.read(store.positions)
    ahead = {at - position for at in positions.by_book.values()}
    if len(positions.books) < len(store.books) or len(ahead) > 1 or not 0 <= min(ahead) <= most:
        return False
    head = (await ledger.read(read_head)).position  # beyond the books, a history may be set aside or lifted
    names = await ledger.read(partial(read_names_between, after=position, until=head))
    try:
        for start in range(0, len(names), _HISTORIES_AT_ONCE):
            await fold_again(ledger, store, names[start : start + _HISTORIES_AT_ONCE], position)
    except FoldError:  # some histories may be taken back, and others not yet
        return False
    await store.write(_forget_what_was_made)
    await move_checkpoints(store, positions.books, position)
    return True


def _forget_what_was_made(connection: Connection) -> None:
    """Remove the documents and models that were made of later rows."""
    connection.execute(delete(tables.snapshots))
    connection.execute(delete(tables.stored_models))

"""Quarantine has a digest chain, which begins with the entries as they are now.

Older code would change quarantine without adding to the chain, so it can't go on working here.
"""

from alembic import op
from sqlalchemy import select

from service.ledger import tables
from service.ledger.quarantine_chain import append_records
from service.storage.statements import POSTGRESQL

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_PAGE = 1_000
_SQLITE = """CREATE TABLE quarantine_chain (
    number INTEGER PRIMARY KEY,
    entry BIGINT NOT NULL,
    entry_digest BLOB NOT NULL,
    digest BLOB NOT NULL
)"""
_POSTGRESQL = """CREATE TABLE quarantine_chain (
    number BIGINT PRIMARY KEY,
    entry BIGINT NOT NULL,
    entry_digest BYTEA NOT NULL,
    digest BYTEA NOT NULL
)"""

_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]


def upgrade() -> None:
    """Create the table, and add a record for each entry, a page of them at a time."""
    connection, after = op.get_bind(), 0
    op.execute(_POSTGRESQL if connection.dialect.name == POSTGRESQL else _SQLITE)
    op.execute("CREATE INDEX quarantine_chain_by_entry ON quarantine_chain (entry, number)")
    query = select(_quarantine).order_by(_quarantine.c.id).limit(_PAGE)
    while entries := connection.execute(query.where(_quarantine.c.id > after)).mappings().all():
        append_records(connection, entries)
        after = entries[-1]["id"]
    op.execute("UPDATE compatibility SET oldest = '0007'")

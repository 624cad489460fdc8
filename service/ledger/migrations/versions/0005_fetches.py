"""Thin events of which what they name is still to be fetched.

Older code can't read thin events, so it can't go on working here.
"""

from alembic import op

from service.storage.statements import POSTGRESQL

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SQLITE = """CREATE TABLE fetches (
    processor TEXT NOT NULL,
    event_id TEXT NOT NULL,
    since_us BIGINT NOT NULL,
    due_at_us BIGINT NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (processor, event_id)
) WITHOUT ROWID"""
_POSTGRESQL = """CREATE TABLE fetches (
    processor TEXT COLLATE "C" NOT NULL,
    event_id TEXT COLLATE "C" NOT NULL,
    since_us BIGINT NOT NULL,
    due_at_us BIGINT NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (processor, event_id)
)"""


def upgrade() -> None:
    """Create the table."""
    op.execute(_POSTGRESQL if op.get_bind().dialect.name == POSTGRESQL else _SQLITE)
    op.execute("CREATE INDEX fetches_by_due ON fetches (processor, due_at_us)")
    op.execute("UPDATE compatibility SET oldest = '0005'")

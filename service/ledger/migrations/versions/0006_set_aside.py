"""Histories that are set aside: they are read up to a position only.

Older code can't read the events that say so, and would read such histories to their ends, so it can't go on
working here.
"""

from alembic import op

from service.storage.statements import POSTGRESQL

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SQLITE = """CREATE TABLE set_aside (
    subject TEXT NOT NULL PRIMARY KEY,
    up_to BIGINT NOT NULL,
    position BIGINT NOT NULL
) WITHOUT ROWID"""
_POSTGRESQL = """CREATE TABLE set_aside (
    subject TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    up_to BIGINT NOT NULL,
    position BIGINT NOT NULL
)"""


def upgrade() -> None:
    """Create the table."""
    op.execute(_POSTGRESQL if op.get_bind().dialect.name == POSTGRESQL else _SQLITE)
    op.execute("UPDATE compatibility SET oldest = '0006'")

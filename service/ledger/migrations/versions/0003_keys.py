"""Personal data is sealed with a key for each person; quarantine can be settled; long tasks save progress.

Older code would write personal data unsealed, so it can't go on working here.
"""

from alembic import op

from service.storage.statements import POSTGRESQL

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SQLITE = (
    "CREATE TABLE keys (owner TEXT PRIMARY KEY, sealed BLOB) WITHOUT ROWID",
    "CREATE TABLE cursors (name TEXT PRIMARY KEY, body BLOB NOT NULL, kept_at_us BIGINT NOT NULL)",
)
_POSTGRESQL = (
    'CREATE TABLE keys (owner TEXT COLLATE "C" PRIMARY KEY, sealed BYTEA)',
    """CREATE TABLE cursors (
        name TEXT COLLATE "C" PRIMARY KEY, body BYTEA NOT NULL, kept_at_us BIGINT NOT NULL)""",
)
_BOTH = (
    "ALTER TABLE quarantine ADD COLUMN settled_at_us BIGINT",
    "ALTER TABLE quarantine ADD COLUMN settled_as TEXT",
    "ALTER TABLE quarantine ADD COLUMN settled_because TEXT",
    "UPDATE compatibility SET oldest = '0003'",
)


def upgrade() -> None:
    """Create both tables; add the columns."""
    for statement in (*(_POSTGRESQL if op.get_bind().dialect.name == POSTGRESQL else _SQLITE), *_BOTH):
        op.execute(statement)

"""Events by their ids in a table of their own, and the oldest code that can still work on this schema.

A ledger partitioned by position can't have one unique index on ids. This table is partitioned by the hash
of the id, so each of its indexes stays small. `compatibility` names the oldest schema whose code can go on
working here: a migration that only adds leaves it, and one that removes something raises it.
"""

from alembic import op

from service.storage.statements import POSTGRESQL

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SQLITE = (
    """CREATE TABLE event_ids (
        event_id TEXT NOT NULL,
        processor TEXT NOT NULL,
        account TEXT NOT NULL,
        position BIGINT NOT NULL,
        content_digest BLOB NOT NULL,
        PRIMARY KEY (event_id, processor, account)
    ) WITHOUT ROWID""",
    "INSERT INTO event_ids SELECT event_id, processor, account, position, content_digest FROM events",
    "DROP INDEX events_by_id",
)
_POSTGRESQL = (
    """CREATE TABLE event_ids (
        event_id TEXT COLLATE "C" NOT NULL,
        processor TEXT COLLATE "C" NOT NULL,
        account TEXT COLLATE "C" NOT NULL,
        position BIGINT NOT NULL,
        content_digest BYTEA NOT NULL,
        PRIMARY KEY (event_id, processor, account)
    ) PARTITION BY HASH (event_id)""",
    *(
        f"CREATE TABLE event_ids_{n:02d} PARTITION OF event_ids FOR VALUES WITH (MODULUS 16, REMAINDER {n})"
        for n in range(16)
    ),
)
_BOTH = ("CREATE TABLE compatibility (oldest TEXT NOT NULL)", "INSERT INTO compatibility VALUES ('0002')")


def upgrade() -> None:
    """Create both tables, and fill the first."""
    for statement in (*(_POSTGRESQL if op.get_bind().dialect.name == POSTGRESQL else _SQLITE), *_BOTH):
        op.execute(statement)

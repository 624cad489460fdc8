"""The first ledger: events in a chain, raw deliveries beside them, histories indexed, quarantine.

Positions are plain integer keys, given out by the one writer: an identity column is not in commit
order. `subjects` has no row ids, since its key is all there is to it.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    """CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        recorded_at_us BIGINT NOT NULL,
        processor TEXT NOT NULL,
        account TEXT NOT NULL,
        event_id TEXT NOT NULL,
        type TEXT NOT NULL,
        occurred_at_us BIGINT NOT NULL,
        rank INTEGER NOT NULL,
        trust TEXT NOT NULL,
        data BLOB NOT NULL,
        before BLOB,
        content_digest BLOB NOT NULL,
        delivery BIGINT NOT NULL,
        delivery_digest BLOB NOT NULL,
        digest BLOB NOT NULL
    )""",
    "CREATE UNIQUE INDEX events_by_id ON events (event_id, processor, account)",
    "CREATE INDEX events_by_processor ON events (processor, position)",
    "CREATE INDEX events_unsigned ON events (processor, position) WHERE trust = 'unsigned'",
    """CREATE TABLE deliveries (
        position INTEGER PRIMARY KEY,
        headers BLOB NOT NULL,
        body BLOB NOT NULL,
        proof BLOB NOT NULL
    )""",
    """CREATE TABLE subjects (
        subject TEXT NOT NULL,
        position BIGINT NOT NULL,
        PRIMARY KEY (subject, position)
    ) WITHOUT ROWID""",
    """CREATE TABLE quarantine (
        id INTEGER PRIMARY KEY,
        received_at_us BIGINT NOT NULL,
        processor TEXT NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        conflicts_with BIGINT,
        content_digest BLOB NOT NULL,
        headers BLOB NOT NULL,
        body BLOB NOT NULL,
        proof BLOB NOT NULL
    )""",
    """CREATE UNIQUE INDEX quarantine_once
        ON quarantine (content_digest, reason, processor, coalesce(conflicts_with, 0))""",
)


def upgrade() -> None:
    """Create all four tables."""
    for statement in _STATEMENTS:
        op.execute(statement)

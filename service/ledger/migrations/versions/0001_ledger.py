"""The first ledger: events in a chain, raw deliveries beside them, histories indexed, quarantine.

Positions are plain integer keys, given out by the one writer: an identity column is not in commit
order. `subjects` has no row ids, since its key is the whole row.
"""

from alembic import op

from service.ledger.chain import GENESIS
from service.ledger.range_partitions import add_partitions
from service.storage.statements import POSTGRESQL

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQLITE = (
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


_POSTGRESQL = (
    """CREATE TABLE events (
        position BIGINT PRIMARY KEY,
        recorded_at_us BIGINT NOT NULL,
        processor TEXT COLLATE "C" NOT NULL,
        account TEXT COLLATE "C" NOT NULL,
        event_id TEXT COLLATE "C" NOT NULL,
        type TEXT COLLATE "C" NOT NULL,
        occurred_at_us BIGINT NOT NULL,
        rank INTEGER NOT NULL,
        trust TEXT COLLATE "C" NOT NULL,
        data BYTEA NOT NULL,
        before BYTEA,
        content_digest BYTEA NOT NULL,
        delivery BIGINT NOT NULL,
        delivery_digest BYTEA NOT NULL,
        digest BYTEA NOT NULL
    ) PARTITION BY RANGE (position)""",
    "CREATE INDEX events_by_processor ON events (processor, position)",
    "CREATE INDEX events_unsigned ON events (processor, position) WHERE trust = 'unsigned'",
    """CREATE TABLE deliveries (
        position BIGINT PRIMARY KEY,
        headers BYTEA NOT NULL,
        body BYTEA NOT NULL,
        proof BYTEA NOT NULL
    ) PARTITION BY RANGE (position)""",
    """CREATE TABLE subjects (
        subject TEXT COLLATE "C" NOT NULL,
        position BIGINT NOT NULL,
        PRIMARY KEY (subject, position)
    ) PARTITION BY HASH (subject)""",
    *(
        f"CREATE TABLE subjects_{n:02d} PARTITION OF subjects FOR VALUES WITH (MODULUS 16, REMAINDER {n})"
        for n in range(16)
    ),
    """CREATE TABLE quarantine (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        received_at_us BIGINT NOT NULL,
        processor TEXT COLLATE "C" NOT NULL,
        reason TEXT COLLATE "C" NOT NULL,
        detail TEXT NOT NULL,
        conflicts_with BIGINT,
        content_digest BYTEA NOT NULL,
        headers BYTEA NOT NULL,
        body BYTEA NOT NULL,
        proof BYTEA NOT NULL
    )""",
    """CREATE UNIQUE INDEX quarantine_once
        ON quarantine (content_digest, reason, processor, coalesce(conflicts_with, 0))""",
    "CREATE TABLE turn (id INTEGER PRIMARY KEY, position BIGINT NOT NULL, digest BYTEA NOT NULL)",
    f"INSERT INTO turn VALUES (1, 0, decode('{GENESIS.hex()}', 'hex'))",  # noqa: S608 - a constant of ours
)


def upgrade() -> None:
    """Create all four tables; on PostgreSQL with their first partitions, and `turn`, which appends lock."""
    bind = op.get_bind()
    if bind.dialect.name == POSTGRESQL:
        for statement in _POSTGRESQL:
            op.execute(statement)
        add_partitions(bind, 0, 1)
    else:
        for statement in _SQLITE:
            op.execute(statement)

"""The ledger's tables. The Alembic migrations beside this file create and change them."""

from sqlalchemy import BigInteger, LargeBinary, MetaData, Text
from sqlmodel import Field, SQLModel

metadata = MetaData()


class _Table(SQLModel):
    metadata = metadata


class Event(_Table, table=True):
    """One event at its position. `digest` chains all its columns to the row before."""

    __tablename__ = "events"

    position: int = Field(primary_key=True, sa_type=BigInteger)
    recorded_at_us: int = Field(sa_type=BigInteger)
    processor: str = Field(sa_type=Text)
    account: str = Field(sa_type=Text)
    event_id: str = Field(sa_type=Text)
    type: str = Field(sa_type=Text)
    occurred_at_us: int = Field(sa_type=BigInteger)
    rank: int
    trust: str = Field(sa_type=Text)
    data: bytes = Field(sa_type=LargeBinary)
    before: bytes | None = Field(sa_type=LargeBinary)
    content_digest: bytes = Field(sa_type=LargeBinary)
    delivery: int = Field(sa_type=BigInteger, description="position of the first event of its delivery")
    delivery_digest: bytes = Field(sa_type=LargeBinary)
    digest: bytes = Field(sa_type=LargeBinary)


class EventId(_Table, table=True):
    """An index of events by id, with position and content digest: it shows duplicates and conflicts."""

    __tablename__ = "event_ids"

    event_id: str = Field(primary_key=True, sa_type=Text)
    processor: str = Field(primary_key=True, sa_type=Text)
    account: str = Field(primary_key=True, sa_type=Text)
    position: int = Field(sa_type=BigInteger)
    content_digest: bytes = Field(sa_type=LargeBinary)


class Delivery(_Table, table=True):
    """A raw delivery, with the proof of its sender; at the position of its first event."""

    __tablename__ = "deliveries"

    position: int = Field(primary_key=True, sa_type=BigInteger)
    headers: bytes = Field(sa_type=LargeBinary)
    body: bytes = Field(sa_type=LargeBinary)
    proof: bytes = Field(sa_type=LargeBinary)


class Subject(_Table, table=True):
    """Which histories an event belongs to: an index, which the chain does not cover."""

    __tablename__ = "subjects"

    subject: str = Field(primary_key=True, sa_type=Text)
    position: int = Field(primary_key=True, sa_type=BigInteger)


class Quarantine(_Table, table=True):
    """Deliveries whose sender was proved, but that can't be read, or contradict a recorded event."""

    __tablename__ = "quarantine"

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger)
    received_at_us: int = Field(sa_type=BigInteger)
    processor: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    detail: str = Field(sa_type=Text)
    conflicts_with: int | None = Field(default=None, sa_type=BigInteger)
    content_digest: bytes = Field(sa_type=LargeBinary)
    headers: bytes = Field(sa_type=LargeBinary)
    body: bytes = Field(sa_type=LargeBinary)
    proof: bytes = Field(sa_type=LargeBinary)
    settled_at_us: int | None = Field(default=None, sa_type=BigInteger)
    settled_as: str | None = Field(default=None, sa_type=Text, description="retried or dismissed")
    settled_because: str | None = Field(default=None, sa_type=Text)


class QuarantineRecord(_Table, table=True):
    """A link of quarantine's chain: an entry came, or changed, and `entry_digest` is over it since then."""

    __tablename__ = "quarantine_chain"

    number: int = Field(primary_key=True, sa_type=BigInteger)
    entry: int = Field(sa_type=BigInteger)
    entry_digest: bytes = Field(sa_type=LargeBinary)
    digest: bytes = Field(sa_type=LargeBinary)


class Key(_Table, table=True):
    """The key that seals an owner's data, itself sealed by the master key; null once the owner was erased."""

    __tablename__ = "keys"

    owner: str = Field(primary_key=True, sa_type=Text)
    sealed: bytes | None = Field(sa_type=LargeBinary)


class Cursor(_Table, table=True):
    """The progress and findings of a long task, by its name."""

    __tablename__ = "cursors"

    name: str = Field(primary_key=True, sa_type=Text)
    body: bytes = Field(sa_type=LargeBinary)
    kept_at_us: int = Field(sa_type=BigInteger)


class Fetch(_Table, table=True):
    """A thin event of which what it names is still to be fetched: not before `due_at_us`."""

    __tablename__ = "fetches"

    processor: str = Field(primary_key=True, sa_type=Text)
    event_id: str = Field(primary_key=True, sa_type=Text, description="the processor's own")
    since_us: int = Field(sa_type=BigInteger)
    due_at_us: int = Field(sa_type=BigInteger)
    attempts: int


class SetAsideHistory(_Table, table=True):
    """A history that is read up to a position only. The events say so: this follows from them."""

    __tablename__ = "set_aside"

    subject: str = Field(primary_key=True, sa_type=Text)
    up_to: int = Field(sa_type=BigInteger)
    position: int = Field(sa_type=BigInteger, description="of the event that says so")


class Turn(_Table, table=True):
    """The ledger's head on PostgreSQL, one row: the transaction that locks it may append."""

    __tablename__ = "turn"

    id: int = Field(primary_key=True)
    position: int = Field(sa_type=BigInteger)
    digest: bytes = Field(sa_type=LargeBinary)

"""Witnesses: what was acknowledged, known outside of the ledger, and the ledger compared with it.

A ledger may lose its end: a damaged journal, an old copy in its place, a standby that lacked the last
commits. Its chain is unbroken then. A witness is a position and the digest of the chain there, written
elsewhere after the commit. A ledger that lacks it must record nothing more, until an operator accepts that.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

import structlog
from msgspec import Struct, json
from sqlalchemy import Connection, select

from service.clock import utc_now
from service.core.errors import LostEvents, Unavailable
from service.core.moments import rfc3339
from service.ledger import tables
from service.ledger.append import read_head
from service.ledger.cursors import read_cursors, save_cursor
from service.ledger.draft import Head

SEEN, APPENDED = "this process", "its last append"  # the witness that each process is
_ACCEPTED = "accepted loss"  # the name of the cursor

_events = tables.Event.__table__  # type: ignore[attr-defined]

log = structlog.get_logger()


class Witness(Struct, frozen=True, kw_only=True):
    """A position that the ledger had at a moment; `digest` is the chain's there, in hexadecimal, if known."""

    position: int
    digest: str | None
    at: datetime


Witnesses = Mapping[str, Witness]  # by the names of the places where they are kept
ReadWitnesses = Callable[[], Awaitable[Witnesses]]


class Loss(Struct, frozen=True, kw_only=True):
    """What the ledger lacks: it is at `position`, and `witnesses` know of `known`."""

    position: int
    known: Witness
    witnesses: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many positions are gone; 1 where another event stands at one, and more may have changed."""
        return max(self.known.position - self.position, 1)

    def __str__(self) -> str:
        by, at = " and ".join(self.witnesses), rfc3339(self.known.at)
        if self.known.position > self.position:
            lost = f"{_positions(self.position + 1, self.known.position)} gone"
            found = f"{lost}: the ledger ends at {self.position}"
        else:
            lost = f"another event is at position {self.known.position}"
            found = f"{lost}: the ledger, now at {self.position}, was replaced"
        return f"{found}; {by} knew position {self.known.position} at {at}"


def _positions(first: int, last: int) -> str:
    return f"position {first} is" if first == last else f"positions {first}–{last} are"


def witness_of(head: Head, now: datetime) -> Witness:
    """The ledger's head as a witness."""
    return Witness(position=head.position, digest=head.digest.hex(), at=now)


def find_loss(connection: Connection, witnesses: Witnesses) -> Loss | None:
    """The greatest loss that a witness tells of. One older than the last accepted loss tells nothing."""
    accepted_at, position = _accepted_at(connection), read_head(connection).position
    lost = {
        name: witness
        for name, witness in witnesses.items()
        if not (accepted_at and witness.at <= accepted_at) and not _holds(connection, witness, position)
    }
    if not lost:
        return None
    known = max(lost.values(), key=lambda witness: witness.position)
    return Loss(position=position, known=known, witnesses=tuple(sorted(lost)))


def holds(connection: Connection, witness: Witness) -> bool:
    """Whether the ledger has what a witness knows, accepted or not."""
    return _holds(connection, witness, read_head(connection).position)


def _holds(connection: Connection, witness: Witness, end: int) -> bool:
    if witness.position > end:
        return False
    if witness.digest is None or witness.position == 0:
        return True
    query = select(_events.c.digest).where(_events.c.position == witness.position)
    digest = connection.execute(query).scalar_one_or_none()
    return digest is not None and digest.hex() == witness.digest


def record_accepted(connection: Connection, loss: Loss, now: datetime) -> Witness:
    """Record in the ledger that what earlier witnesses know is given up; the head, a witness from now on.

    Raises LostEvents if the ledger is no longer at the position of the loss.
    """
    head = read_head(connection)
    if head.position != loss.position:
        raise LostEvents(str(loss))
    save_cursor(connection, _ACCEPTED, json.encode(now), now)
    log.warning("loss_accepted", detail=str(loss))
    return witness_of(head, now)


def _accepted_at(connection: Connection) -> datetime | None:
    body = read_cursors(connection, [_ACCEPTED]).get(_ACCEPTED)
    return json.decode(body, type=datetime) if body else None


class Reconnected(Unavailable):
    """A transaction runs on a new connection, which may lead to another copy of the ledger."""


class Guard:
    """Compares the ledger with its witnesses while a process runs; `loss` is what it lacks, if anything.

    Each append is compared with what this process knows, at no cost. On a new connection to the database, and
    while anything is lost, all witnesses are compared, which `read_elsewhere` reads. `count_lost` is called
    with the number of lost positions after each comparison.
    """

    def __init__(
        self, read_elsewhere: ReadWitnesses, count_lost: Callable[[int], None] = lambda _: None
    ) -> None:
        self.loss: Loss | None = None
        self._read_elsewhere = read_elsewhere
        self._count_lost = count_lost
        self._seen: Witness | None = None
        self._appended: Witness | None = None
        self._compared_connection = 0

    async def witnesses(self, *, elsewhere: bool = True) -> Witnesses:
        """What this process knows and, while anything is lost or if asked for, what is kept elsewhere."""
        own = {SEEN: self._seen, APPENDED: self._appended}
        known = {name: witness for name, witness in own.items() if witness}
        return {**await self._read_elsewhere(), **known} if elsewhere or self.loss else known

    def acknowledge(self, position: int) -> None:
        """Remember a position that this process appended."""
        if position:
            self._appended = Witness(position=position, digest=None, at=utc_now())

    def check_append(self, head: Head, connection_number: int) -> None:
        """Check the head that an append follows. Raises Reconnected if all witnesses must be asked first."""
        is_behind = any(own and own.position > head.position for own in (self._seen, self._appended))
        if self.loss or is_behind or connection_number != self._compared_connection:
            raise Reconnected("the ledger must be compared with its witnesses")

    def compare_all(self, connection: Connection, witnesses: Witnesses, connection_number: int) -> None:
        """Compare the ledger, on a connection of this number, with all witnesses. Raises LostEvents."""
        self._compare(connection, witnesses)
        self._compared_connection = connection_number

    def look(self, connection: Connection, witnesses: Witnesses) -> Witness:
        """Compare the ledger with witnesses; its head, which this process knows from now on.

        Raises LostEvents.
        """
        self._compare(connection, witnesses)
        self._seen = witness_of(read_head(connection), utc_now())
        return self._seen

    def _compare(self, connection: Connection, witnesses: Witnesses) -> None:
        loss = find_loss(connection, witnesses)
        if loss != self.loss:
            log.error("ledger_lost" if loss else "ledger_no_longer_lost", detail=str(loss or self.loss))
        self.loss = loss
        self._count_lost(loss.count if loss else 0)
        if loss:
            raise LostEvents(str(loss))
        # An accepted loss is known no more.
        self._seen = self._seen if self._seen and holds(connection, self._seen) else None
        self._appended = self._appended if self._appended and holds(connection, self._appended) else None

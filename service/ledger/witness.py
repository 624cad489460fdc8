"""Witnesses: what was acknowledged, known outside of the ledger, and the ledger compared with it.

A ledger may lose its end: a damaged journal, an old copy in its place, a standby that lacked the last
commits. Its chain is unbroken then. A witness is a position and the digest of the chain there, written
elsewhere after the commit. A ledger that lacks it must record nothing more, until an operator accepts that.
"""

import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from hashlib import sha256

import structlog
from msgspec import Struct, json
from sqlalchemy import Connection, select

from service.clock import utc_now
from service.core.delivery import Proof
from service.core.errors import LostEvents, Unavailable
from service.core.events import REVISION_MARK, Event, LossAccepted, LostHead, subjects
from service.core.moments import rfc3339, to_us
from service.ledger import tables
from service.ledger.append import append_deliveries, lock_head, read_head
from service.ledger.draft import Head, Incoming
from service.ledger.history import EVENT_COLUMNS, to_event
from service.ledger.vault import Vault

SEEN, APPENDED = "this process", "its last append"  # the witness that each process is
_OWN = "daybook"  # the processor of what Daybook itself records of the ledger

_subjects = tables.Subject.__table__  # type: ignore[attr-defined]
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
    """What the ledger lacks: it is at `position`, and `witnesses` know of `known`.

    `heads` are those that any of them knows by digest.
    """

    position: int
    known: Witness
    witnesses: tuple[str, ...]
    heads: tuple[LostHead, ...]

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


def find_loss(connection: Connection, witnesses: Witnesses, vault: Vault | None) -> Loss | None:
    """The greatest loss that a witness tells of, apart from accepted ones.

    A loss was accepted if an event says so that was made with the vault's key; without a vault none was.
    """
    position = read_head(connection).position
    lost = {name: each for name, each in witnesses.items() if not _holds(connection, each, position)}
    if lost and vault:
        accepted = list(_read_accepted(connection, vault))
        lost = {name: each for name, each in lost.items() if not _is_accepted(each, accepted, utc_now())}
    return loss_of(lost, position)


def loss_of(lost: Witnesses, position: int = 0) -> Loss | None:
    """The loss of a ledger, at a position, that lacks what these witnesses know; None if that is nothing."""
    if not any(witness.position for witness in lost.values()):
        return None
    known = max(lost.values(), key=lambda witness: witness.position)
    heads = sorted({(each.position, each.digest) for each in lost.values() if each.digest})
    return Loss(
        position=position,
        known=known,
        witnesses=tuple(sorted(lost)),
        heads=tuple(LostHead(position=at, digest=digest) for at, digest in heads),
    )


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


def record_accepted(connection: Connection, loss: Loss, vault: Vault, now: datetime) -> Witness:
    """Append the event by which the loss is accepted; the head, a witness from now on.

    Raises LostEvents if the ledger is no longer at the position of the loss.
    """
    head = lock_head(connection)
    if head.position != loss.position:
        raise LostEvents(str(loss))
    event = _acceptance(head.position + 1, loss.heads, now)
    delivery = Incoming(
        events=[event],
        content_digest=_content_digest(event),
        headers=b"{}",
        body=json.encode(event),
        proof=Proof(processor=_OWN, method="operator", received_at=now, trust=event.trust),
    )
    append_deliveries(connection, head, [delivery], to_us(now), vault)
    log.warning("loss_accepted", detail=str(loss))
    return witness_of(read_head(connection), now)


def _acceptance(position: int, heads: tuple[LostHead, ...], now: datetime) -> Event:
    return Event(
        processor=_OWN,
        event_id=f"loss-accepted{REVISION_MARK}at-{position}",
        occurred_at=now,
        trust="unsigned",
        data=LossAccepted(heads=heads),
    )


def _content_digest(event: Event) -> bytes:
    """Of an acceptance: no delivery has such a content. The ledger's digest of it is made with a key."""
    return sha256(b"daybook loss accepted\n" + json.encode(event)).digest()


def _read_accepted(connection: Connection, vault: Vault) -> Iterable[Event]:
    """The events by which a loss was accepted; without those that were not made with the vault's key."""
    (name,) = subjects(_acceptance(0, (), utc_now()))
    query = (
        select(*EVENT_COLUMNS, _events.c.content_digest)
        .select_from(_subjects.join(_events, _events.c.position == _subjects.c.position))
        .where(_subjects.c.subject == name)
    )
    for row in connection.execute(query):
        event = to_event(row)
        if hmac.compare_digest(row[-1], vault.digest(_content_digest(event))):
            yield event


def _is_accepted(witness: Witness, accepted: Iterable[Event], now: datetime) -> bool:
    """Whether an operator gave up what a witness knows: it was shown to them, or is older.

    What a time in the future says is worth nothing.
    """
    for event in accepted:
        heads = event.data.heads if isinstance(event.data, LossAccepted) else ()
        if witness.digest and LostHead(position=witness.position, digest=witness.digest) in heads:
            return True
        if witness.at <= event.occurred_at <= now:
            return True
    return False


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

    def compare_all(
        self, connection: Connection, witnesses: Witnesses, vault: Vault, connection_number: int
    ) -> None:
        """Compare the ledger, on a connection of this number, with all witnesses. Raises LostEvents."""
        self._compare(connection, witnesses, vault)
        self._compared_connection = connection_number

    def look(self, connection: Connection, witnesses: Witnesses, vault: Vault) -> Witness:
        """Compare the ledger with witnesses; its head, which this process knows from now on.

        Raises LostEvents.
        """
        self._compare(connection, witnesses, vault)
        self._seen = witness_of(read_head(connection), utc_now())
        return self._seen

    def _compare(self, connection: Connection, witnesses: Witnesses, vault: Vault) -> None:
        loss = find_loss(connection, witnesses, vault)
        if loss != self.loss:
            log.error("ledger_lost" if loss else "ledger_no_longer_lost", detail=str(loss or self.loss))
        self.loss = loss
        self._count_lost(loss.count if loss else 0)
        if loss:
            raise LostEvents(str(loss))
        # An accepted loss is known no more.
        self._seen = self._seen if self._seen and holds(connection, self._seen) else None
        self._appended = self._appended if self._appended and holds(connection, self._appended) else None

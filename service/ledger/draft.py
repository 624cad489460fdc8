"""What a batch of deliveries adds to the ledger: positions, digests, duplicates, conflicts. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, json

from service.core.delivery import Proof
from service.core.events import Event, subjects
from service.core.moments import to_us
from service.ledger import chain
from service.ledger.personal_data import owners_of_all, seal_data
from service.ledger.vault import Keys, seal

EventKey = tuple[str, str, str]  # processor, account, event id
Seen = tuple[int, bytes, str]  # position, content digest, trust


class Incoming(Struct, frozen=True, kw_only=True):
    """A delivery to be kept: its events where it could be read, and why it is in quarantine where not.

    A list of records that could be read in part has both.
    """

    events: Sequence[Event]
    content_digest: bytes
    headers: bytes
    body: bytes
    proof: Proof
    reason: str | None = None
    detail: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a delivery. `position` is that of its (last) event; None if it has none."""

    position: int | None
    duplicate: bool = False
    conflict: bool = False
    quarantined: bool = False


class Head(Struct, frozen=True, kw_only=True):
    """The ledger's end: 0 and 32 zero bytes when it is empty."""

    position: int
    digest: bytes


class Draft:
    """The rows that a batch will add, with positions and digests that follow the head. Pure.

    `known` are those of the batch's events that the ledger already holds; `head` moves with each new one.
    `keys` seal what tells of their owners, and `keyed` makes a digest one that can't be guessed.
    """

    def __init__(
        self,
        head: Head,
        known: dict[EventKey, Seen],
        recorded_at_us: int,
        keys: Keys,
        keyed: Callable[[bytes], bytes],
    ) -> None:
        self.head = head
        self._known = known
        self._keys = keys
        self._keyed = keyed
        self._recorded_at_us = recorded_at_us
        self.events: list[dict[str, Any]] = []
        self.deliveries: list[dict[str, Any]] = []
        self.subjects: list[dict[str, Any]] = []
        self.quarantine: list[dict[str, Any]] = []

    def add(self, incoming: Incoming) -> Outcome:
        """Place one delivery; say what became of it."""
        content = self._keyed(incoming.content_digest)
        raw = {
            "headers": incoming.headers,
            "body": seal(self._keys, owners_of_all(incoming.events), incoming.body),
            "proof": json.encode(incoming.proof),
        }
        if incoming.reason:
            self._to_quarantine(incoming, raw, content, incoming.reason, incoming.detail, None)
            if not incoming.events:
                return Outcome(position=None, quarantined=True)
        new = [event for event in incoming.events if self._key(event) not in self._known]
        if new:
            first = self.head.position + 1
            self.deliveries.append({"position": first, **raw})
            digest = chain.delivery_digest(**raw)
            for event in new:
                self._append(event, content, first, digest)
        seen = [self._known[self._key(event)] for event in incoming.events]
        position = max(at for at, _, _ in seen)
        # A ledger's first events have digests without a key. What was fetched may have been rendered in
        # another version than the delivery that comes late.
        conflict = any(
            told not in (content, incoming.content_digest) and trust != "fetched" for _, told, trust in seen
        )
        if conflict:
            detail = f"the event at position {position} has this id and other content"
            self._to_quarantine(incoming, raw, content, "conflict", detail, position)
        return Outcome(
            position=position,
            duplicate=not new and not conflict,
            conflict=conflict,
            quarantined=incoming.reason is not None,
        )

    def _append(self, event: Event, content_digest: bytes, delivery: int, delivery_digest: bytes) -> None:
        position = self.head.position + 1
        row: dict[str, Any] = {
            "position": position,
            "recorded_at_us": self._recorded_at_us,
            "processor": event.processor,
            "account": event.account,
            "event_id": event.event_id,
            "type": event.type,
            "occurred_at_us": to_us(event.occurred_at),
            "rank": event.rank,
            "trust": event.trust,
            "data": seal_data(self._keys, event, json.encode(event.data)),
            "before": event.before and seal_data(self._keys, event, event.before),
            "content_digest": content_digest,
            "delivery": delivery,
            "delivery_digest": delivery_digest,
        }
        row["digest"] = chain.link(self.head.digest, row)
        self.head = Head(position=position, digest=row["digest"])
        self._known[self._key(event)] = (position, content_digest, event.trust)
        self.events.append(row)
        self.subjects += [{"subject": name, "position": position} for name in set(subjects(event))]

    def _to_quarantine(
        self,
        incoming: Incoming,
        raw: dict[str, Any],
        content: bytes,
        reason: str,
        detail: str,
        conflicts_with: int | None,
    ) -> None:
        self.quarantine.append(
            {
                "received_at_us": self._recorded_at_us,
                "processor": incoming.proof.processor,
                "reason": reason,
                "detail": detail.replace("\0", ""),  # PostgreSQL keeps none in a text
                "conflicts_with": conflicts_with,
                "content_digest": content,
                **raw,
            }
        )

    @staticmethod
    def _key(event: Event) -> EventKey:
        return event.processor, event.account, event.event_id

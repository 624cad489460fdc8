"""The rows that a batch of deliveries adds to the ledger: positions, digests, duplicates, conflicts. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, json

from service.core.delivery import Proof
from service.core.events import Event, subjects
from service.core.moments import to_us
from service.ledger import chain
from service.ledger.personal_data import owners_of_events, seal_data
from service.ledger.vault import Keys, seal

EventKey = tuple[str, str, str]  # processor, account, event id
KnownEvent = tuple[int, bytes, str]  # position, content digest, trust


class Incoming(Struct, frozen=True, kw_only=True):
    """A delivery to be recorded: its events if it could be read, the reason for quarantine if not.

    A list of records of which some could be read has both.
    """

    events: Sequence[Event]
    content_digest: bytes
    headers: bytes
    body: bytes
    proof: Proof
    reason: str | None = None
    detail: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """The result of appending a delivery. `position` is that of its last event; None without events."""

    position: int | None
    duplicate: bool = False
    conflict: bool = False
    quarantined: bool = False


class Head(Struct, frozen=True, kw_only=True):
    """The last position and its digest; 0 and 32 zero bytes for an empty ledger."""

    position: int
    digest: bytes


class Draft:
    """The rows that a batch will add, with positions and digests that follow the head. Pure.

    `known` are the batch's events that the ledger already holds; `head` moves with each new event. `keys`
    seal the personal data of their owners. `keyed_digest` makes a digest against which nobody
    without the key can test guesses.
    """

    def __init__(
        self,
        head: Head,
        known: dict[EventKey, KnownEvent],
        recorded_at_us: int,
        keys: Keys,
        keyed_digest: Callable[[bytes], bytes],
    ) -> None:
        self.head = head
        self._known = known
        self._keys = keys
        self._keyed_digest = keyed_digest
        self._recorded_at_us = recorded_at_us
        self.events: list[dict[str, Any]] = []
        self.deliveries: list[dict[str, Any]] = []
        self.subjects: list[dict[str, Any]] = []
        self.quarantine: list[dict[str, Any]] = []

    def add(self, incoming: Incoming) -> Outcome:
        """Add one delivery's rows."""
        content_digest = self._keyed_digest(incoming.content_digest)
        raw = {
            "headers": incoming.headers,
            "body": seal(self._keys, owners_of_events(incoming.events), incoming.body),
            "proof": json.encode(incoming.proof),
        }
        if incoming.reason:
            self._quarantine(incoming, raw, content_digest, incoming.reason, incoming.detail, None)
            if not incoming.events:
                return Outcome(position=None, quarantined=True)
        new = [event for event in incoming.events if self._key(event) not in self._known]
        if new:
            first_position = self.head.position + 1
            self.deliveries.append({"position": first_position, **raw})
            delivery_digest = chain.delivery_digest(**raw)
            for event in new:
                self._append(event, content_digest, first_position, delivery_digest)
        known = [self._known[self._key(event)] for event in incoming.events]
        last_position = max(position for position, _, _ in known)
        # Events of the first versions have digests without a key. A fetched event may be rendered in another
        # API version than its late delivery, so their contents may differ without a conflict.
        conflict = any(
            digest not in (content_digest, incoming.content_digest) and trust != "fetched"
            for _, digest, trust in known
        )
        if conflict:
            detail = f"the event at position {last_position} has this id and other content"
            self._quarantine(incoming, raw, content_digest, "conflict", detail, last_position)
        return Outcome(
            position=last_position,
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

    def _quarantine(
        self,
        incoming: Incoming,
        raw: dict[str, Any],
        content_digest: bytes,
        reason: str,
        detail: str,
        conflicts_with: int | None,
    ) -> None:
        self.quarantine.append(
            {
                "received_at_us": self._recorded_at_us,
                "processor": incoming.proof.processor,
                "reason": reason,
                "detail": detail.replace("\0", ""),  # PostgreSQL refuses a NUL in a text
                "conflicts_with": conflicts_with,
                "content_digest": content_digest,
                **raw,
            }
        )

    @staticmethod
    def _key(event: Event) -> EventKey:
        return event.processor, event.account, event.event_id

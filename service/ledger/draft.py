"""The rows that a batch of deliveries adds to the ledger: positions, digests, duplicates, conflicts. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, json

from service.core.delivery import Proof
from service.core.events import (
    REVISION_MARK,
    SUPERSEDED_SUFFIX,
    Event,
    Lifted,
    SetAside,
    Superseded,
    ThinEvent,
    original_id,
    revision_id,
    revision_number,
    subject,
    subjects,
)
from service.core.moments import to_us
from service.ledger import chain
from service.ledger.personal_data import owners_of_events, seal_data
from service.ledger.renderings import EventRenderings, KnownRendering, Raw, Render, rendering_event
from service.ledger.vault import Keys, StoredBody, seal_body

EventKey = tuple[str, str, str]  # processor, account, event id
KnownEvent = tuple[int, bytes, str]  # position, content digest, trust


class Incoming(Struct, frozen=True, kw_only=True):
    """A delivery to be recorded: its events if it could be read, the reason for quarantine if not.

    A list of records of which some could be read has both. `render` is set where an event may come in several
    renderings: it says how a body renders it. The ids of such events are unique over all accounts.
    """

    events: Sequence[Event]
    content_digest: bytes
    headers: bytes
    body: bytes
    proof: Proof
    reason: str | None = None
    detail: str = ""
    render: Render | None = None

    @property
    def rendered_event(self) -> Event | None:
        """The event of which this is a rendering, where there may be others."""
        if self.render is None or len(self.events) != 1 or REVISION_MARK in self.events[0].event_id:
            return None
        return self.events[0]


class Outcome(Struct, frozen=True, kw_only=True):
    """The result of appending a delivery. `position` is that of its last event; None without events.

    `end` is the last position that it added, 0 if it added none.
    """

    position: int | None
    duplicate: bool = False
    conflict: bool = False
    quarantined: bool = False
    end: int = 0


class Head(Struct, frozen=True, kw_only=True):
    """The last position and its digest; 0 and 32 zero bytes for an empty ledger."""

    position: int
    digest: bytes


class Draft:
    """The rows that a batch will add, with positions and digests that follow the head. Pure.

    `known` are the batch's events that the ledger already holds, and `renderings` those of which the batch
    has another rendering; `head` moves with each new event. `keys` seal the personal data of their owners.
    `keyed_digest` makes a digest against which nobody without the key can test guesses. `corrections` are the
    events that other renderings of known events made necessary.
    """

    def __init__(
        self,
        head: Head,
        known: dict[EventKey, KnownEvent],
        renderings: dict[tuple[str, str], EventRenderings],
        recorded_at_us: int,
        keys: Keys,
        keyed_digest: Callable[[bytes], bytes],
    ) -> None:
        self.head = head
        self._known = known
        self._renderings = renderings
        self._first_renderings: dict[tuple[str, str], tuple[int, Incoming]] = {}  # of this batch
        self._keys_by_id = keys_by_id(known)
        self._keys = keys
        self._keyed_digest = keyed_digest
        self._recorded_at_us = recorded_at_us
        self.corrections: list[Event] = []
        self.events: list[dict[str, Any]] = []
        self.deliveries: list[dict[str, Any]] = []
        self.subjects: list[dict[str, Any]] = []
        self.fetches: list[dict[str, Any]] = []
        self.set_aside: list[tuple[str, int | None, int]] = []  # as `set_aside.apply` takes them
        self.quarantine: list[dict[str, Any]] = []

    def add(self, incoming: Incoming) -> Outcome:
        """Add one delivery's rows."""
        content_digest = self._keyed_digest(incoming.content_digest)
        if incoming.reason:
            self._quarantine(incoming, content_digest, incoming.reason, incoming.detail, None)
            if not incoming.events:
                return Outcome(position=None, quarantined=True)
        event = incoming.rendered_event
        if event and (known := self._find(event, any_account=True)):
            return self._add_rendering(incoming, event, known, content_digest)
        return self._add(incoming, content_digest)

    def _add(self, incoming: Incoming, content_digest: bytes) -> Outcome:
        has_unique_ids = incoming.render is not None
        new = [
            event
            for event in incoming.events
            if not self._find(event, any_account=has_unique_ids)
            and (not has_unique_ids or self._is_in_place(event, incoming.events))
        ]
        if new:
            raw = Raw(headers=incoming.headers, body=incoming.body, proof=json.encode(incoming.proof))
            self._append_delivery(raw, new, incoming.events, content_digest)
        if incoming.rendered_event:
            self._first_renderings[_id(incoming.rendered_event)] = self.head.position, incoming
        found = [self._find(event, any_account=has_unique_ids) for event in incoming.events]
        known = [entry for entry in found if entry]
        if not known:
            return Outcome(position=None, duplicate=True)
        last_position = max(position for position, _, _ in known)
        # Events of the first versions have digests without a key. A fetched event may be rendered in another
        # API version than its late delivery, so their contents may differ without a conflict.
        conflict = not has_unique_ids and any(
            digest not in (content_digest, incoming.content_digest) and trust != "fetched"
            for _, digest, trust in known
        )
        if conflict:
            detail = f"the event at position {last_position} has this id and other content"
            self._quarantine(incoming, content_digest, "conflict", detail, last_position)
        return Outcome(
            position=last_position,
            duplicate=not new and not conflict,
            conflict=conflict,
            quarantined=incoming.reason is not None,
            end=self.head.position if new else 0,
        )

    def _is_in_place(self, event: Event, events: Sequence[Event]) -> bool:
        """Whether a revision, or a marker, follows on what this ledger holds.

        One of another ledger, or of a retranslation that was overtaken, may replace another event than the
        one that counts here; then both would count.
        """
        if isinstance(event.data, Superseded):
            return self._holds((event.processor, event.account, event.data.event_id), events)
        if (number := revision_number(event.event_id)) < 2:
            return True
        previous = revision_id(original_id(event.event_id), number - 1)
        key = self._keys_by_id.get((event.processor, previous))
        return key is not None and self._holds((*key[:2], previous + SUPERSEDED_SUFFIX), events)

    def _holds(self, key: EventKey, events: Sequence[Event]) -> bool:
        return key in self._known or any(
            (event.processor, event.account, event.event_id) == key for event in events
        )

    def _add_rendering(
        self, incoming: Incoming, event: Event, known: KnownEvent, content_digest: bytes
    ) -> Outcome:
        """Add another rendering of a known event: nothing if it says what one before it said."""
        duplicate = Outcome(position=known[0], duplicate=True)
        renderings = self._renderings.get(_id(event)) or self._renderings_in_batch(event)
        if renderings is None:
            return duplicate
        rendering = rendering_of(incoming, event, self.head.position + 1, content_digest)
        if rendering.rendered is None or renderings.knows(rendering) or not renderings.is_whole:
            return duplicate
        if contradicted := renderings.contradicted(rendering):
            detail = f"the event at position {contradicted.position} has this id and other content"
            self._quarantine(incoming, content_digest, "conflict", detail, contradicted.position)
            return Outcome(position=known[0], conflict=True)
        self._keep_rendering(incoming, event, renderings, rendering)
        return Outcome(position=known[0], duplicate=True, end=self.head.position)

    def _renderings_in_batch(self, event: Event) -> EventRenderings | None:
        """The event as this batch brought it first; None where the ledger holds it in this rendering."""
        if _id(event) not in self._first_renderings:
            return None
        position, incoming = self._first_renderings[_id(event)]
        first, digest = incoming.events[0], self._keyed_digest(incoming.content_digest)
        rendering = rendering_of(incoming, first, position, digest)
        source = Raw(headers=incoming.headers, body=incoming.body, proof=json.encode(incoming.proof))
        return self._renderings.setdefault(
            _id(event), EventRenderings(all=[rendering], effective=[first], source=source)
        )

    def _keep_rendering(
        self, incoming: Incoming, event: Event, renderings: EventRenderings, rendering: KnownRendering
    ) -> None:
        """Append a rendering, and the events by which another rendering counts from now on.

        Each event stands with the bytes that it was read from, so these may need a delivery of their own.
        """
        assert rendering.rendered  # noqa: S101 - it has just come
        raw = Raw(headers=incoming.headers, body=incoming.body, proof=json.encode(incoming.proof))
        kept = rendering_event(event, rendering, self._keyed_digest)
        corrections = renderings.add(rendering, event, raw)
        self.corrections += corrections
        digest = self._keyed_digest(rendering.rendered.content_digest)
        if renderings.source is raw:
            self._append_delivery(raw, [kept, *corrections], [event, *corrections], digest)
            return
        self._append_delivery(raw, [kept], [event], digest)
        if corrections and renderings.source:
            best = max(renderings.all, key=lambda known: known.rank)
            assert best.rendered  # noqa: S101 - else nothing would have been added
            digest = self._keyed_digest(best.rendered.content_digest)
            self._append_delivery(renderings.source, corrections, corrections, digest)

    def _find(self, event: Event, *, any_account: bool) -> KnownEvent | None:
        """The event of this id, in its account or in any; a marker belongs to one account."""
        key = event.processor, event.account, event.event_id
        if any_account and revision_number(event.event_id):
            key = self._keys_by_id.get(_id(event), key)
        return self._known.get(key)

    def _append_delivery(
        self, raw: Raw, events: Sequence[Event], named_by: Sequence[Event], content_digest: bytes
    ) -> None:
        """Append events with the bytes that they were read from, sealed for all whom `named_by` names."""
        first_position = self.head.position + 1
        delivery = StoredBody(headers=raw.headers, body=raw.body, proof=raw.proof)
        sealed = delivery._replace(body=seal_body(self._keys, owners_of_events(named_by), delivery))._asdict()
        self.deliveries.append({"position": first_position, **sealed})
        delivery_digest = chain.delivery_digest(**sealed)
        for event in events:
            self._append(event, content_digest, first_position, delivery_digest)

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
        key = event.processor, event.account, event.event_id
        self._known[key] = (position, content_digest, event.trust)
        self._keys_by_id.setdefault(_id(event), key)
        self.events.append(row)
        self.subjects += [{"subject": name, "position": position} for name in set(subjects(event))]
        if isinstance(event.data, ThinEvent):
            self.fetches.append(fetch_row(event, self._recorded_at_us))
        if isinstance(event.data, SetAside | Lifted):
            name = subject(event.data.kind, event, event.data.key)
            self.set_aside.append((name, self._last_read(event), position))

    def _last_read(self, event: Event) -> int | None:
        """The position up to which a history is read from now on; None for its end.

        Without the event from which on it is not read, it is read up to this event.
        """
        if not isinstance(event.data, SetAside):
            return None
        first = self._known.get((event.processor, event.account, event.data.event_id))
        return (first[0] if first else self.head.position) - 1

    def _quarantine(
        self,
        incoming: Incoming,
        content_digest: bytes,
        reason: str,
        detail: str,
        conflicts_with: int | None,
    ) -> None:
        proof = json.encode(incoming.proof)
        delivery = StoredBody(headers=incoming.headers, body=incoming.body, proof=proof)
        self.quarantine.append(
            {
                "received_at_us": self._recorded_at_us,
                "processor": incoming.proof.processor,
                "reason": reason,
                "detail": detail.replace("\0", ""),  # PostgreSQL refuses a NUL in a text
                "conflicts_with": conflicts_with,
                "content_digest": content_digest,
                "headers": incoming.headers,
                "body": seal_body(self._keys, owners_of_events(incoming.events), delivery),
                "proof": proof,
            }
        )


def fetch_row(event: Event, now_us: int) -> dict[str, Any]:
    """The entry of a thin event: what it names is to be fetched, from now on."""
    return {
        "processor": event.processor,
        "event_id": original_id(event.event_id),
        "since_us": now_us,
        "due_at_us": now_us,
        "attempts": 0,
    }


def rendering_of(incoming: Incoming, event: Event, position: int, keyed_digest: bytes) -> KnownRendering:
    """A delivery as a rendering of its event; only one that has a `render` is one."""
    assert incoming.render  # noqa: S101
    return KnownRendering(
        account=event.account,
        trust=event.trust,
        position=position,
        digests=frozenset({keyed_digest, incoming.content_digest}),
        rendered=incoming.render(incoming.body),
    )


def keys_by_id(known: Mapping[EventKey, KnownEvent]) -> dict[tuple[str, str], EventKey]:
    """The key of the first event of each (processor, event id), whatever its account."""
    return {(key[0], key[2]): key for key in sorted(known, key=lambda key: known[key][0], reverse=True)}


def _id(event: Event) -> tuple[str, str]:
    return event.processor, event.event_id

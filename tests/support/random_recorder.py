"""Choices that are drawn, and the record of a scenario: its facts, and the events that tell them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from hypothesis import strategies as st
from msgspec import json, structs

from service.core.events import (
    UPDATED,
    Data,
    Event,
    Invoice,
    InvoicePayment,
    Payment,
    Subscription,
    Unused,
    revision_id,
    superseding_event,
)
from tests.support.expected_books import ExpectedBooks
from tests.support.expected_links import CustomerKey


@dataclass(frozen=True)
class Scenario:
    """What happened (`expected`), the events that tell it, in order, and the story for whoever debugs it."""

    zone: str
    expected: ExpectedBooks
    events: tuple[Event, ...]
    story: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join((f"A scenario in {self.zone}:", *self.story))


class Choices:
    """What is drawn, in words. The first option is the simplest, and what a failure shrinks to."""

    def __init__(self, draw) -> None:
        self._draw = draw

    def pick(self, options: Sequence):
        return options[self._draw(st.integers(0, len(options) - 1))]

    def number(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def sometimes(self, out_of: int = 3) -> bool:
        return self._draw(st.integers(0, out_of - 1)) == out_of - 1


class Recorder:
    """Records what happens, and the events that tell it."""

    def __init__(self, choices: Choices, zone: str) -> None:
        self.choices = choices
        self.expected = ExpectedBooks(zone)
        self.events: list[Event] = []
        self.has_renderings = False  # some events are rendered in two versions of the processor's API
        self._count: dict[str, int] = {}

    def name(self, kind: str, who: CustomerKey) -> str:
        """An id: unique within processor and account, and the same in another."""
        scope = f"{kind}|{who[0]}|{who[1]}"
        self._count[scope] = self._count.get(scope, 0) + 1
        return f"{kind}_{self._count[scope]}"

    def record(self, who: CustomerKey, when: datetime, data: Data, rank: int = UPDATED, **fields) -> None:
        number = len(self.events)
        event = Event(
            processor=who[0],
            account=who[1],
            event_id=f"evt_{sha256(b'%d' % number).hexdigest()[:6]}_{number}",
            occurred_at=when,
            rank=rank,
            data=data,
            **fields,
        )
        is_rendered_twice = self.has_renderings and self.choices.sometimes(2)
        self.events += _renderings(event) if is_rendered_twice else [event]

    def scenario(self) -> Scenario:
        events = sorted(self.events, key=lambda event: event.occurred_at)
        self.expected.heard = _last_heard(events)
        return Scenario(
            zone=self.expected.zone_name,
            expected=self.expected,
            events=tuple(events),
            story=tuple(map(_sentence, events)),
        )


def _last_heard(events: Sequence[Event]) -> dict[tuple[str, str, str], datetime]:
    """When something was last told of each contract, of its invoices and of the payments that name those."""
    contracts: dict[tuple[str, str, str, str], set[str]] = {}  # of invoices, then of payments, by their ids
    told = [event for event in events if not getattr(event.data, "awaits_confirmation", False)]
    for kind, names in (("invoice", _contracts), ("payment", _invoices)):
        for event in told:
            for thing, name in names(event.data):
                key = kind, event.processor, event.account, thing
                owners = contracts.get(("invoice", *key[1:3], name), set()) if kind == "payment" else {name}
                contracts.setdefault(key, set()).update(owners)
    heard: dict[tuple[str, str, str], datetime] = {}
    for event in told:
        where, data = (event.processor, event.account), event.data
        about = {getattr(data, "subscription_id", None)} - {None}
        for kind in ("invoice", "payment"):
            about |= contracts.get((kind, *where, getattr(data, f"{kind}_id", None)), set())
        heard |= {(*where, name): event.occurred_at for name in about}
    return heard


def _contracts(data: Data) -> list[tuple[str, str]]:
    """The invoice that data is of, with its contract."""
    is_of_one = isinstance(data, Invoice) and data.subscription_id
    return [(data.invoice_id, data.subscription_id)] if is_of_one else []


def _invoices(data: Data) -> list[tuple[str, str]]:
    """The payments that data links to an invoice, with that."""
    if isinstance(data, Invoice):
        return [(payment_id, data.invoice_id) for payment_id in data.payment_ids]
    is_link = isinstance(data, Payment | InvoicePayment) and data.invoice_id
    return [(data.payment_id, data.invoice_id)] if is_link else []


def _renderings(event: Event) -> list[Event]:
    """An event in an older version, which says less, and the newer one that replaces it in the ledger."""
    older = structs.replace(event, data=_older(event.data), before=None)
    newer = structs.replace(event, event_id=revision_id(event.event_id, 2))
    return [older, newer, superseding_event(older, newer.event_id)]


def _older(data: Data) -> Data:
    if isinstance(data, Subscription):
        return structs.replace(data, items=data.items[:1], discounts=(), next_bill_at=None)
    return Unused(original_type="not yet known")


def _sentence(event: Event) -> str:
    where = f"{event.processor}{'/' + event.account if event.account else ''}"
    before = " (told what was before)" if event.before else ""
    return (
        f"  {event.occurred_at:%Y-%m-%d %H:%M:%S} {where} {event.event_id} {event.type} rank {event.rank}"
        f" {json.encode(event.data).decode()}{before}"
    )

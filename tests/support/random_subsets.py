"""Subsets of a scenario's events that still name each payment once.

Payments and invoices that statements link make one case. An event that is the last of its payment, invoice,
link, refund or dispute is its outcome. A subset keeps all outcomes, but it may leave out

- all of a case's invoices, if its payments say in the end what was really collected;
- all of its payments, if its invoices do, and what went back is told by itself, and is linked to the invoice;
- the refunds of a payment, if its charge says what all of them gave back;

as long as no link goes with them by which another payment or invoice could be taken for theirs: at Stripe
one without a link may be met by one of the same customer and amount. Where payments and invoices differ in
the end, it keeps also the payments' successes and all of the invoices: one of them tells a fall that the
other is silent of. All other events may be missing.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

from service.core.events import Dispute, Event, Invoice, InvoicePayment, Payment, Refund
from tests.support.random_recorder import Scenario

Thing = tuple[str, str, str, str]  # processor, account, kind, id

MONEY = (Payment, Invoice, InvoicePayment, Refund, Dispute)


@st.composite
def subsets(draw, scenario: Scenario) -> list[Event]:
    """A subset of a scenario's events, in any order, that names each payment once."""
    rng = draw(st.randoms(use_true_random=False))
    share = draw(st.sampled_from((0.0, 0.5, 0.9)))
    money = [event for event in scenario.events if isinstance(event.data, MONEY)]
    cases = [_Case(events, money, scenario) for events in _cases(money)]
    needed = [event for case in cases for event in case.needed(rng)]
    dropped = {id(event) for case in cases for event in case.dropped}
    kept = {id(event) for event in needed}
    events = [
        event
        for event in scenario.events
        if id(event) in kept or (id(event) not in dropped and rng.random() < share)
    ]
    rng.shuffle(events)
    return events


class _Case:
    """The events of payments and invoices that belong together."""

    def __init__(self, events: Sequence[Event], money: Sequence[Event], scenario: Scenario) -> None:
        self.events = events
        self.dropped: list[Event] = []
        self._payments = self._of(Payment)
        self._invoices = self._of(Invoice)
        self._refunds = self._of(Refund)
        self._is_alone = not any(
            _could_meet(mine, other) for mine in events for other in money if other not in events
        )
        ids = {name for event in events for *_, name in _things(event)}
        self._collected = sum(
            moved.cents
            for moved in scenario.expected.all_money()
            if moved.source in ids and moved.who[:2] == (events[0].processor, events[0].account)
        )

    def needed(self, rng: Random) -> list[Event]:
        """The events that a subset keeps; adds those that it leaves out to `dropped`."""
        way = rng.choice(("all", "without invoices", "without payments", "without refunds"))
        if way == "without invoices" and self._are_payments_enough():
            self.dropped += self._invoices
        if way == "without payments" and self._are_invoices_enough():
            self.dropped += self._payments
        if way == "without refunds" and self._are_charges_enough():
            self.dropped += self._refunds
        left = [event for event in self.events if event not in self.dropped]
        return [*_outcomes(left), *self._last_charges(left), *_before_falls(left)]

    def _of(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event.data, kind)]

    def _are_payments_enough(self) -> bool:
        stated = sum(e.data.amount for e in _outcomes(self._payments) if e.data.status == "succeeded")
        links = any(event.data.payment_ids for event in self._invoices)
        if not all(event.data.customer_id for event in self._payments):
            return False
        return bool(self._payments) and stated == self._collected and (self._is_alone or not links)

    def _are_invoices_enough(self) -> bool:
        stated = sum(event.data.amount_paid for event in _outcomes(self._invoices))
        links = any(event.data.invoice_id for event in self._payments)
        back = [*self._refunds, *self._of(Dispute)]
        is_all_told = bool(self._refunds) or not any(e.data.amount_refunded for e in self._payments)
        is_enough = bool(self._invoices) and stated == self._collected and is_all_told
        return is_enough and (not links or (self._is_alone and not back))

    def _are_charges_enough(self) -> bool:
        refunded = [e.data for e in _outcomes(self._refunds) if e.data.status == "succeeded"]
        back = sum(data.amount for data in refunded if data.captured)
        charged = [event.data.amount_refunded for event in self._last_charges(self.events)]
        return sum(charged) == back and all(e.data.captured for e in self._refunds)

    def _last_charges(self, events: Iterable[Event]) -> list[Event]:
        """The last event of each payment that tells the most that went back of it."""
        charges: dict[str, Event] = {}
        for event in events:
            if isinstance(event.data, Payment) and event.data.amount_refunded:
                known = charges.get(event.data.payment_id)
                if known is None or event.data.amount_refunded >= known.data.amount_refunded:
                    charges[event.data.payment_id] = event
        return list(charges.values())


def _outcomes(events: Iterable[Event]) -> list[Any]:
    """The last event of each payment, invoice, link, refund and dispute."""
    return list({(type(event.data), *_things(event)): event for event in events}.values())


def _before_falls(events: Sequence[Event]) -> list[Event]:
    """The successes of payments, and their invoices, where both differ in the end in what they state."""
    paying = [each for each in events if isinstance(each.data, Payment) and each.data.status == "succeeded"]
    invoices = [each for each in events if isinstance(each.data, Invoice)]
    paid = sum(e.data.amount for e in _outcomes(events) if e in paying)
    if paid == sum(each.data.amount_paid for each in _outcomes(invoices)):
        return []
    return [*_outcomes(paying), *invoices]


def _cases(money: Sequence[Event]) -> list[list[Event]]:
    """The events, put together where they name the same payment or invoice, by themselves or in a chain."""
    case_of: dict[Thing, list[Event]] = {}
    for event in money:
        things = _links(event)
        parts = {id(case): case for thing in things if (case := case_of.get(thing))}
        joined = [each for case in parts.values() for each in case] + [event]
        named = {thing for each in joined for thing in _links(each)}
        case_of |= dict.fromkeys(named, joined)
    order = {id(event): number for number, event in enumerate(money)}
    cases = {id(case): case for case in case_of.values()}.values()
    return [sorted(case, key=lambda event: order[id(event)]) for case in cases]


def _things(event: Event) -> tuple[Thing, ...]:
    """What an event is about: one thing, or the two that it links."""
    names = {
        Payment: lambda data: [("payment", data.payment_id)],
        Invoice: lambda data: [("invoice", data.invoice_id)],
        InvoicePayment: lambda data: [("payment", data.payment_id), ("invoice", data.invoice_id)],
        Refund: lambda data: [("refund", data.refund_id)],
        Dispute: lambda data: [("dispute", data.dispute_id)],
    }[type(event.data)](event.data)
    return tuple((event.processor, event.account, kind, name) for kind, name in names)


def _links(event: Event) -> list[Thing]:
    """The payments and invoices that an event names, and the refund or dispute that it tells."""
    data = event.data
    payments = [getattr(data, "payment_id", None), *getattr(data, "payment_ids", ())]
    invoices = [getattr(data, "invoice_id", None)]
    named = [("payment", name) for name in payments] + [("invoice", name) for name in invoices]
    links = [(event.processor, event.account, kind, name) for kind, name in named if name]
    return [*links, *(_things(event) if isinstance(data, Refund | Dispute) else ())]


def _could_meet(one: Event, other: Event) -> bool:
    """Whether a payment and an invoice may be taken for one another where no link says anything else."""
    if one.processor != "stripe" or {type(one.data), type(other.data)} != {Payment, Invoice}:
        return False
    return _match_key(one) == _match_key(other)


def _match_key(event: Event) -> tuple[Any, ...]:
    data: Any = event.data
    amount = data.amount if isinstance(data, Payment) else data.amount_due
    return event.processor, event.account, data.customer_id, data.currency, amount

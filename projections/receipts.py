"""Receipts and claims: the money that a payment, or an invoice, states in its own history.

A payment's history gives its receipts, one for each invoice that a statement links it to, and one for the
money that no link takes. An invoice's history gives its claim. Rows that may belong together have the same
parent key: the invoice's where a statement links them; else, at Stripe, that of one customer and amount.
Rows without a parent key stand alone. Source: contract 3.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from operator import attrgetter
from typing import Any

from msgspec import Struct, json
from msgspec.structs import replace

from projections.book import Row, causes
from projections.histories import made_once
from projections.status_words import is_unknown
from projections.work import Work
from service.core.events import Event, Invoice, InvoiceLine, InvoicePayment, Payment, join_key

INFERRING = "stripe"  # of the other processors every link is stated

_END = datetime.max.replace(tzinfo=UTC)
_WHOLE = 2**53  # the amount of a link that states none: more than any invoice


class Change(Struct, frozen=True, array_like=True):
    """A rise or fall of collected money, and the event that states it."""

    at: datetime
    cents: int
    cause: str
    trust: str


class Try(Struct, frozen=True, array_like=True):
    """A failed attempt to collect money, and the event that states it."""

    at: datetime
    cause: str


CHANGES = json.Decoder(list[Change])


class _Statement(Row, frozen=True, kw_only=True):
    """The money that one side, a payment or an invoice, states in its own history.

    `changes` and `tries` are JSON: lists of Change and of Try.
    """

    processor: str
    account: str
    currency: str
    customer_id: str
    changes: str
    tries: str

    @property
    def is_free(self) -> bool:
        """Whether no statement links it, so that a link may be inferred."""
        return self.parent_key.startswith("match|")


class Receipt(_Statement, frozen=True, kw_only=True):
    """The money that one payment brings to one invoice; to none where `invoice_id` is None.

    `moments` is the JSON list of the moments at which the payment may have been made; they are known only
    where the payment's own events state its success. `currency` is empty where there is no such event at all.
    A `limited` receipt counts up to the invoice's amount: its own share is not stated. `part` is 0 for the
    earliest link.
    """

    table = "receipts"

    payment_id: str
    invoice_id: str | None
    part: int
    limited: bool
    moments: str

    @property
    def is_reported(self) -> bool:
        """Whether an event of the payment itself states that it succeeded; else only links say so."""
        return self.moments != "[]"


class Claim(_Statement, frozen=True, kw_only=True):
    """An invoice, and the money that it states as collected. `contract_id` is of the contract that it bills.

    `lines` is JSON: [[product id, name, cents], …].
    """

    table = "claims"

    invoice_id: str
    contract_id: str | None
    due_cents: int
    lines: str

    @property
    def stated_cents(self) -> int:
        """The money that it states in the end."""
        return sum(change.cents for change in CHANGES.decode(self.changes))


# Payments


class _Link(Struct, frozen=True, kw_only=True):
    """A statement that a payment settles an invoice, or no longer does.

    With `paid_at` it states that `cents` went there then; without `cents`, all that was due. An invoice that
    lists the payment says what is `due` in all, and what it has `stated` as paid.
    """

    at: datetime
    invoice_id: str
    holds: bool
    event: Event
    cents: int | None = None
    paid_at: datetime | None = None
    due: int | None = None
    stated: int = 0


@made_once
def receipt_rows(history: Sequence[Event]) -> list[Receipt]:
    """One payment's events to its receipts."""
    confirmed = [event for event in history if not getattr(event.data, "awaits_confirmation", False)]
    payments = [event for event in confirmed if isinstance(event.data, Payment)]
    links = sorted(_links(confirmed), key=attrgetter("at"))
    named = [event.data for event in confirmed if isinstance(event.data, Payment | InvoicePayment)]
    if not named or (not links and any(_payment(event).for_invoice for event in payments)):
        return []
    if is_voided(payments):
        return []
    changes, limited = _shared_changes(payments, links)
    failed = [event for event in payments if _payment(event).status == "failed"]
    tries = [Try(_payment(event).failed_at or event.occurred_at, event.cause) for event in failed]
    invoice_ids: list[str | None] = [*dict.fromkeys(link.invoice_id for link in links), None]
    payment = {
        "causes": causes(*(event for event in payments if _payment(event).status == "succeeded")),
        "processor": confirmed[0].processor,
        "account": confirmed[0].account,
        "currency": _payment(payments[0]).currency if payments else "",
        "customer_id": customer_of(confirmed),
        "payment_id": named[0].payment_id,
    }
    rows = [
        Receipt(
            parent_key=_invoice_key(confirmed[0], invoice_id or ""),
            invoice_id=invoice_id,
            part=part,
            limited=invoice_id in limited,
            changes=_encode(changes[invoice_id]),
            tries=_encode([] if part else tries),
            moments=_encode(_moments(payments)),
            **payment,
        )
        for part, invoice_id in enumerate(invoice_ids)
        if (tries and not part) or changes[invoice_id]
    ]
    last = last_key(confirmed)
    return [row if row.invoice_id else _free_receipt(row, payments, links, last) for row in rows]


def is_voided(payments: Iterable[Event]) -> bool:
    """Whether any event of a payment says that it was voided: then it was never collected."""
    return any(isinstance(event.data, Payment) and event.data.status == "voided" for event in payments)


def _free_receipt(row: Receipt, payments: Sequence[Event], links: Sequence[_Link], last_key: str) -> Receipt:
    """The receipt of money that no link takes: at Stripe it may be that of an invoice near in time.

    What an invoice gave up may be another's: it is near in time when it was given up. Money that names no
    customer is that of the invoice's customer who had it last.
    """
    changes = CHANGES.decode(row.changes)
    is_whole = not _links_at(links, _END) if links else True
    if not row.customer_id:
        return replace(row, parent_key=last_key)
    if not is_whole or row.processor != INFERRING:
        return replace(row, parent_key="")
    amount = _peak(changes) or max(_payment(event).amount for event in payments)
    moments = [change.at for change in changes if change.cents > 0]
    return replace(
        row,
        parent_key=_match_key(row, row.customer_id, row.currency, amount),
        moments=_encode(moments) if links else row.moments,
    )


def last_key(history: Sequence[Event]) -> str:
    """The parent key of the invoice that holds a payment's money last; of the last that did where none does.

    It is empty without a link.
    """
    links = sorted(_links(history), key=attrgetter("at"))
    if not links:
        return ""
    held = _links_at(links, _END) or sorted(links, key=lambda link: (link.at, link.invoice_id))[-1:]
    return _invoice_key(history[0], held[0].invoice_id)


def customer_of(history: Sequence[Event]) -> str:
    """The customer whom any event of a payment's history names; empty if none does."""
    named = (getattr(event.data, "customer_id", None) for event in history)
    return next(filter(None, named), "")


def _moments(payments: Sequence[Event]) -> list[datetime]:
    """The moments at which a payment may have been made."""
    succeeded = [event for event in payments if _payment(event).status == "succeeded"]
    stated = {_payment(event).attempted_at for event in succeeded} | {
        _payment(event).paid_at for event in succeeded
    }
    reported = [event.occurred_at for event in succeeded if _payment(event).paid_at is None]
    return sorted({*filter(None, stated), *reported[:1]})


class _Level(Struct, frozen=True):
    """The money that a payment holds from a moment on."""

    at: datetime
    cents: int
    event: Event


def _levels(payments: Sequence[Event]) -> list[_Level]:
    """What a payment holds from each moment on: a success holds until the same attempt fails."""
    levels: list[_Level] = []
    holding: list[Event] = []  # the events that state the present success
    attempts: set[datetime | None] = set()  # theirs, as far as they are known
    failed_attempts: set[datetime | None] = set()
    for event in payments:
        data = _payment(event)
        if data.status == "succeeded":
            holding.append(event)
            attempts |= {data.attempted_at} - {None}
        elif data.status not in ("pending", "authorized"):  # failed, or a word that no rule knows
            is_other = data.attempted_at in failed_attempts or bool(
                data.attempted_at and attempts and data.attempted_at not in attempts
            )
            failed_attempts |= {data.attempted_at} - {None}
            if holding and not is_other:
                levels += [*_success_levels(holding), _Level(event.occurred_at, 0, event)]
                holding, attempts = [], set()
    return [*levels, *_success_levels(holding)]


def _success_levels(events: Sequence[Event]) -> Iterator[_Level]:
    """The levels of one success. Its first one is of the event of its own moment that is trusted most."""
    if not events:
        return
    at_success = [event for event in events if _payment(event).paid_at is None] or events
    first = min(at_success, key=lambda event: (event.trust == "unsigned", event.occurred_at))
    cents = _payment(first).amount
    yield _Level(_payment(first).paid_at or first.occurred_at, cents, first)
    for event in events[events.index(first) + 1 :]:
        if _payment(event).amount != cents:
            cents = _payment(event).amount
            yield _Level(event.occurred_at, cents, event)


def _links(history: Sequence[Event]) -> Iterator[_Link]:
    """The statements of a payment's history, whichever side makes them."""
    named = None
    payment_id = next((name for event in history if (name := getattr(event.data, "payment_id", None))), "")
    for event in history:
        data, at = event.data, event.occurred_at
        if isinstance(data, InvoicePayment):
            is_paid = data.status == "paid"
            yield _Link(
                at=at,
                invoice_id=data.invoice_id,
                holds=data.status != "canceled",
                event=event,
                cents=data.amount_paid if is_paid else None,
                paid_at=data.paid_at or at if is_paid else None,
            )
        elif isinstance(data, Invoice):
            yield _Link(
                at=at,
                invoice_id=data.invoice_id,
                holds=True,
                event=event,
                cents=dict(zip(data.payment_ids, data.payment_amounts, strict=False)).get(payment_id),
                due=data.amount_due,
                stated=_stated_cents(event),
            )
        elif isinstance(data, Payment) and data.invoice_id:
            if named not in (None, data.invoice_id):
                yield _Link(at=at, invoice_id=named, holds=False, event=event)
            named = data.invoice_id
            yield _Link(at=at, invoice_id=named, holds=True, event=event)


def _shared_changes(
    payments: Sequence[Event], links: Sequence[_Link]
) -> tuple[dict[str | None, list[Change]], set[str | None]]:
    """The changes of a payment's money at each invoice, and at none; and the invoices with limited shares.

    Of a payment whose success is never reported, only the links that state money count.
    """
    levels = _levels(payments)
    if not levels:
        stating = [link for link in links if link.paid_at or not link.holds]
        links = sorted((replace(link, at=link.paid_at or link.at) for link in stating), key=attrgetter("at"))
    terms = _terms(links)
    steps: list[_Level | _Link] = sorted([*levels, *links], key=attrgetter("at"))
    changes: dict[str | None, list[Change]] = defaultdict(list)
    shares: dict[str | None, int] = {}
    limited: set[str | None] = set()
    level = 0 if levels else _WHOLE
    held_links, work = _HeldLinks(links), Work()
    for step in steps:
        level = step.cents if isinstance(step, _Level) else level
        held = held_links.at(step.at)
        work.add(1 + len(held))
        unsized = [link.invoice_id for link in held if terms[link.invoice_id].cents is None]
        undue = [name for name in unsized if terms[name].due is None]
        limited |= set(undue if len(unsized) > 1 else ())
        before, shares = shares, _shares(level, held, terms)
        for key in sorted({*before, *shares}, key=str):
            if cents := shares.get(key, 0) - before.get(key, 0):
                changes[key].append(Change(step.at, cents, step.event.cause, step.event.trust))
    if not levels:
        changes.pop(None, None)
    return changes, limited


class _HeldLinks:
    """Which of some links, in order of time, hold at one moment after the other.

    The first one holds from the beginning. One that is taken away first held until then, and what is linked
    in its place did not.
    """

    def __init__(self, links: Sequence[_Link]) -> None:
        self._links = links
        self._read = 0
        self._known: dict[str, _Link] = {}

    def at(self, at: datetime) -> list[_Link]:
        """The links that hold at a moment, which is not before the last one asked for; the latest first."""
        links = self._links
        while self._read < len(links) and links[self._read].at <= at:
            self._known[links[self._read].invoice_id] = links[self._read]
            self._read += 1
        held = [link for link in self._known.values() if link.holds] if self._known else self._earliest()
        held.sort(key=attrgetter("invoice_id"))
        return sorted(held, key=attrgetter("at"), reverse=True)

    def _earliest(self) -> list[_Link]:
        first = [link for link in self._links if link.at == self._links[0].at]
        taken_away = {link.invoice_id: link for link in first if not link.holds}
        return list((taken_away or {link.invoice_id: link for link in first}).values())


def _links_at(links: Sequence[_Link], at: datetime) -> list[_Link]:
    """The links that hold at a moment, the latest first."""
    return _HeldLinks(links).at(at)


class _Terms(Struct, frozen=True):
    """What an invoice takes of a payment: `cents`, where a link states it; else up to what is `due`.

    Those that have `stated` money take it first. What is not known is None.
    """

    cents: int | None
    due: int | None
    stated: int


def _terms(links: Sequence[_Link]) -> dict[str, _Terms]:
    """The terms of each invoice, by all that a payment's links say of it; of an amount the last counts."""
    by_invoice: dict[str, list[_Link]] = defaultdict(list)
    for link in links:
        by_invoice[link.invoice_id].append(link)
    return {
        invoice_id: _Terms(
            cents=next((link.cents for link in reversed(mine) if link.cents is not None), None),
            due=next((link.due for link in reversed(mine) if link.due is not None), None),
            stated=max(link.stated for link in mine),
        )
        for invoice_id, mine in by_invoice.items()
    }


def _shares(level: int, held: Sequence[_Link], terms: Mapping[str, _Terms]) -> dict[str | None, int]:
    """How a payment's money is shared among its invoices; what is left belongs to none.

    Links with an amount take that. The only link without one takes all the rest. Of several, each takes what
    its invoice states, then what is due; those of which that is not known may each take all the rest.
    """
    shares: dict[str | None, int] = {}
    rest = level

    def take(invoice_id: str, up_to: int) -> None:
        nonlocal rest
        cents = max(min(up_to - shares.get(invoice_id, 0), rest), 0)
        shares[invoice_id] = shares.get(invoice_id, 0) + cents
        rest -= cents

    for link in held:
        if (cents := terms[link.invoice_id].cents) is not None:
            take(link.invoice_id, cents)
    unsized = [link.invoice_id for link in held if terms[link.invoice_id].cents is None]
    if len(unsized) == 1:
        return shares | {unsized[0]: rest}
    due = {name: cents for name in unsized if (cents := terms[name].due) is not None}
    for name, cents in due.items():
        take(name, min(terms[name].stated, cents))
    for name, cents in due.items():
        take(name, cents)
    undue = [name for name in unsized if name not in due]
    return shares | (dict.fromkeys(undue, rest) if undue else {None: rest})


# Invoices


@made_once
def claim_rows(history: Sequence[Event]) -> list[Claim]:
    """One invoice's events to its claim, if the invoice itself is reported and has money or failed tries."""
    invoices = [event for event in history if isinstance(event.data, Invoice)]
    if not invoices:
        return []
    event, data = invoices[-1], _invoice(invoices[-1])
    changes = _stated_changes(invoices)
    tries = [Try(e.occurred_at, e.cause) for e in invoices if _invoice(e).payment_failed]
    customer_id = next((name for e in reversed(invoices) if (name := _invoice(e).customer_id)), "")
    lines = next((_invoice(e).lines for e in reversed(invoices) if _invoice(e).lines), ())
    is_linked = any(_states_link(e) for e in history)
    parent_key = _invoice_key(event, data.invoice_id) if is_linked else ""
    if not is_linked and event.processor == INFERRING and customer_id and not data.paid_out_of_band:
        amount = _peak(changes) or (_remaining(data) if tries else 0)
        parent_key = _match_key(event, customer_id, data.currency, amount) if amount else ""
    if not (changes or tries or is_linked):
        return []
    return [
        Claim(
            parent_key=parent_key,
            causes=causes(event),
            processor=event.processor,
            account=event.account,
            currency=data.currency,
            customer_id=customer_id,
            invoice_id=data.invoice_id,
            contract_id=data.subscription_id,
            due_cents=data.amount_due,
            changes=_encode(changes),
            tries=_encode(tries),
            lines=_encode(by_product(lines)),
        )
    ]


def _states_link(event: Event) -> bool:
    """Whether an event of an invoice's history links a payment to the invoice, or says that it once was."""
    data = event.data
    if isinstance(data, Invoice):
        return bool(data.payment_ids)
    return not getattr(data, "awaits_confirmation", False)


def _stated_changes(invoices: Sequence[Event]) -> list[Change]:
    """The rises and falls of the money that an invoice states, a rise to `paid` on the day it was paid.

    Two amounts of one moment are a rise, unless the event of the lower one says what was there before. An
    amount that was paid anew since it was first stated is a change of 0: it holds whatever fell in between.
    """
    changes: list[Change] = []
    level, since = 0, None
    for event in invoices:
        data, cents = _invoice(event), _stated_cents(event)
        if cents > level or (cents < level and (event.occurred_at != since or event.before)):
            at = (cents > level and data.status == "paid" and data.paid_at) or event.occurred_at
            at = max([at, *(change.at for change in changes[-1:])])
            changes.append(Change(at, cents - level, event.cause, event.trust))
            level, since = cents, event.occurred_at
        elif level and cents == level and (paid_at := _paid_anew(data, changes[-1].at)):
            changes.append(Change(paid_at, 0, event.cause, event.trust))
    return changes


def _paid_anew(data: Invoice, since: datetime) -> datetime | None:
    """When an invoice was paid, if that is later than `since`."""
    is_later = data.status == "paid" and data.paid_at is not None and data.paid_at > since
    return data.paid_at if is_later else None


def _stated_cents(event: Event) -> int:
    """What an invoice states as collected. In-house billers may say `paid` alone: then it is all of it.

    Stripe always states the amount; a paid invoice of 0 there was settled by a credit.
    """
    data = _invoice(event)
    if is_unknown(event):
        return 0
    is_all = data.status == "paid" and not data.amount_paid and event.processor != INFERRING
    return data.amount_due if is_all else data.amount_paid


def _remaining(data: Invoice) -> int:
    return data.amount_due - data.amount_paid if data.amount_remaining is None else data.amount_remaining


def by_product(lines: Iterable[InvoiceLine]) -> list[tuple[str | None, str | None, int]]:
    """The lines' amounts by product (by price where there is none), as (id, name, cents)."""
    billed: dict[str | None, int] = defaultdict(int)
    names: dict[str | None, str | None] = {}
    for line in lines:
        product = line.product_id or line.price_id
        billed[product] += line.amount
        names[product] = line.product_name or names.get(product)
    return [(product, names[product], cents) for product, cents in billed.items()]


# Keys and columns


def _invoice_key(event: Event, invoice_id: str) -> str:
    return join_key("settlement", event.processor, event.account, invoice_id)


def _match_key(of: Event | Receipt, customer_id: str, currency: str, cents: int) -> str:
    return join_key("match", of.processor, of.account, customer_id, currency, str(cents))


def _peak(changes: Iterable[Change]) -> int:
    """The highest level of money."""
    return max(accumulate(change.cents for change in changes), default=0)


def _payment(event: Event) -> Payment:
    assert isinstance(event.data, Payment)  # noqa: S101 - chosen by the caller
    return event.data


def _invoice(event: Event) -> Invoice:
    assert isinstance(event.data, Invoice)  # noqa: S101 - chosen by the caller
    return event.data


def _encode(values: Any) -> str:
    return json.encode(values).decode()

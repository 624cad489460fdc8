"""The bills book: next bill dates, and invoices by the day they were billed.

A bill is an invoice or, where none has been issued for it yet, a contract's next bill as the
processor states it. Whether one has been issued is seen where both meet: in a contract's rows.
"""

from collections.abc import Iterator, Sequence
from datetime import date

from msgspec import json

from projections.book import Book, Row, Rules, Stage, Total, causes
from projections.contracts import BILLING, State, states, terms
from projections.pricing import discount_ends, unpriced, worth_on
from service.core import cadence
from service.core.events import INVOICE_RANK, Event, Invoice, Subscription, subject
from service.core.moments import day_of

UPCOMING = ("upcoming", "draft")  # not issued yet


class Contract(Row, frozen=True, kw_only=True):
    """A contract as it is now. `terms` is JSON: [[date, MRR from then on, whether it counts], …].

    `amounts` is JSON too: [[date, what one bill is worth from then on], …], from the next bill on;
    `amount_cents` is the first of them.
    `tied`: on some day two events of one moment differ, and only their ids say which came last.
    """

    table = "contracts"
    indexes = (("currency", "contract_id"), ("unpriced", "currency"), ("customer_id", "currency"))

    processor: str
    account: str
    currency: str
    customer_id: str
    contract_id: str
    status: str
    interval: str
    every: int
    amount_cents: int
    next_bill_date: str | None
    anchor_day: int | None
    ends_date: str | None
    declined: bool
    unpriced: bool
    tied: bool
    trust: str
    terms: str
    amounts: str


class IssuedInvoice(Row, frozen=True, kw_only=True):
    """An invoice as it is now, whatever its status. `date` is its bill date."""

    table = "invoices"
    indexes = (("customer_id",),)

    processor: str
    account: str
    currency: str
    customer_id: str
    contract_id: str | None
    invoice_id: str
    created_date: str
    date: str
    status: str
    amount_cents: int
    open_cents: int
    trust: str


class Bill(Row, frozen=True, kw_only=True):
    """A bill. `later_cents` is what the contract's interval adds later in the same month."""

    table = "bills"
    indexes = (("currency", "date", "account", "processor", "customer_id"),)

    processor: str
    account: str
    currency: str
    customer_id: str
    contract_id: str | None
    invoice_id: str | None
    date: str
    status: str
    amount_cents: int
    open_cents: int
    later_cents: int
    interval: str
    every: int
    mrr_cents: int
    next_bill_date: str | None
    declined: bool
    trust: str


def contract(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One subscription's events to its present state."""
    told = states(history, rules)
    if not told:
        return []
    state, data = told[-1], told[-1].data
    next_bill = _next_bill(state, rules)
    worth = worth_on(data, next_bill or state.day, rules)
    life = [(term.day.isoformat(), term.mrr_cents, term.counted) for term in terms(told, rules)]
    return [
        Contract(
            parent_key=subject("subscription", state.event, data.subscription_id),
            causes=causes(state.event),
            processor=state.event.processor,
            account=state.event.account,
            currency=data.currency,
            customer_id=data.customer_id,
            contract_id=data.subscription_id,
            status=data.status,
            interval=worth.interval,
            every=worth.every,
            amount_cents=worth.bill_cents,
            next_bill_date=_iso(next_bill),
            anchor_day=_anchor_day(data, next_bill, rules),
            ends_date=_iso(_ends(state, rules)),
            declined=data.declined or data.status == "past_due",
            unpriced=data.status in BILLING and unpriced(data),
            tied=any(state.tied for state in told),
            trust=state.event.trust,
            terms=json.encode(life).decode(),
            amounts=json.encode(_amounts(data, next_bill or state.day, rules)).decode(),
        )
    ]


def _amounts(data: Subscription, first: date, rules: Rules) -> list[tuple[str, int]]:
    """What one bill is worth from `first` on: another amount where a discount ends."""
    found: list[tuple[str, int]] = []
    for day in (first, *(day for day in discount_ends(data, rules.zone) if day > first)):
        cents = worth_on(data, day, rules).bill_cents
        if not found or found[-1][1] != cents:
            found.append((day.isoformat(), cents))
    return found


def _next_bill(state: State, rules: Rules) -> date | None:
    """The processor's own date, never one that we computed; None when it will not bill."""
    data = state.data
    if state.ended or data.status not in BILLING or data.collection_paused:
        return None
    moment = data.trial_end_at if data.status == "trialing" and data.trial_end_at else data.next_bill_at
    day = day_of(moment, rules.zone) if moment else data.next_bill_on
    ends = _ends(state, rules)
    return None if day is None or (ends and ends <= day) else day


def _anchor_day(data: Subscription, next_bill: date | None, rules: Rules) -> int | None:
    """The day of month that later bills keep, where the next bill falls on it."""
    if next_bill is None or data.anchor_at is None:
        return None
    day = day_of(data.anchor_at, rules.zone).day
    return day if cadence.add_months(next_bill, 0, day) == next_bill else None


def _ends(state: State, rules: Rules) -> date | None:
    if state.ended:
        return state.day
    return day_of(state.data.cancel_at, rules.zone) if state.data.cancel_at else None


def invoice(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One invoice's events to its present state. A status never goes back: a paid one stays paid."""
    if not history:
        return []
    latest, data = latest_invoice(history)
    failed = any(isinstance(e.data, Invoice) and e.data.payment_failed for e in history)
    remaining = data.amount_due - data.amount_paid if data.amount_remaining is None else data.amount_remaining
    is_open = data.status == "open"
    of, key = ("subscription", data.subscription_id) if data.subscription_id else ("invoice", data.invoice_id)
    return [
        IssuedInvoice(
            parent_key=subject(of, latest, key),
            causes=causes(latest),
            processor=latest.processor,
            account=latest.account,
            currency=data.currency,
            customer_id=data.customer_id or "",
            contract_id=data.subscription_id,
            invoice_id=data.invoice_id,
            created_date=day_of(data.created_at, rules.zone).isoformat(),
            date=day_of(data.finalized_at or data.created_at, rules.zone).isoformat(),
            status="failed" if is_open and failed else data.status,
            amount_cents=data.amount_due,
            open_cents=max(remaining, 0) if is_open else 0,
            trust=latest.trust,
        )
    ]


def latest_invoice(history: Sequence[Event]) -> tuple[Event, Invoice]:
    """The last event of those whose status has come furthest."""
    told = [(event, event.data) for event in history if isinstance(event.data, Invoice)]
    furthest = max(INVOICE_RANK.get(data.status, 1) for _, data in told)
    return [(event, data) for event, data in told if INVOICE_RANK.get(data.status, 1) == furthest][-1]


def bills(rows: Sequence[Contract | IssuedInvoice], _rules: Rules) -> list[Row]:
    """One contract's (or one lone invoice's) rows to its bills."""
    contracts = [row for row in rows if isinstance(row, Contract)]
    invoices = sorted(
        (row for row in rows if isinstance(row, IssuedInvoice)), key=lambda r: (r.date, r.invoice_id)
    )
    owner = contracts[0] if contracts else None
    upcoming = stated = owner.next_bill_date if owner else None
    if any(upcoming and row.created_date >= upcoming and row.status != "deleted" for row in invoices):
        upcoming = None
    listed = [row for row in invoices if row.status not in ("void", "deleted") and row.amount_cents]
    dates = [*(row.date for row in listed), *([stated] if stated else [])]
    found: list[Row] = []
    for row in listed:
        after = next((day for day in dates if day > row.date), None)
        found.append(_issued(row, owner, after or _rolled_past(row.date, owner)))
    if owner and upcoming and owner.amount_cents:
        found.append(_upcoming(owner, upcoming))
    return found


def _rolled_past(day: str, owner: Contract | None) -> str | None:
    """The first bill date after `day` that the stated next bill gives, if the contract goes on."""
    if owner is None or owner.next_bill_date is None:
        return None
    rule = owner.interval, owner.every, owner.anchor_day, owner.ends_date
    return next((date for date in roll(owner.next_bill_date, *rule, since=day) if date > day), None)


def _issued(row: IssuedInvoice, owner: Contract | None, after: str | None) -> Bill:
    return Bill(
        causes=row.causes,
        processor=row.processor,
        account=row.account,
        currency=row.currency,
        customer_id=row.customer_id or (owner.customer_id if owner else ""),
        contract_id=row.contract_id,
        invoice_id=row.invoice_id,
        date=row.date,
        status=row.status,
        amount_cents=row.amount_cents,
        open_cents=row.open_cents,
        later_cents=0,
        interval=owner.interval if owner else cadence.ONCE,
        every=owner.every if owner else 1,
        mrr_cents=mrr_on(owner.terms, row.date) if owner else 0,
        next_bill_date=after,
        declined=row.status == "failed",
        trust=row.trust,
    )


def _upcoming(owner: Contract, day: str) -> Bill:
    dates = roll(day, owner.interval, owner.every, owner.anchor_day, owner.ends_date)
    next(dates)  # the bill itself
    after = next(dates, None)
    later_cents, following = 0, after
    while following and following[:7] == day[:7]:
        later_cents += amount_on(json.decode(owner.amounts), following)
        following = next(dates, None)
    return Bill(
        causes=owner.causes,
        processor=owner.processor,
        account=owner.account,
        currency=owner.currency,
        customer_id=owner.customer_id,
        contract_id=owner.contract_id,
        invoice_id=None,
        date=day,
        status="upcoming",
        amount_cents=owner.amount_cents,
        open_cents=0,
        later_cents=later_cents,
        interval=owner.interval,
        every=owner.every,
        mrr_cents=mrr_on(owner.terms, day),
        next_bill_date=after,
        declined=owner.declined,
        trust=owner.trust,
    )


def roll(
    next_bill_date: str,
    interval: str,
    every: int,
    anchor_day: int | None,
    ends_date: str | None,
    *,
    since: str | None = None,
) -> Iterator[str]:
    """A contract's bill dates from its next bill on, by its interval, until it ends.

    Those before `since` may be left out.
    """
    first, ahead = date.fromisoformat(next_bill_date), date.fromisoformat(since) if since else None
    for day in cadence.bill_dates(first, interval, every, anchor_day, ahead):
        if ends_date and day.isoformat() >= ends_date:
            return
        yield day.isoformat()


def mrr_on(terms_json: str, day: str) -> int:
    """A contract's MRR at the end of a day, from its `terms`."""
    level = 0
    for begins, mrr_cents, _counted in json.decode(terms_json):
        if begins > day:
            break
        level = mrr_cents
    return level


def amount_on(amounts: Sequence[tuple[str, int]], day: str) -> int:
    """What a contract's bill of a day is worth, from its `amounts` decoded."""
    worth = 0
    for begins, cents in amounts:
        if begins > day:
            break
        worth = cents
    return worth


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day else None


def _by_status(row: Bill) -> tuple[int, ...]:
    if row.status == "uncollectible":  # listed, and not in totals
        return 0, 0, 0, 0, 0, 0, row.amount_cents
    upcoming = row.status in UPCOMING
    billed = 0 if upcoming else row.amount_cents
    return 1, int(upcoming), billed, row.amount_cents - billed, row.later_cents, row.open_cents, 0


BILLS = Book(
    name="bills",
    version=1,
    stages=(
        Stage(reads="subscription", contribute=contract, rows=(Contract,)),
        Stage(reads="invoice", contribute=invoice, rows=(IssuedInvoice,)),
        Stage(reads=(Contract, IssuedInvoice), contribute=bills, rows=(Bill,)),
    ),
    totals=(
        Total(
            table="bill_days",
            of=Bill,
            by=("currency", "account", "date"),
            sums=(
                "bills",
                "upcoming_bills",
                "billed_cents",
                "upcoming_cents",
                "later_cents",
                "open_cents",
                "uncollectible_cents",
            ),
            measure=_by_status,
        ),
    ),
)

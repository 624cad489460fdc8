"""The bills book: next bill dates, and invoices by the day they were billed.

A bill is an invoice or, where none has been issued for it yet, a contract's next bill as the
processor states it. The last stage reads a contract's own row and its invoices together, and so sees
whether an invoice has been issued for the next bill.
"""

from collections.abc import Iterator, Sequence
from datetime import date

from msgspec import json

from projections.book import Book, Row, Rules, Stage, Total, causes
from projections.contracts import BILLING_STATUSES, ContractState, contract_states, mrr_terms
from projections.pricing import change_days, is_unpriced, price_on
from service.core import cadence
from service.core.events import INVOICE_RANK, Event, Invoice, Subscription, join_key, subject
from service.core.moments import day_of

UPCOMING_STATUSES = ("upcoming", "draft")  # of bills that are not issued yet


class Contract(Row, frozen=True, kw_only=True):
    """A contract as it is now. `terms` is JSON: [[date, MRR from then on, whether it counts], …].

    `amounts` is JSON too: [[date, the amount of one bill from then on], …], from the next bill on;
    `amount_cents` is the first of these amounts.
    `tied`: on some day two events of one moment differ, and only their ids order them.
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
    """A bill. `later_cents` is the amount of the contract's further bills in the same month."""

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


def contract_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One subscription's events to the row of its present state."""
    history_states = contract_states(history, rules)
    if not history_states:
        return []
    state, data = history_states[-1], history_states[-1].data
    next_bill = _next_bill(state, rules)
    price = price_on(data, next_bill or state.day, rules)
    dated_mrr = [
        (term.day.isoformat(), term.mrr_cents, term.counted) for term in mrr_terms(history_states, rules)
    ]
    return [
        Contract(
            parent_key=join_key("subscription", state.processor, state.account, data.subscription_id),
            causes=json.encode(state.causes).decode(),
            processor=state.processor,
            account=state.account,
            currency=data.currency,
            customer_id=data.customer_id,
            contract_id=data.subscription_id,
            status=data.status,
            interval=price.interval,
            every=price.every,
            amount_cents=price.bill_cents,
            next_bill_date=_iso(next_bill),
            anchor_day=_anchor_day(data, next_bill, rules),
            ends_date=_iso(_end_date(state, rules)),
            declined=data.declined or data.status == "past_due",
            unpriced=data.status in BILLING_STATUSES and is_unpriced(data),
            tied=any(each.tied for each in history_states),
            trust=state.trust,
            terms=json.encode(dated_mrr).decode(),
            amounts=json.encode(_amounts(data, next_bill or state.day, rules)).decode(),
        )
    ]


def _amounts(data: Subscription, first: date, rules: Rules) -> list[tuple[str, int]]:
    """The amounts of one bill from `first` on, each with the day from which it holds.

    The amount changes where a discount ends.
    """
    amounts: list[tuple[str, int]] = []
    for day in (first, *(day for day in change_days(data, rules.zone) if day > first)):
        cents = price_on(data, day, rules).bill_cents
        if not amounts or amounts[-1][1] != cents:
            amounts.append((day.isoformat(), cents))
    return amounts


def _next_bill(state: ContractState, rules: Rules) -> date | None:
    """The next bill's date as the processor states it, never a computed one; None if it will not bill."""
    data = state.data
    if state.ended or data.status not in BILLING_STATUSES or data.collection_paused:
        return None
    moment = data.trial_end_at if data.status == "trialing" and data.trial_end_at else data.next_bill_at
    day = day_of(moment, rules.zone) if moment else data.next_bill_on
    end = _end_date(state, rules)
    return None if day is None or (end and end <= day) else day


def _anchor_day(data: Subscription, next_bill: date | None, rules: Rules) -> int | None:
    """The day of the month on which later bills fall, if the next bill falls on it too; else None."""
    if next_bill is None or data.anchor_at is None:
        return None
    day = day_of(data.anchor_at, rules.zone).day
    return day if cadence.add_months(next_bill, 0, day) == next_bill else None


def _end_date(state: ContractState, rules: Rules) -> date | None:
    if state.ended:
        return state.day
    return day_of(state.data.cancel_at, rules.zone) if state.data.cancel_at else None


def invoice_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One invoice's events to the row of its present state. A paid invoice stays paid."""
    history = [event for event in history if isinstance(event.data, Invoice)]
    if not history:
        return []
    latest, data = latest_invoice(history)
    failed = any(isinstance(e.data, Invoice) and e.data.payment_failed for e in history)
    remaining = data.amount_due - data.amount_paid if data.amount_remaining is None else data.amount_remaining
    is_open = data.status == "open"
    kind, key = (
        ("subscription", data.subscription_id) if data.subscription_id else ("invoice", data.invoice_id)
    )
    return [
        IssuedInvoice(
            parent_key=subject(kind, latest, key),
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
    """The last event, and its data, among those with the most advanced status: paid is after open."""
    invoices = [(event, event.data) for event in history if isinstance(event.data, Invoice)]
    furthest = max(INVOICE_RANK.get(data.status, 1) for _, data in invoices)
    return [(event, data) for event, data in invoices if INVOICE_RANK.get(data.status, 1) == furthest][-1]


def bill_rows(rows: Sequence[Contract | IssuedInvoice], _rules: Rules) -> list[Row]:
    """The rows of one contract and its invoices (or of one invoice without a contract) to bills."""
    contracts = [row for row in rows if isinstance(row, Contract)]
    invoices = sorted(
        (row for row in rows if isinstance(row, IssuedInvoice)), key=lambda r: (r.date, r.invoice_id)
    )
    billing_contract = contracts[0] if contracts else None
    upcoming = stated = billing_contract.next_bill_date if billing_contract else None
    if any(upcoming and row.created_date >= upcoming and row.status != "deleted" for row in invoices):
        upcoming = None
    listed = [row for row in invoices if row.status not in ("void", "deleted") and row.amount_cents]
    dates = [*(row.date for row in listed), *([stated] if stated else [])]
    bills: list[Row] = []
    for row in listed:
        next_date = next((day for day in dates if day > row.date), None)
        bills.append(
            _invoice_bill(row, billing_contract, next_date or _date_after(row.date, billing_contract))
        )
    if billing_contract and upcoming and billing_contract.amount_cents:
        bills.append(_upcoming_bill(billing_contract, upcoming))
    return bills


def _date_after(day: str, billing_contract: Contract | None) -> str | None:
    """The contract's first bill date after `day`, by its next bill and interval; None if it ends."""
    if billing_contract is None or billing_contract.next_bill_date is None:
        return None
    schedule = (
        billing_contract.interval,
        billing_contract.every,
        billing_contract.anchor_day,
        billing_contract.ends_date,
    )
    dates = roll_bill_dates(billing_contract.next_bill_date, *schedule, since=day)
    return next((date for date in dates if date > day), None)


def _invoice_bill(row: IssuedInvoice, billing_contract: Contract | None, next_bill_date: str | None) -> Bill:
    return Bill(
        causes=row.causes,
        processor=row.processor,
        account=row.account,
        currency=row.currency,
        customer_id=row.customer_id or (billing_contract.customer_id if billing_contract else ""),
        contract_id=row.contract_id,
        invoice_id=row.invoice_id,
        date=row.date,
        status=row.status,
        amount_cents=row.amount_cents,
        open_cents=row.open_cents,
        later_cents=0,
        interval=billing_contract.interval if billing_contract else cadence.ONCE,
        every=billing_contract.every if billing_contract else 1,
        mrr_cents=mrr_on(billing_contract.terms, row.date) if billing_contract else 0,
        next_bill_date=next_bill_date,
        declined=row.status == "failed",
        trust=row.trust,
    )


def _upcoming_bill(row: Contract, day: str) -> Bill:
    dates = roll_bill_dates(day, row.interval, row.every, row.anchor_day, row.ends_date)
    next(dates)  # the bill itself
    next_bill_date = next(dates, None)
    later_cents, later_date = 0, next_bill_date
    while later_date and later_date[:7] == day[:7]:
        later_cents += amount_on(json.decode(row.amounts), later_date)
        later_date = next(dates, None)
    return Bill(
        causes=row.causes,
        processor=row.processor,
        account=row.account,
        currency=row.currency,
        customer_id=row.customer_id,
        contract_id=row.contract_id,
        invoice_id=None,
        date=day,
        status="upcoming",
        amount_cents=row.amount_cents,
        open_cents=0,
        later_cents=later_cents,
        interval=row.interval,
        every=row.every,
        mrr_cents=mrr_on(row.terms, day),
        next_bill_date=next_bill_date,
        declined=row.declined,
        trust=row.trust,
    )


def roll_bill_dates(
    next_bill_date: str,
    interval: str,
    every: int,
    anchor_day: int | None,
    ends_date: str | None,
    *,
    since: str | None = None,
) -> Iterator[str]:
    """A contract's bill dates from its next bill on, by its interval, until it ends.

    Dates before `since` may be left out.
    """
    first, ahead = date.fromisoformat(next_bill_date), date.fromisoformat(since) if since else None
    for day in cadence.bill_dates(first, interval, every, anchor_day, ahead):
        if ends_date and day.isoformat() >= ends_date:
            return
        yield day.isoformat()


def mrr_on(terms_json: str, day: str) -> int:
    """A contract's MRR at the end of a day, from its `terms`."""
    mrr_cents = 0
    for start, term_cents, _counted in json.decode(terms_json):
        if start > day:
            break
        mrr_cents = term_cents
    return mrr_cents


def amount_on(amounts: Sequence[tuple[str, int]], day: str) -> int:
    """The amount in cents of a contract's bill on a day, from its decoded `amounts`."""
    amount_cents = 0
    for start, cents in amounts:
        if start > day:
            break
        amount_cents = cents
    return amount_cents


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day else None


def _measure_bill(row: Bill) -> tuple[int, ...]:
    if row.status == "uncollectible":  # is listed, but not in the totals
        return 0, 0, 0, 0, 0, 0, row.amount_cents
    upcoming = row.status in UPCOMING_STATUSES
    billed = 0 if upcoming else row.amount_cents
    return 1, int(upcoming), billed, row.amount_cents - billed, row.later_cents, row.open_cents, 0


BILLS = Book(
    name="bills",
    version=1,
    stages=(
        Stage(reads="subscription", contribute=contract_rows, rows=(Contract,)),
        Stage(reads="invoice", contribute=invoice_rows, rows=(IssuedInvoice,)),
        Stage(reads=(Contract, IssuedInvoice), contribute=bill_rows, rows=(Bill,)),
    ),
    totals=(
        Total(
            table="bill_days",
            row_type=Bill,
            group_by=("currency", "account", "date"),
            sums=(
                "bills",
                "upcoming_bills",
                "billed_cents",
                "upcoming_cents",
                "later_cents",
                "open_cents",
                "uncollectible_cents",
            ),
            measure=_measure_bill,
        ),
    ),
)

"""The bills of contracts that are only observed: MX Merchant issues no invoices that it reports.

A contract leaves a bill on each due day that came between two observations. Such a bill is paid where a
payment of its customer and amount lies near it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import pairwise

from projections.book import Row, Rules, encode_causes, last_event_date, merge_causes
from projections.contract_life import ContractState
from projections.pricing import price_on
from projections.receipts import is_voided
from projections.work import Work, size_of
from service.core import cadence
from service.core.cadence import Anchor
from service.core.events import Event, Payment, Subscription, join_key
from service.core.moments import day_of

_PROCESSOR = "mxmerchant"
_NEAR_DAYS = 3  # between a bill and the payment that pays it


class _Dated(Row, frozen=True, kw_only=True):
    """What bills and payments have in common: whose they are, the day, and how much."""

    processor: str
    account: str
    currency: str
    customer_id: str
    date: str
    amount_cents: int
    trust: str


class ObservedBill(_Dated, frozen=True, kw_only=True):
    """A day on which a contract billed. Its parent is the customer's amount, which payments may have, too."""

    table = "observed_bills"

    contract_id: str
    interval: str
    every: int


class ObservedPayment(_Dated, frozen=True, kw_only=True):
    """A payment that may have paid a bill."""

    table = "observed_payments"

    payment_id: str
    last_event_date: str


class SettledBill(ObservedBill, frozen=True, kw_only=True):
    """An observed bill with its status, "paid" or "billed". Its parent is the contract.

    `last_event_date` is that of its payment, empty without one.
    """

    table = "settled_bills"

    status: str
    last_event_date: str


def observed_bills(states: Sequence[ContractState], rules: Rules) -> Iterator[ObservedBill]:
    """The bills of one contract, from its states in order."""
    work = Work()
    for state, following in pairwise(states):
        data = state.data
        if state.processor == _PROCESSOR and data.status == "active" and data.next_bill_on:
            for day in _due_days(data, following):
                work.add(size_of(data))
                price = price_on(data, day, rules)
                if price.bill_cents:
                    yield ObservedBill(
                        parent_key=_match_key(
                            state.account, data.customer_id, data.currency, price.bill_cents
                        ),
                        causes=encode_causes({*state.causes, *following.causes}),
                        processor=state.processor,
                        account=state.account,
                        currency=data.currency,
                        customer_id=data.customer_id,
                        date=day.isoformat(),
                        amount_cents=price.bill_cents,
                        trust=state.trust,
                        contract_id=data.subscription_id,
                        interval=price.interval,
                        every=price.every,
                    )


def _due_days(data: Subscription, following: ContractState) -> Iterator[date]:
    """The days from a next bill to before that of the following observation, and not after it.

    The day of the last invoice, as then observed, takes the place of a due day within half an interval.
    """
    assert data.next_bill_on is not None  # noqa: S101 - looked at before
    [item] = data.items
    day = data.anchor_day or (data.anchor_on.day if data.anchor_on else None)
    anchor = Anchor(day=day, on=data.anchor_on) if day else None
    stop = following.data.next_bill_on
    half_interval = _days_of(item.interval, item.every) / 2
    for due in cadence.bill_dates(data.next_bill_on, item.interval, item.every, anchor):
        if due > following.day or (stop and due >= stop):
            return
        invoiced = following.data.last_invoice_on
        yield invoiced if invoiced and abs((invoiced - due).days) < half_interval else due


def _days_of(interval: str, every: int) -> int:
    return {"day": 1, "week": 7, "month": 30, "year": 365, "once": 2 * _NEAR_DAYS}[interval] * every


def observed_payment_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One payment's events to the payment, if it was made by a customer of observed contracts."""
    payments = [
        (event, event.data)
        for event in history
        if event.processor == _PROCESSOR
        and isinstance(event.data, Payment)
        and not event.data.awaits_confirmation
    ]
    if not payments or payments[-1][1].status != "succeeded" or is_voided(event for event, _ in payments):
        return []
    event, data = payments[-1]
    customer_id = data.customer_id or ""
    return [
        ObservedPayment(
            parent_key=_match_key(event.account, customer_id, data.currency, data.amount)
            if customer_id
            else "",
            causes=encode_causes([event.cause]),
            processor=event.processor,
            account=event.account,
            currency=data.currency,
            customer_id=customer_id,
            date=day_of(event.occurred_at, rules.zone).isoformat(),
            amount_cents=data.amount,
            trust=event.trust,
            payment_id=data.payment_id,
            last_event_date=last_event_date(history, rules),
        )
    ]


def settled_bill_rows(rows: Sequence[ObservedBill | ObservedPayment], _rules: Rules) -> list[Row]:
    """The bills of one customer and amount, each paid by the nearest payment, each payment once."""
    bills = [row for row in rows if isinstance(row, ObservedBill)]
    payments = [row for row in rows if isinstance(row, ObservedPayment)]
    by_date: dict[date, list[ObservedPayment]] = defaultdict(list)
    for payment in payments:
        by_date[date.fromisoformat(payment.date)].append(payment)
    work, near = Work(), [timedelta(days) for days in range(-_NEAR_DAYS, _NEAR_DAYS + 1)]
    pairs: list[tuple[int, str, str, str, ObservedBill, ObservedPayment]] = []
    for bill in bills:
        found = [(abs(days.days), p) for days in near for p in by_date[date.fromisoformat(bill.date) + days]]
        work.add(len(found))
        pairs += [(days, bill.date, p.payment_id, bill.contract_id, bill, p) for days, p in found]
    paid: dict[ObservedBill, ObservedPayment] = {}
    used: set[str] = set()
    for *_, bill, payment in sorted(pairs, key=lambda pair: pair[:4]):
        if bill not in paid and payment.payment_id not in used:
            paid[bill] = payment
            used.add(payment.payment_id)
    return [_settled(bill, paid.get(bill)) for bill in bills]


def _settled(bill: ObservedBill, payment: ObservedPayment | None) -> SettledBill:
    columns = {name: getattr(bill, name) for name in bill.__struct_fields__}
    columns["parent_key"] = join_key("subscription", bill.processor, bill.account, bill.contract_id)
    if payment is None:
        return SettledBill(status="billed", last_event_date="", **columns)
    columns["causes"] = merge_causes((bill.causes, payment.causes))
    return SettledBill(status="paid", last_event_date=payment.last_event_date, **columns)


def _match_key(account: str, customer_id: str, currency: str, amount_cents: int) -> str:
    """The key that a customer's bills and payments of one amount have in common."""
    return join_key(_PROCESSOR, account, customer_id, currency, str(amount_cents))

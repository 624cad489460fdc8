"""The bills book: next bill dates, and invoices by the day they were billed.

A bill is an invoice or, where none has been issued for it yet, a contract's next bill as the
processor states it. The last stage reads a contract's own row and its invoices together, and so sees
whether an invoice has been issued for the next bill, and what of it is still to be paid: what its payments
say of its money counts as in `projections.settlement`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date
from functools import cache, partial
from itertools import islice
from typing import Any

from msgspec import json
from msgspec.structs import replace

from projections.book import (
    INFERRED,
    Book,
    Row,
    Rules,
    Stage,
    Total,
    encode_causes,
)
from projections.contract_life import ContractState
from projections.contracts import (
    CONTRACT_STATES,
    ContractStart,
    ContractStates,
    contract_key,
    contract_state_rows,
    mrr_terms,
)
from projections.customer_discounts import CustomerDiscounts, customer_discount_rows
from projections.inferred import (
    BilledItems,
    InferredStates,
    billed_item_rows,
    contract_lives,
    inferred_state_rows,
)
from projections.issued_invoices import (
    IssuedInvoice,
    LinkedPayment,
    UnstatedMoney,
    as_settled,
    invoice_rows,
    joined_claim_rows,
    joined_receipt_rows,
    linked_payment_rows,
    unstated_money_rows,
)
from projections.observed_bills import (
    ObservedBill,
    ObservedPayment,
    SettledBill,
    observed_bills,
    observed_payment_rows,
    settled_bill_rows,
)
from projections.pricing import is_unpriced, price_on
from projections.receipts import Claim, Receipt
from projections.schedules import (
    BILLED_STATUSES,
    BilledPeriod,
    BillingSchedule,
    are_bills_split,
    billing_schedules,
    decode,
    decode_periods,
    encode,
)
from projections.work import Work
from service.core import cadence
from service.core.events import Event
from service.core.moments import day_of

UPCOMING_STATUSES = ("upcoming", "draft")  # of bills that are not issued yet


class Contract(Row, frozen=True, kw_only=True):
    """A contract as it is now. `terms` is JSON: [[date, MRR from then on, whether it counts], …].

    Before the day `told_from` they are inferred.

    `schedules` are its billing schedules (see `projections.schedules`). `next_bill_date` is the earliest day
    of their stated next bills, `amount_cents` the sum of those, and `second_bill_date` the earliest day of a
    bill that is not stated. `reason` and `feedback` say why it was, or will be, cancelled.
    `tied`: on some day two events of one moment differ, and only their ids order them. `last_event_date` is
    that of its own events.
    """

    table = "contracts"
    indexes = (
        ("currency", "contract_id"),
        ("unpriced", "currency"),
        ("unknown_status", "currency"),
        ("customer_id", "currency"),
    )

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
    second_bill_date: str | None
    ends_date: str | None
    reason: str | None
    feedback: str | None
    declined: bool
    unpriced: bool
    unknown_status: bool
    tied: bool
    last_event_date: str
    trust: str
    terms: str
    told_from: str
    schedules: str


class Bill(Row, frozen=True, kw_only=True):
    """A bill: an invoice, a day on which an observed contract billed, or a next bill.

    The status of the next bill of a contract's schedule is "upcoming"; `ends_date` is the day on which its
    contract ends. It is `unheard` if no event of its contract, or of that one's bills, is dated on its day or
    after it (but see `LinkedPayment`). `mrr_inferred`: what was billed tells its MRR, and no event.
    """

    table = "bills"
    indexes = (
        ("currency", "date", "account", "processor", "customer_id"),
        ("unheard", "currency", "date"),
    )

    processor: str
    account: str
    currency: str
    customer_id: str
    contract_id: str | None
    invoice_id: str | None = None
    date: str
    status: str
    amount_cents: int
    open_cents: int = 0
    uncollectible_cents: int = 0
    interval: str
    every: int
    mrr_cents: int
    next_bill_date: str | None
    ends_date: str | None = None
    declined: bool = False
    unheard: bool = False
    mrr_inferred: bool = False
    trust: str


def contract_rows(
    rows: Sequence[ContractStates | InferredStates | CustomerDiscounts], rules: Rules
) -> list[Row]:
    """One customer's contracts and discounts to the contracts' present states, and their observed bills."""
    contracts: list[Row] = []
    for row, states in contract_lives(rows, rules):
        if row.present:
            contracts += [
                *_contract(states, row.last_event_date, rules),
                *observed_bills(states, rules),
            ]
    return contracts


def observed_contract_rows(
    history: Sequence[Event], rules: Rules, discounts: Sequence[CustomerDiscounts] = ()
) -> list[Row]:
    """The row of a contract by its own events alone, and its customer's discounts, if any are given."""
    states = [row for row in contract_state_rows(history, rules) if isinstance(row, ContractStates)]
    return [row for row in contract_rows([*states, *discounts], rules) if isinstance(row, Contract)]


def _contract(states: Sequence[ContractState], heard: str, rules: Rules) -> list[Row]:
    if not states:
        return []
    state, data = states[-1], states[-1].data
    ends = _end_date(state, rules)
    schedules = billing_schedules(state, ends, rules)
    stated = [each for each in schedules if not each.planned]
    next_bill = stated[0].next_bill_date if stated else None
    due = [each for each in stated if each.next_bill_date == next_bill]
    price = price_on(data, date.fromisoformat(next_bill) if next_bill else state.day, rules)
    dated_mrr = [(term.day.isoformat(), term.mrr_cents, term.counted) for term in mrr_terms(states, rules)]
    return [
        Contract(
            parent_key=contract_key(state.processor, state.account, data.subscription_id),
            causes=encode_causes(state.causes),
            processor=state.processor,
            account=state.account,
            currency=data.currency,
            customer_id=data.customer_id,
            contract_id=data.subscription_id,
            status=data.status,
            interval=price.interval,
            every=price.every,
            amount_cents=sum(each.amount_on(each.next_bill_date) for each in due)
            if next_bill
            else price.bill_cents,
            next_bill_date=next_bill,
            second_bill_date=min(filter(None, map(_first_unstated_day, schedules)), default=None),
            ends_date=ends,
            reason=data.cancellation_reason,
            feedback=data.cancellation_feedback,
            declined=data.declined or data.status == "past_due",
            unpriced=data.status in BILLED_STATUSES
            and (_is_unpriced(state) or are_bills_split(data, schedules)),
            unknown_status=state.unknown_status,
            tied=any(each.tied for each in states),
            last_event_date=heard,
            trust=state.trust,
            terms=json.encode(dated_mrr).decode(),
            told_from=next(each.day for each in states if each.trust != INFERRED).isoformat(),
            schedules=encode(schedules),
        )
    ]


def _first_unstated_day(schedule: BillingSchedule) -> str | None:
    return next(islice(schedule.bill_days(), 0 if schedule.planned else 1, None), None)


def _is_unpriced(state: ContractState) -> bool:
    """Whether a price or discount, of now or of a phase to come, can't be read."""
    phases = (replace(state.data, items=each.items, discounts=each.discounts) for each in state.phases)
    return any(map(is_unpriced, (state.data, *phases)))


def _end_date(state: ContractState, rules: Rules) -> str | None:
    if state.ended:
        return state.day.isoformat()
    return day_of(state.data.cancel_at, rules.zone).isoformat() if state.data.cancel_at else None


def bill_rows(
    rows: Sequence[Contract | IssuedInvoice | SettledBill | UnstatedMoney], _rules: Rules
) -> list[Row]:
    """The rows of one contract and its bills (or of one invoice without a contract) to bills."""
    contract = next((row for row in rows if isinstance(row, Contract)), None)
    schedules = decode(contract.schedules) if contract else []
    invoices = sorted(
        (row for row in rows if isinstance(row, IssuedInvoice)), key=lambda r: (r.date, r.invoice_id)
    )
    stated = [each for each in schedules if not each.planned]
    of_periods = [row for row in invoices if row.status != "deleted" and not row.within_period]
    unstated = {row.invoice_id: row for row in rows if isinstance(row, UnstatedMoney)}
    listed = [
        as_settled(row, unstated.get(row.invoice_id))
        for row in invoices
        if row.status not in ("void", "deleted") and row.amount_cents
    ]
    observed = [row for row in rows if isinstance(row, SettledBill)]
    issued: list[IssuedInvoice | SettledBill] = [*listed, *observed]
    dates = sorted({*(row.date for row in issued), *(each.next_bill_date for each in schedules)})
    bills: list[Row] = []
    mrr = _DailyMrr(contract.terms, contract.told_from) if contract else _DailyMrr("[]")
    after = cache(partial(_date_after, schedules=schedules))
    heard = max((row.last_event_date for row in rows if not isinstance(row, UnstatedMoney)), default="")
    for row in issued:
        later = bisect_right(dates, row.date)
        next_date = dates[later] if later < len(dates) else after(row.date)
        bills.append(
            _invoice_bill(row, contract, mrr, next_date)
            if isinstance(row, IssuedInvoice)
            else _observed_bill(row, mrr, next_date)
        )
    if contract:
        last_billed = _last_billed(stated, of_periods)
        bills += [
            _upcoming_bill(contract, each, mrr, heard)
            for each, last_day in zip(stated, last_billed, strict=True)
            if each.amount_on(each.next_bill_date) and last_day < each.next_bill_date
        ]
    return bills


def _last_billed(schedules: Sequence[BillingSchedule], invoices: Sequence[IssuedInvoice]) -> list[str]:
    """Up to which day the invoices of a contract stand for the bills of each of its schedules; "" for none.

    An invoice stands for a schedule's bill if it bills a period of the schedule that starts on the bill's day
    or later. One whose periods are not known stands for the bills of its day and before.
    """
    first = min((each.next_bill_date for each in schedules), default="")
    last_days, work = [""] * len(schedules), Work()
    for invoice in invoices:
        periods: list[BilledPeriod | None] = [*decode_periods(invoice.periods)]
        for period in periods or [None]:
            day = period.day if period else invoice.created_date
            if day < first:  # none of their bills is so early
                continue
            work.add(len(schedules))
            billed = {id(each) for each in (period.billed(schedules) if period else schedules)}
            last_days = [
                max(day, last) if id(each) in billed else last
                for each, last in zip(schedules, last_days, strict=True)
            ]
    return last_days


def _date_after(day: str, schedules: Sequence[BillingSchedule]) -> str | None:
    """The first bill date after `day` by the schedules; None if there is none."""
    later = (next((date for date in each.bill_days(day) if date > day), None) for each in schedules)
    return min(filter(None, later), default=None)


def _invoice_bill(
    row: IssuedInvoice, contract: Contract | None, mrr: "_DailyMrr", next_bill_date: str | None
) -> Bill:
    return _bill(
        row,
        mrr,
        customer_id=row.customer_id or (contract.customer_id if contract else ""),
        invoice_id=row.invoice_id,
        date=row.date,
        status=row.status,
        amount_cents=row.amount_cents,
        open_cents=row.open_cents,
        uncollectible_cents=row.uncollectible_cents,
        interval=contract.interval if contract else cadence.ONCE,
        every=contract.every if contract else 1,
        next_bill_date=next_bill_date,
        declined=row.status == "failed",
    )


def _observed_bill(row: SettledBill, mrr: "_DailyMrr", next_bill_date: str | None) -> Bill:
    return _bill(
        row,
        mrr,
        customer_id=row.customer_id,
        date=row.date,
        status=row.status,
        amount_cents=row.amount_cents,
        interval=row.interval,
        every=row.every,
        next_bill_date=next_bill_date,
    )


def _upcoming_bill(row: Contract, schedule: BillingSchedule, mrr: "_DailyMrr", heard: str) -> Bill:
    days = schedule.bill_days()
    day = next(days)
    return _bill(
        row,
        mrr,
        customer_id=row.customer_id,
        date=day,
        status="upcoming",
        amount_cents=schedule.amount_on(day),
        interval=schedule.interval,
        every=schedule.every,
        next_bill_date=next(days, None),
        ends_date=row.ends_date,
        declined=row.declined,
        unheard=heard < day,
    )


def _bill(
    source: IssuedInvoice | SettledBill | Contract, mrr: "_DailyMrr", *, date: str, **fields: Any
) -> Bill:
    """The bill of a row, with the MRR of its contract at the end of the day."""
    return Bill(
        causes=source.causes,
        processor=source.processor,
        account=source.account,
        currency=source.currency,
        contract_id=source.contract_id,
        date=date,
        mrr_cents=mrr.on(date),
        mrr_inferred=mrr.is_inferred(date),
        trust=source.trust,
        **fields,
    )


class _DailyMrr:
    """A contract's MRR at the end of each day, from its `terms`; inferred before the day `told_from`."""

    def __init__(self, terms_json: str, told_from: str = "") -> None:
        terms: list[tuple[str, int, bool]] = json.decode(terms_json)
        self._told_from = told_from
        self._starts = [start for start, _, _ in terms]
        self._cents = [0, *(cents for _, cents, _ in terms)]

    def on(self, day: str) -> int:
        return self._cents[bisect_right(self._starts, day)]

    def is_inferred(self, day: str) -> bool:
        return bool(self.on(day) and day < self._told_from)


def mrr_on(terms_json: str, day: str) -> int:
    """A contract's MRR at the end of a day, from its `terms`."""
    return _DailyMrr(terms_json).on(day)


def _measure_bill(row: Bill) -> tuple[int, ...]:
    if row.status == "uncollectible":  # is listed, but not in the totals
        return 0, 0, 0, 0, 0, 0, 0, row.uncollectible_cents
    drafted, stated = row.status == "draft", row.status == "upcoming"
    cents = row.amount_cents
    return (
        1,
        int(drafted),
        int(stated),
        0 if drafted or stated else cents,
        cents if drafted else 0,
        cents if stated else 0,
        row.open_cents,
        0,
    )


BILLS = Book(
    name="bills",
    version=9,
    stages=(
        CONTRACT_STATES,
        Stage(reads="invoice", contribute=billed_item_rows, rows=(BilledItems,)),
        Stage(reads=(ContractStart, BilledItems), contribute=inferred_state_rows, rows=(InferredStates,)),
        Stage(reads="customer_discount", contribute=customer_discount_rows, rows=(CustomerDiscounts,)),
        Stage(
            reads=(ContractStates, InferredStates, CustomerDiscounts),
            contribute=contract_rows,
            rows=(Contract, ObservedBill),
        ),
        Stage(reads="payment", contribute=observed_payment_rows, rows=(ObservedPayment,)),
        Stage(reads=(ObservedBill, ObservedPayment), contribute=settled_bill_rows, rows=(SettledBill,)),
        Stage(reads="invoice", contribute=invoice_rows, rows=(IssuedInvoice,)),
        Stage(reads="payment", contribute=linked_payment_rows, rows=(LinkedPayment,)),
        Stage(reads="invoice", contribute=joined_claim_rows, rows=(Claim,)),
        Stage(reads="payment", contribute=joined_receipt_rows, rows=(Receipt,)),
        Stage(reads=(Claim, Receipt), contribute=unstated_money_rows, rows=(UnstatedMoney,)),
        Stage(
            reads=(Contract, IssuedInvoice, SettledBill, UnstatedMoney), contribute=bill_rows, rows=(Bill,)
        ),
    ),
    totals=(
        Total(
            table="bill_days",
            row_type=Bill,
            group_by=("currency", "account", "date"),
            sums=(
                "bills",
                "drafts",
                "stated_bills",
                "billed_cents",
                "drafted_cents",
                "stated_cents",
                "open_cents",
                "uncollectible_cents",
            ),
            measure=_measure_bill,
        ),
    ),
)

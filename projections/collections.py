"""The collections book: money collected, refunded and lost in disputes, each on its own day.

Collected money follows the level last reported, and a fall is taken back on its own day. What of it belongs
together is said in `projections.settlement`. A refund may be reported by an event of its own and by events
of its charge; it counts once.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from msgspec.structs import replace

from projections.book import Book, Row, Rules, Stage, Total, causes
from projections.receipts import INFERRING, Claim, Receipt, claim_rows, customer_of, last_key, receipt_rows
from projections.settlement import Settlement, days, known_customer, settle
from projections.status_words import UnknownStatus, unknown_status_rows
from service.core.events import Dispute, Event, Invoice, Payment, Refund, join_key
from service.core.moments import day_of, to_us

CASH_KINDS = ("collected", "refunded", "disputed")

_TAKING = ("lost", "prevented")


class _Money(Row, frozen=True, kw_only=True):
    """Money that moved on a day. `source_id` is the id of the invoice, payment, refund or dispute."""

    processor: str
    account: str
    currency: str
    customer_id: str
    date: str
    kind: str
    source_id: str
    part: int
    amount_cents: int
    trust: str


class Cash(_Money, frozen=True, kw_only=True):
    """Money that moved on a day; negative where collected money was taken back.

    `link` says how invoice and payment were joined: "stated", "inferred", or "" where they were not.
    `unlinked` is True of one row of each payment that counts for want of an invoice, at a processor that
    makes invoices.
    """

    table = "cash"
    indexes = (("currency", "date"),)

    link: str = ""
    unlinked: bool = False


class ReturnStatement(_Money, frozen=True, kw_only=True):
    """What one history states of a refund or a dispute; an amount of 0 if nothing went back.

    Another may state it, too: one event names the payment, another does not. `stated_at_us` and `rank` are
    the event's. `invoice_key` is that of the payment's invoice, where only this names the customer.
    """

    table = "return_statements"

    stated_at_us: int
    rank: int
    invoice_key: str = ""


class Return(_Money, frozen=True, kw_only=True):
    """Money that went back of a payment whose customer only its invoice names."""

    table = "returns"


def invoice_cash_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One invoice's events to its claim, or to cash where no payment can belong to it."""
    return [*_with_cash(claim_rows(history), rules), *unknown_status_rows(history, Invoice)]


def payment_cash_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One payment's events to cash or, where the money may be an invoice's, receipts; and what went back."""
    unknown = unknown_status_rows(history, Payment, Refund, Dispute)
    return [*_with_cash(receipt_rows(history), rules), *return_statements(history, rules), *unknown]


def settled_cash_rows(rows: Sequence[Claim | Receipt | Return], rules: Rules) -> list[Row]:
    """Claims and receipts that may belong together to cash, and what went back of them."""
    collected = (cash for settlement in settle(rows) for cash in _collected_rows(settlement, rules))
    return [*collected, *returned_rows(rows)]


def agreed_rows(statements: Sequence[ReturnStatement], _rules: Rules) -> list[Row]:
    """All that is stated of one refund or dispute to the money that went back.

    The last statement counts, on the first day since which money is gone, as any of them says.
    """
    gone: ReturnStatement | None = None
    for each in sorted(statements, key=attrgetter("stated_at_us", "rank", "causes")):
        first = min(gone.date, each.date) if gone else each.date
        gone = replace(each, date=first) if each.amount_cents else None
    if gone is None:
        return []
    customer_id = next((each.customer_id for each in [gone, *statements] if each.customer_id), "")
    invoice_key = next((each.invoice_key for each in [gone, *statements] if each.invoice_key), "")
    if customer_id or not invoice_key:
        return [Cash(**_money(gone, customer_id))]
    return [Return(parent_key=invoice_key, **_money(gone, ""))]


def returned_rows(rows: Sequence[Row]) -> list[Cash]:
    """What went back of an invoice's payments, as the customer's whose the money is."""
    customer_id = known_customer(rows)
    return [Cash(**_money(row, customer_id)) for row in rows if isinstance(row, Return)]


def _money(row: _Money, customer_id: str) -> dict[str, Any]:
    columns = {name: getattr(row, name) for name in _Money.__struct_fields__ if name != "parent_key"}
    return columns | {"customer_id": customer_id}


def _with_cash(rows: Sequence[Claim | Receipt], rules: Rules) -> list[Row]:
    """The rows that wait for others, and the cash of those that stand alone."""
    waiting = [row for row in rows if row.parent_key]
    alone = [row for row in rows if not row.parent_key]
    return [*waiting, *(cash for row in alone for cash in settled_cash_rows([row], rules))]


def _collected_rows(settlement: Settlement, rules: Rules) -> Iterator[Cash]:
    """What a settlement collected and took back, by day."""
    for part, day in enumerate(days(settlement, rules.zone)):
        yield Cash(
            causes=day.causes,
            processor=settlement.processor,
            account=settlement.account,
            currency=settlement.currency,
            customer_id=settlement.customer_id,
            date=day.date,
            kind="collected",
            source_id=settlement.source_id,
            part=part,
            amount_cents=day.cents,
            trust=day.trust,
            link=settlement.link,
            unlinked=settlement.is_unlinked and not part and settlement.collected_cents > 0,
        )


# What went back


def return_statements(history: Sequence[Event], rules: Rules) -> list[ReturnStatement]:
    """What the history of one payment, or of what names none, states to have gone back."""
    confirmed = [event for event in history if not getattr(event.data, "awaits_confirmation", False)]
    payments = [(event, event.data) for event in confirmed if isinstance(event.data, Payment)]
    statuses = {data.status for _, data in payments}
    if "authorized" in statuses and "succeeded" not in statuses:  # nothing was captured, so nothing went back
        return []
    customer_id = customer_of(confirmed)
    rows = [
        *_refunded_rows(confirmed, payments, customer_id, rules),
        *_disputed_rows(confirmed, customer_id, rules),
    ]
    invoice_key = "" if customer_id else last_key(confirmed)
    return [replace(row, invoice_key=invoice_key) for row in rows] if invoice_key else rows


def _refunded_rows(
    confirmed: Sequence[Event], payments: Sequence[tuple[Event, Payment]], customer_id: str, rules: Rules
) -> Iterable[ReturnStatement]:
    """Each refund by its id; then the amounts that a charge reports as refunded beyond these refunds."""
    refunds = {e.data.refund_id: (e, e.data) for e in confirmed if isinstance(e.data, Refund)}
    released = _released_refund([data for _, data in refunds.values()], [data for _, data in payments])
    captured = [data for _, data in refunds.values() if data.captured and data is not released]
    given_back = {data.refund_id for data in captured if data.status == "succeeded"}
    for event, data in refunds.values():
        cents = data.amount if data.refund_id in given_back else 0
        yield _stated(event, "refunded", data.refund_id, cents, data.created_at, customer_id, rules)
    known = [data for data in captured if data.status != "unknown"]
    for part, (event, payment, amount) in enumerate(_unexplained_rises(payments, known)):
        at, name = event.occurred_at, payment.payment_id
        row = _stated(event, "refunded", name, amount, at, customer_id, rules, part)
        yield replace(row, parent_key=join_key("rise", row.parent_key, str(part)))


def _released_refund(refunds: Sequence[Refund], payments: Sequence[Payment]) -> Refund | None:
    """The refund that only gave back the part of a hold that was never captured, if there is one.

    It has that part's amount, and is in excess of the refunds that the charge reports.
    """
    released = max((data.amount_released for data in payments), default=0)
    succeeded = [data for data in refunds if data.status == "succeeded" and data.captured]
    reported = max((data.amount_refunded for data in payments), default=0)
    same = [data for data in succeeded if released and data.amount == released]
    if sum(data.amount for data in succeeded) <= reported:
        return None
    return min(same, key=lambda data: (data.created_at, data.refund_id), default=None)


def _unexplained_rises(
    payments: Sequence[tuple[Event, Payment]], refunds: Sequence[Refund]
) -> list[tuple[Event, Payment, int]]:
    """The rises of `amount_refunded` that no refund explains, each with the event that reports it.

    A refund explains the rise of the same amount that is nearest to it in time; where there is none, its
    amount explains the earliest rises.
    """
    rises = _rises(payments)
    explained, explained_rises = 0, set[int]()
    by_amount: dict[int, list[tuple[datetime, int]]] = defaultdict(list)
    for number, (event, _, amount) in enumerate(rises):
        by_amount[amount].append((event.occurred_at, number))
    for refund in sorted(refunds, key=lambda r: (r.created_at, r.refund_id)):
        if same_amount := by_amount[refund.amount]:
            _, number = same_amount.pop(_nearest(same_amount, refund.created_at))
            explained_rises.add(number)
        else:
            explained += refund.amount
    unexplained = []
    for number, (event, data, amount) in enumerate(rises):
        if number in explained_rises:
            continue
        if amount > explained:
            unexplained.append((event, data, amount - explained))
        explained = max(explained - amount, 0)
    return unexplained


def _nearest(rises: Sequence[tuple[datetime, int]], at: datetime) -> int:
    """The index of the rise that is nearest to a moment, in their order; of two as near the first."""
    place = bisect_left(rises, (at, -1))
    nearest, _ = min(rises[max(place - 1, 0) : place + 1], key=lambda rise: abs(rise[0] - at))
    return bisect_left(rises, (nearest, -1))


def _rises(payments: Sequence[tuple[Event, Payment]]) -> list[tuple[Event, Payment, int]]:
    """The rises of `amount_refunded`. A refund that failed lowers it, and undoes the latest rises.

    Only the attempt that was refunded can say so: an event of another one reports no refunds.
    """
    rises: list[tuple[Event, Payment, int]] = []
    level = 0
    for event, data in payments:
        if data.amount_refunded > level:
            rises.append((event, data, data.amount_refunded - level))
            level = data.amount_refunded
        while rises and level > data.amount_refunded and _takes_back(event, rises[-1][0]):
            last_event, last, amount = rises.pop()
            rest = max(amount - (level - data.amount_refunded), 0)
            level -= amount - rest
            rises += [(last_event, last, rest)] if rest else []
    return rises


def _takes_back(event: Event, risen: Event) -> bool:
    """Whether an event that reports less refunded is a later one of the same attempt.

    At Stripe an attempt is a charge, known by its time. An in-house biller's event of the moment of payment
    knows nothing of refunds that are reported with that moment beside them.
    """
    name = "attempted_at" if event.processor == INFERRING else "paid_at"
    attempt, risen_attempt = (getattr(each.data, name) for each in (event, risen))
    is_known = attempt is not None or event.processor != INFERRING
    return is_known and attempt == risen_attempt and event.occurred_at > risen.occurred_at


def _disputed_rows(confirmed: Sequence[Event], customer_id: str, rules: Rules) -> Iterable[ReturnStatement]:
    """What each dispute that was decided took in the end, on the day on which it did."""
    by_dispute: dict[str, list[tuple[Event, Dispute]]] = defaultdict(list)
    for event in confirmed:
        if isinstance(event.data, Dispute):
            by_dispute[event.data.dispute_id].append((event, event.data))
    for dispute_id, history in by_dispute.items():
        decided = [event for event, data in history if data.status in ("won", *_TAKING)]
        if decided:
            taken_by = _taken_by(history)
            event, cents = decided[-1], 0
            if taken_by:
                event, cents = taken_by, _taken_cents(taken_by, history[-1][1])
            moment = getattr(event.data, "taken_at", None) or event.occurred_at
            row = _stated(event, "disputed", dispute_id, cents, moment, customer_id, rules)
            yield replace(row, stated_at_us=to_us(decided[-1].occurred_at), rank=decided[-1].rank)


def _taken_by(history: Sequence[tuple[Event, Dispute]]) -> Event | None:
    """The event by which a dispute took money: it was lost, or prevented, and not won since."""
    taken = None
    for event, data in history:
        if data.status == "won":
            taken = None
        elif data.status in _TAKING:
            taken = taken or event
    return taken


def _taken_cents(event: Event, latest: Dispute) -> int:
    """A lost dispute takes its amount, a prevented one the sum of its balance transactions."""
    is_lost = isinstance(event.data, Dispute) and event.data.status == "lost"
    return latest.amount if is_lost else latest.amount_taken or 0


def _stated(
    event: Event,
    kind: str,
    source_id: str,
    amount_cents: int,
    moment: datetime,
    customer_id: str,
    rules: Rules,
    part: int = 0,
) -> ReturnStatement:
    return ReturnStatement(
        parent_key=join_key(kind, event.processor, event.account, source_id),
        causes=causes(event),
        processor=event.processor,
        account=event.account,
        currency=event.data.currency,  # type: ignore[attr-defined]
        customer_id=customer_id or getattr(event.data, "customer_id", None) or "",
        date=day_of(moment, rules.zone).isoformat(),
        kind=kind,
        source_id=source_id,
        part=part,
        amount_cents=amount_cents,
        trust=event.trust,
        stated_at_us=to_us(event.occurred_at),
        rank=event.rank,
    )


COLLECTIONS = Book(
    name="collections",
    version=7,
    stages=(
        Stage(reads="invoice", contribute=invoice_cash_rows, rows=(Claim, Cash, UnknownStatus)),
        Stage(
            reads="payment",
            contribute=payment_cash_rows,
            rows=(Receipt, ReturnStatement, Cash, UnknownStatus),
        ),
        Stage(reads=(ReturnStatement,), contribute=agreed_rows, rows=(Return, Cash)),
        Stage(reads=(Claim, Receipt, Return), contribute=settled_cash_rows, rows=(Cash,)),
    ),
    totals=(
        Total(
            table="unknown_status_totals",
            row_type=UnknownStatus,
            group_by=("currency", "account"),
            sums=("objects",),
            measure=lambda _row: (1,),
        ),
        Total(
            table="unlinked_payments",
            row_type=Cash,
            group_by=("currency", "account"),
            sums=("payments",),
            measure=lambda row: (int(row.unlinked),),
        ),
        Total(
            table="cash_days",
            row_type=Cash,
            group_by=("currency", "account", "date"),
            sums=tuple(f"{kind}_cents" for kind in CASH_KINDS),
            measure=lambda row: tuple(row.amount_cents if row.kind == kind else 0 for kind in CASH_KINDS),
        ),
    ),
)

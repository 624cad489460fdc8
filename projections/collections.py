"""The collections book: money collected, refunded and lost in disputes, each on its own day.

An invoice's payments are collected through the invoice; a payment counts by itself only if it belongs
to no invoice. A refund may be reported by an event of its own and by events of its charge; it counts
once.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from projections.book import Book, Row, Rules, Stage, Total, causes
from service.core.events import Dispute, Event, Invoice, InvoicePayment, Payment, Refund
from service.core.moments import day_of

CASH_KINDS = ("collected", "refunded", "disputed")


class Cash(Row, frozen=True, kw_only=True):
    """Money that moved on a day. `source_id` is the id of the invoice, payment, refund or dispute."""

    table = "cash"
    indexes = (("currency", "date"),)

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


def invoice_cash_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One invoice's events to the money collected on it: each rise of `amount_paid`, on its day."""
    rows: list[Row] = []
    paid = 0
    for event in history:
        data = event.data
        if isinstance(data, Invoice) and data.amount_paid > paid:
            moment = (data.status == "paid" and data.paid_at) or event.occurred_at
            change = data.amount_paid - paid
            rows.append(
                _cash_row(
                    event, "collected", data.invoice_id, change, moment, data.customer_id, rules, len(rows)
                )
            )
            paid = data.amount_paid
    return rows


def payment_cash_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One payment's events, with its refunds and disputes, to cash."""
    confirmed = [event for event in history if not getattr(event.data, "awaits_confirmation", False)]
    payments = [event for event in confirmed if isinstance(event.data, Payment)]
    customer_id = next((e.data.customer_id for e in confirmed if getattr(e.data, "customer_id", None)), None)  # type: ignore[attr-defined]
    return [
        *_collected_rows(history, payments, customer_id, rules),
        *_refunded_rows(confirmed, payments, customer_id, rules),
        *_disputed_rows(confirmed, customer_id, rules),
    ]


def _collected_rows(
    history: Sequence[Event], payments: Sequence[Event], customer_id: str | None, rules: Rules
) -> Iterable[Row]:
    """The payment itself, once, unless it is known to pay an invoice."""
    if any(isinstance(e.data, Invoice | InvoicePayment) for e in history):
        return
    succeeded = [
        (e, e.data) for e in payments if isinstance(e.data, Payment) and e.data.status == "succeeded"
    ]
    if not succeeded or any(data.invoice_id or data.for_invoice for _, data in succeeded):
        return
    at_payment = [pair for pair in succeeded if pair[1].paid_at is None]  # events of the payment's own moment
    event, data = min(
        at_payment or succeeded, key=lambda pair: (pair[0].trust == "unsigned", pair[0].occurred_at)
    )
    if data.amount:
        moment = data.paid_at or event.occurred_at
        payer = data.customer_id or customer_id
        yield _cash_row(event, "collected", data.payment_id, data.amount, moment, payer, rules)


def _refunded_rows(
    confirmed: Sequence[Event], payments: Sequence[Event], customer_id: str | None, rules: Rules
) -> Iterable[Row]:
    """Each refund by its id; then the amounts that a charge reports as refunded beyond these refunds."""
    refunds = {e.data.refund_id: (e, e.data) for e in confirmed if isinstance(e.data, Refund)}
    for event, data in refunds.values():
        if data.status == "succeeded" and data.amount:
            yield _cash_row(
                event, "refunded", data.refund_id, data.amount, data.created_at, customer_id, rules
            )
    for part, (event, amount) in enumerate(
        _unexplained_rises(payments, [data for _, data in refunds.values()])
    ):
        source_id = event.data.payment_id  # type: ignore[attr-defined]
        yield _cash_row(event, "refunded", source_id, amount, event.occurred_at, customer_id, rules, part)


def _unexplained_rises(payments: Sequence[Event], refunds: Sequence[Refund]) -> list[tuple[Event, int]]:
    """The rises of `amount_refunded` that no refund explains, as (event that reports the rise, amount).

    A refund explains the rise of the same amount that is nearest to it in time; where there is none, its
    amount explains the earliest rises.
    """
    rises: list[tuple[Event, int]] = []
    highest = 0
    for event in payments:
        refunded = event.data.amount_refunded  # type: ignore[attr-defined]
        if refunded > highest:
            rises.append((event, refunded - highest))
            highest = refunded
    explained = 0
    for refund in sorted(refunds, key=lambda r: (r.created_at, r.refund_id)):
        same_amount = [rise for rise in rises if rise[1] == refund.amount]
        if same_amount:
            created_at = refund.created_at
            rises.remove(min(same_amount, key=lambda rise: abs(rise[0].occurred_at - created_at)))
        else:
            explained += refund.amount
    unexplained = []
    for event, amount in rises:
        if amount > explained:
            unexplained.append((event, amount - explained))
        explained = max(explained - amount, 0)
    return unexplained


def _disputed_rows(confirmed: Sequence[Event], customer_id: str | None, rules: Rules) -> Iterable[Row]:
    """Each dispute that was lost in the end, on the day of the first event that reports it lost."""
    last_data = {e.data.dispute_id: e.data for e in confirmed if isinstance(e.data, Dispute)}
    first_lost: dict[str, Event] = {}
    for event in confirmed:
        if isinstance(event.data, Dispute) and event.data.status == "lost":
            first_lost.setdefault(event.data.dispute_id, event)
    for dispute_id, event in first_lost.items():
        data = last_data[dispute_id]
        if data.status == "lost" and data.amount:
            yield _cash_row(event, "disputed", dispute_id, data.amount, event.occurred_at, customer_id, rules)


def _cash_row(
    event: Event,
    kind: str,
    source_id: str,
    amount_cents: int,
    moment: datetime,
    customer_id: str | None,
    rules: Rules,
    part: int = 0,
) -> Cash:
    return Cash(
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
    )


COLLECTIONS = Book(
    name="collections",
    version=2,
    stages=(
        Stage(reads="invoice", contribute=invoice_cash_rows, rows=(Cash,)),
        Stage(reads="payment", contribute=payment_cash_rows, rows=(Cash,)),
    ),
    totals=(
        Total(
            table="cash_days",
            row_type=Cash,
            group_by=("currency", "account", "date"),
            sums=tuple(f"{kind}_cents" for kind in CASH_KINDS),
            measure=lambda row: tuple(row.amount_cents if row.kind == kind else 0 for kind in CASH_KINDS),
        ),
    ),
)

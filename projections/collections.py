"""The collections book: money collected, refunded and lost in disputes, each on its own day.

An invoice's payments are collected through the invoice; a payment counts by itself only where it
belongs to none. A refund may be told by itself and through its charge: it is keyed by what it is,
so that it counts once.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from projections.book import Book, Row, Rules, Stage, Total, causes
from service.core.events import Dispute, Event, Invoice, InvoicePayment, Payment, Refund
from service.core.moments import day_of

KINDS = ("collected", "refunded", "disputed")


class Cash(Row, frozen=True, kw_only=True):
    """Money that moved on a day. `source_id` is the invoice, payment, refund or dispute."""

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


def invoice_cash(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One invoice's events to what was collected on it: each rise of `amount_paid`, on its day."""
    rows: list[Row] = []
    paid = 0
    for event in history:
        data = event.data
        if isinstance(data, Invoice) and data.amount_paid > paid:
            moment = (data.status == "paid" and data.paid_at) or event.occurred_at
            change = data.amount_paid - paid
            rows.append(
                _cash(event, "collected", data.invoice_id, change, moment, data.customer_id, rules, len(rows))
            )
            paid = data.amount_paid
    return rows


def payment_cash(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One payment's events, with its refunds and disputes, to cash."""
    known = [event for event in history if not getattr(event.data, "awaits_confirmation", False)]
    payments = [event for event in known if isinstance(event.data, Payment)]
    customer_id = next((e.data.customer_id for e in known if getattr(e.data, "customer_id", None)), None)  # type: ignore[attr-defined]
    return [
        *_collected(history, payments, customer_id, rules),
        *_refunded(known, payments, customer_id, rules),
        *_disputed(known, customer_id, rules),
    ]


def _collected(
    history: Sequence[Event], payments: Sequence[Event], customer_id: str | None, rules: Rules
) -> Iterable[Row]:
    """The payment itself, once, unless an invoice is known to be what it pays."""
    if any(isinstance(e.data, Invoice | InvoicePayment) for e in history):
        return
    succeeded = [
        (e, e.data) for e in payments if isinstance(e.data, Payment) and e.data.status == "succeeded"
    ]
    if not succeeded or any(data.invoice_id or data.for_invoice for _, data in succeeded):
        return
    told_then = [pair for pair in succeeded if pair[1].paid_at is None]
    event, data = min(
        told_then or succeeded, key=lambda pair: (pair[0].trust == "unsigned", pair[0].occurred_at)
    )
    if data.amount:
        moment = data.paid_at or event.occurred_at
        payer = data.customer_id or customer_id
        yield _cash(event, "collected", data.payment_id, data.amount, moment, payer, rules)


def _refunded(
    known: Sequence[Event], payments: Sequence[Event], customer_id: str | None, rules: Rules
) -> Iterable[Row]:
    """Each refund by its id; then what a charge says was refunded beyond those, when it says so."""
    refunds = {e.data.refund_id: (e, e.data) for e in known if isinstance(e.data, Refund)}
    for event, data in refunds.values():
        if data.status == "succeeded" and data.amount:
            yield _cash(event, "refunded", data.refund_id, data.amount, data.created_at, customer_id, rules)
    for part, (event, amount) in enumerate(_unseen(payments, [data for _, data in refunds.values()])):
        source_id = event.data.payment_id  # type: ignore[attr-defined]
        yield _cash(event, "refunded", source_id, amount, event.occurred_at, customer_id, rules, part)


def _unseen(payments: Sequence[Event], refunds: Sequence[Refund]) -> list[tuple[Event, int]]:
    """The rises of `amount_refunded` that no refund of its own explains, as (who told it, how much).

    A refund explains the rise of its amount that was told nearest to it, else the earliest ones.
    """
    rises: list[tuple[Event, int]] = []
    told = 0
    for event in payments:
        refunded = event.data.amount_refunded  # type: ignore[attr-defined]
        if refunded > told:
            rises.append((event, refunded - told))
            told = refunded
    explained = 0
    for refund in sorted(refunds, key=lambda r: (r.created_at, r.refund_id)):
        same = [rise for rise in rises if rise[1] == refund.amount]
        if same:
            created_at = refund.created_at
            rises.remove(min(same, key=lambda rise: abs(rise[0].occurred_at - created_at)))
        else:
            explained += refund.amount
    unseen = []
    for event, amount in rises:
        if amount > explained:
            unseen.append((event, amount - explained))
        explained = max(explained - amount, 0)
    return unseen


def _disputed(known: Sequence[Event], customer_id: str | None, rules: Rules) -> Iterable[Row]:
    """Each dispute that ended lost, on the day on which that was first told."""
    last = {e.data.dispute_id: e.data for e in known if isinstance(e.data, Dispute)}
    lost: dict[str, Event] = {}
    for event in known:
        if isinstance(event.data, Dispute) and event.data.status == "lost":
            lost.setdefault(event.data.dispute_id, event)
    for dispute_id, event in lost.items():
        data = last[dispute_id]
        if data.status == "lost" and data.amount:
            yield _cash(event, "disputed", dispute_id, data.amount, event.occurred_at, customer_id, rules)


def _cash(
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
        Stage(reads="invoice", contribute=invoice_cash, rows=(Cash,)),
        Stage(reads="payment", contribute=payment_cash, rows=(Cash,)),
    ),
    totals=(
        Total(
            table="cash_days",
            of=Cash,
            by=("currency", "account", "date"),
            sums=tuple(f"{kind}_cents" for kind in KINDS),
            measure=lambda row: tuple(row.amount_cents if row.kind == kind else 0 for kind in KINDS),
        ),
    ),
)

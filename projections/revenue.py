"""The revenue book: each customer's purchases, by order, by month and altogether.

An order is a paid invoice, or a payment that belongs to none. A customer's months are made from their orders
and the customer from their months, so that a new order costs one month of a long history, not all of it.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from fractions import Fraction
from math import floor
from typing import Any

from msgspec import Struct, json

from projections.bills import latest_invoice
from projections.book import Book, Row, Rules, Stage, Total, causes
from projections.collections import Cash, payment_cash_rows
from service.core.cadence import purchase_frequency
from service.core.events import Data, Event, Invoice, InvoiceLine, InvoicePayment, Payment, join_key
from service.core.moments import day_of


class Order(Row, frozen=True, kw_only=True):
    """A paid invoice, or a payment without an invoice, on the day it was paid. `source_id` is its id.

    `products` is JSON, [[product id, name, cents], …]: parts that add up to the amount, with null ids where
    the order names no product. `paid_first_try`: no attempt to collect it had failed.
    """

    table = "orders"
    indexes = (("customer_id", "currency", "date"),)

    processor: str
    account: str
    currency: str
    customer_id: str
    date: str
    source_id: str
    amount_cents: int
    products: str
    paid_first_try: bool
    trust: str


class Reversal(Row, frozen=True, kw_only=True):
    """Money that went back to a customer, on its own day: "refunded", or "disputed" and lost."""

    table = "reversals"
    indexes = (("customer_id", "currency", "date"),)

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


class Failure(Row, frozen=True, kw_only=True):
    """An invoice or payment with a failed attempt, on the day of the first. `recovered`: paid since."""

    table = "failures"

    account: str
    currency: str
    customer_id: str
    date: str
    source_id: str
    recovered: bool


class CustomerMonth(Row, frozen=True, kw_only=True):
    """A customer's month in one currency, with the days of its first and last order and last change."""

    table = "customer_months"

    processor: str
    account: str
    currency: str
    customer_id: str
    month: str
    first_date: str | None
    last_date: str | None
    changed_date: str
    orders: int
    revenue_cents: int
    refunded_cents: int
    disputed_cents: int


class CustomerRevenue(Row, frozen=True, kw_only=True):
    """All purchases of a customer in one currency.

    `frequency` is how often they buy, empty for one order. `months` is JSON, [[month, orders, cents], …], of
    the months with orders. `changed_date` is the day of their last order or reversal.
    """

    table = "customer_revenue"
    indexes = (
        ("currency", "revenue_cents", "orders", "last_date"),
        ("currency", "orders", "lifespan_days", "revenue_cents"),
        ("currency", "last_date", "orders", "revenue_cents"),
        ("currency", "first_date"),
        ("currency", "changed_date"),
        ("currency", "net_cents"),
        ("customer_id",),
    )

    processor: str
    account: str
    currency: str
    customer_id: str
    first_date: str | None
    last_date: str | None
    changed_date: str
    lifespan_days: int
    orders: int
    revenue_cents: int
    refunded_cents: int
    disputed_cents: int
    net_cents: int
    frequency: str
    months: str


def invoice_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One invoice's events to its order once it is paid, and its failure if an attempt failed."""
    history = [event for event in history if isinstance(event.data, Invoice)]
    if not history:
        return []
    latest, data = latest_invoice(history)
    invoice_events = [(event, event.data) for event in history if isinstance(event.data, Invoice)]
    failed = [event for event, state in invoice_events if state.payment_failed]
    paid = [event for event, state in invoice_events if state.status == "paid"]
    is_order = data.status == "paid" and data.amount_paid > 0
    rows: list[Row] = []
    if failed:
        rows.append(_failure(failed[0], data.invoice_id, data.customer_id, rules, recovered=is_order))
    if is_order:
        day = day_of(data.paid_at or paid[0].occurred_at, rules.zone).isoformat()
        rows.append(
            Order(
                parent_key=_month_key(latest.processor, latest.account, data.customer_id, data.currency, day),
                causes=causes(latest),
                processor=latest.processor,
                account=latest.account,
                currency=data.currency,
                customer_id=data.customer_id or "",
                date=day,
                source_id=data.invoice_id,
                amount_cents=data.amount_paid,
                products=json.encode(_split_by_product(data.lines, data.amount_paid)).decode(),
                paid_first_try=not failed,
                trust=latest.trust,
            )
        )
    return rows


def payment_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One payment's events to its order, if it belongs to no invoice, and to its reversals and failure."""
    cash = [row for row in payment_cash_rows(history, rules) if isinstance(row, Cash)]
    collected = [row for row in cash if row.kind == "collected"]
    failed = [event for event in history if _is_failed_payment(event.data)]
    rows: list[Row] = [_payment_order(row, paid_first_try=not failed) for row in collected]
    rows += [_reversal(row) for row in cash if row.kind != "collected"]
    if failed and not any(_names_invoice(event.data) for event in history):
        data = failed[0].data
        assert isinstance(data, Payment)  # noqa: S101 - `failed` holds payments only
        rows.append(_failure(failed[0], data.payment_id, data.customer_id, rules, recovered=bool(collected)))
    return rows


def _is_failed_payment(data: Data) -> bool:
    """Whether an event's data report a failed payment attempt that needs no further confirmation."""
    return isinstance(data, Payment) and data.status == "failed" and not data.awaits_confirmation


def _names_invoice(data: Data) -> bool:
    """Whether an event's data, in a payment's history, say that the payment belongs to an invoice."""
    if isinstance(data, Payment):
        return bool(data.invoice_id or data.for_invoice)
    return isinstance(data, Invoice | InvoicePayment)


def _payment_order(row: Cash, *, paid_first_try: bool) -> Order:
    products = json.encode(_split_by_product((), row.amount_cents)).decode()
    return Order(products=products, paid_first_try=paid_first_try, **_cash_columns(row))


def _reversal(row: Cash) -> Reversal:
    return Reversal(kind=row.kind, part=row.part, **_cash_columns(row))


def _cash_columns(row: Cash) -> dict[str, Any]:
    """The columns that an order or a reversal takes from a cash row; their parent is the customer's month."""
    names = "causes processor account currency customer_id date source_id amount_cents trust".split()
    parent_key = _month_key(row.processor, row.account, row.customer_id, row.currency, row.date)
    return {"parent_key": parent_key, **{name: getattr(row, name) for name in names}}


def _failure(
    event: Event, source_id: str, customer_id: str | None, rules: Rules, *, recovered: bool
) -> Failure:
    return Failure(
        causes=causes(event),
        account=event.account,
        currency=event.data.currency,  # type: ignore[attr-defined]
        customer_id=customer_id or "",
        date=day_of(event.occurred_at, rules.zone).isoformat(),
        source_id=source_id,
        recovered=recovered,
    )


def _month_key(processor: str, account: str, customer_id: str | None, currency: str, day: str) -> str:
    """The key of the customer's month; empty without a customer."""
    return join_key(processor, account, customer_id, currency, day[:7]) if customer_id else ""


def _split_by_product(
    lines: Sequence[InvoiceLine], amount_cents: int
) -> list[tuple[str | None, str | None, int]]:
    """An order's amount by product, as (id, name, cents), in proportion to the order's lines.

    Cents left over by rounding go to the largest remainders. A product whose lines add up to less than
    nothing was taken back: nothing was paid for it, and it gets no part.
    """
    billed: dict[str | None, int] = {}
    names: dict[str | None, str | None] = {}
    for line in lines:
        product = line.product_id or line.price_id
        billed[product] = billed.get(product, 0) + line.amount
        names[product] = line.product_name or names.get(product)
    weights = {product: weight for product, weight in billed.items() if weight > 0}
    if not weights:
        return [(None, None, amount_cents)]
    total = sum(weights.values())
    exact = {product: Fraction(amount_cents * weight, total) for product, weight in weights.items()}
    cents = {product: floor(value) for product, value in exact.items()}
    by_remainder = sorted(exact, key=lambda product: (cents[product] - exact[product], product or ""))
    for product in by_remainder[: amount_cents - sum(cents.values())]:
        cents[product] += 1
    return [(product, names[product], cents[product]) for product in sorted(cents, key=lambda p: p or "")]


def customer_month_rows(rows: Sequence[Order | Reversal], _rules: Rules) -> list[Row]:
    """One customer's orders and reversals of one month, in one currency, to the month's row."""
    if not rows:  # all its orders and reversals have moved to other months
        return []
    first = rows[0]
    orders = [row for row in rows if isinstance(row, Order)]
    reversals = [row for row in rows if isinstance(row, Reversal)]
    dates = [row.date for row in orders]
    return [
        CustomerMonth(
            parent_key=join_key(first.processor, first.account, first.customer_id, first.currency),
            processor=first.processor,
            account=first.account,
            currency=first.currency,
            customer_id=first.customer_id,
            month=first.date[:7],
            first_date=min(dates, default=None),
            last_date=max(dates, default=None),
            changed_date=max(row.date for row in rows),
            orders=len(orders),
            revenue_cents=sum(row.amount_cents for row in orders),
            refunded_cents=sum(row.amount_cents for row in reversals if row.kind == "refunded"),
            disputed_cents=sum(row.amount_cents for row in reversals if row.kind == "disputed"),
        )
    ]


def customer_rows(rows: Sequence[CustomerMonth], _rules: Rules) -> list[Row]:
    """One customer's months to the customer's row."""
    if not rows:
        return []
    months = sorted(rows, key=lambda row: row.month)
    firsts = [row.first_date for row in months if row.first_date]
    lasts = [row.last_date for row in months if row.last_date]
    first, last = min(firsts, default=None), max(lasts, default=None)
    first_month = months[0]
    lifespan = _days_between(first, last) if first and last else 0
    orders = sum(row.orders for row in months)
    revenue = sum(row.revenue_cents for row in months)
    refunded, disputed = (sum(getattr(r, f"{k}_cents") for r in months) for k in ("refunded", "disputed"))
    return [
        CustomerRevenue(
            processor=first_month.processor,
            account=first_month.account,
            currency=first_month.currency,
            customer_id=first_month.customer_id,
            first_date=first,
            last_date=last,
            changed_date=months[-1].changed_date,
            lifespan_days=lifespan,
            orders=orders,
            revenue_cents=revenue,
            refunded_cents=refunded,
            disputed_cents=disputed,
            net_cents=revenue - refunded - disputed,
            frequency=purchase_frequency(orders, lifespan) or "",
            months=json.encode([(r.month, r.orders, r.revenue_cents) for r in months if r.orders]).decode(),
        )
    ]


def _days_between(first: str, last: str) -> int:
    return (date.fromisoformat(last) - date.fromisoformat(first)).days


class CohortMonth(Struct, frozen=True):
    """A month in which a customer bought; `cohort` is the month of their first order."""

    currency: str
    account: str
    cohort: str
    month: str
    orders: int
    revenue_cents: int


def _cohort_months(row: CustomerRevenue) -> Iterator[CohortMonth]:
    months = json.decode(row.months)
    for month, orders, revenue_cents in months:
        yield CohortMonth(row.currency, row.account, months[0][0], month, orders, revenue_cents)


REVENUE = Book(
    name="revenue",
    version=1,
    stages=(
        Stage(reads="invoice", contribute=invoice_rows, rows=(Order, Failure)),
        Stage(reads="payment", contribute=payment_rows, rows=(Order, Reversal, Failure)),
        Stage(reads=(Order, Reversal), contribute=customer_month_rows, rows=(CustomerMonth,)),
        Stage(reads=(CustomerMonth,), contribute=customer_rows, rows=(CustomerRevenue,)),
    ),
    totals=(
        Total(
            table="order_days",
            row_type=Order,
            group_by=("currency", "account", "date"),
            sums=("orders", "revenue_cents", "first_try_orders"),
            measure=lambda row: (1, row.amount_cents, int(row.paid_first_try)),
        ),
        Total(
            table="failure_days",
            row_type=Failure,
            group_by=("currency", "account", "date"),
            sums=("failures", "recovered"),
            measure=lambda row: (1, int(row.recovered)),
        ),
        Total(
            table="customer_frequencies",
            row_type=CustomerRevenue,
            group_by=("currency", "account", "frequency"),
            sums=("customers", "revenue_cents"),
            measure=lambda row: (1, row.revenue_cents),
            split=lambda row: [row] if row.orders else [],
        ),
        Total(
            table="cohort_months",
            row_type=CustomerRevenue,
            group_by=("currency", "account", "cohort", "month"),
            sums=("customers", "orders", "revenue_cents"),
            measure=lambda part: (1, part.orders, part.revenue_cents),
            split=_cohort_months,
        ),
    ),
)

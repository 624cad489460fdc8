"""The revenue book: each customer's purchases, by order, by month and altogether.

An order is an invoice with collected money, or a payment that belongs to none. A customer's months are made
from their orders and the customer from their months, so that a new order costs one month of a long history,
not all of it.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from fractions import Fraction
from math import floor

from msgspec import Struct, json

from projections.book import Book, Row, Rules, Stage, Total, merge_causes
from projections.collections import (
    Cash,
    Return,
    ReturnStatement,
    agreed_rows,
    return_statements,
    returned_rows,
)
from projections.receipts import Claim, Receipt, claim_rows, receipt_rows
from projections.settlement import Day, Settlement, days, settle
from service.core.cadence import purchase_frequency
from service.core.events import Event, join_key
from service.core.moments import day_of

_NEVER = datetime.min.replace(tzinfo=UTC)


class Order(Row, frozen=True, kw_only=True):
    """An invoice with collected money, or a payment without an invoice, on the day of its first collection.

    `source_id` is its id, and `link` how an invoice and its payments were joined: "stated", "inferred" or "".

    `products` is JSON, [[product id, name, cents], …]: parts that add up to the amount, with null ids where
    the order names no product. `paid_first_try`: no attempt to collect it had failed.
    """

    table = "orders"
    indexes = (("customer_id", "currency", "date"), ("currency", "date"))

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
    link: str = ""


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
    """An invoice or payment with a failed attempt, on the day of the first. `recovered`: paid since.

    Attempts at one invoice are one failure, whichever object reports them.
    """

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
    """One invoice's events to its claim; or to its order and failure where no payment can belong to it."""
    return _with_orders(claim_rows(history), rules)


def payment_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One payment's events to its order and failure, or to receipts for an invoice; and what went back."""
    return [*_with_orders(receipt_rows(history), rules), *return_statements(history, rules)]


def agreed_reversal_rows(statements: Sequence[ReturnStatement], rules: Rules) -> list[Row]:
    """All that is stated of one refund or dispute to its reversal, or to what waits for an invoice."""
    return [_reversal(row) if isinstance(row, Cash) else row for row in agreed_rows(statements, rules)]


def settled_rows(rows: Sequence[Claim | Receipt | Return], rules: Rules) -> list[Row]:
    """Claims and receipts that may belong together to orders and failures, and what went back of them."""
    settlements = settle(rows)
    orders = (order for settlement in settlements for order in _orders(settlement, rules))
    reversals = (_reversal(row) for row in returned_rows(rows))
    return [*orders, *_failures(settlements, rules), *reversals]


def _with_orders(rows: Sequence[Claim | Receipt], rules: Rules) -> list[Row]:
    """The rows that wait for others, and the orders and failures of those that stand alone."""
    waiting = [row for row in rows if row.parent_key]
    alone = [row for row in rows if not row.parent_key]
    return [*waiting, *(made for row in alone for made in settled_rows([row], rules))]


def _orders(settlement: Settlement, rules: Rules) -> Iterator[Order]:
    """The order of a settlement with money, on the day since which there always was some."""
    cents = settlement.collected_cents
    collected = _since_nothing(days(settlement, rules.zone))
    if cents > 0:
        first = collected[0]
        yield Order(
            parent_key=_month_key(settlement, first.date),
            causes=merge_causes([day.causes for day in collected]),
            processor=settlement.processor,
            account=settlement.account,
            currency=settlement.currency,
            customer_id=settlement.customer_id,
            date=first.date,
            source_id=settlement.source_id,
            amount_cents=cents,
            products=json.encode(_split_by_product(settlement.lines, cents)).decode(),
            paid_first_try=not settlement.tries,
            trust=first.trust,
            link=settlement.link,
        )


def _since_nothing(changes: Sequence[Day]) -> Sequence[Day]:
    """The changes after the last day at whose end nothing was left."""
    level, start = 0, 0
    for number, day in enumerate(changes, start=1):
        level += day.cents
        start = start if level else number
    return changes[start:]


def _reversal(row: Cash) -> Reversal:
    names = "causes processor account currency customer_id date kind source_id part amount_cents trust"
    columns = {name: getattr(row, name) for name in names.split()}
    return Reversal(parent_key=_month_key(row, row.date), **columns)


def _failures(settlements: Sequence[Settlement], rules: Rules) -> Iterator[Failure]:
    """One failure for each invoice or payment with a failed try, on the day of the first one.

    It has recovered if money came in since, and is still there.
    """
    paid_at: dict[str, datetime] = {}
    for settlement in settlements:
        rises = [change.at for change in settlement.changes if change.cents > 0]
        if settlement.collected_cents > 0:
            paid_at[settlement.unit_id] = max([*rises, paid_at.get(settlement.unit_id, rises[0])])
    for settlement in settlements:
        if settlement.tries:
            first = settlement.tries[0]
            yield Failure(
                causes=json.encode([first.cause]).decode(),
                account=settlement.account,
                currency=settlement.currency,
                customer_id=settlement.customer_id,
                date=day_of(first.at, rules.zone).isoformat(),
                source_id=settlement.unit_id,
                recovered=first.at <= paid_at.get(settlement.unit_id, _NEVER),
            )


def _month_key(of: Settlement | Cash, day: str) -> str:
    """The key of the customer's month; empty without a customer."""
    return join_key(of.processor, of.account, of.customer_id, of.currency, day[:7]) if of.customer_id else ""


def _split_by_product(
    lines: Sequence[tuple[str | None, str | None, int]], amount_cents: int
) -> list[tuple[str | None, str | None, int]]:
    """An order's amount by product, as (id, name, cents), in proportion to the amounts of the order's lines.

    Cents left over by rounding go to the largest remainders. A product whose lines add up to less than
    nothing was taken back: nothing was paid for it, and it gets no part.
    """
    names = {product: name for product, name, _ in lines}
    weights = {product: cents for product, _, cents in lines if cents > 0}
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
    version=7,
    stages=(
        Stage(reads="invoice", contribute=invoice_rows, rows=(Claim, Order, Failure)),
        Stage(reads="payment", contribute=payment_rows, rows=(Receipt, ReturnStatement, Order, Failure)),
        Stage(reads=(ReturnStatement,), contribute=agreed_reversal_rows, rows=(Return, Reversal)),
        Stage(reads=(Claim, Receipt, Return), contribute=settled_rows, rows=(Order, Reversal, Failure)),
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

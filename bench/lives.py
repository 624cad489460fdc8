"""The lives of a population as a processor's events: about twenty events a customer, in the order of time.

A subscriber's contract has events when it begins, at each renewal and at its end; a bill when it is
finalized, when an attempt to collect it fails, and when it is paid. A purchase is a payment, sometimes with
a failed attempt before it, or a refund after it.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import numpy as np
from msgspec import Struct

from bench.population import MONTH_DAYS, SUBSCRIBERS, Ints, Population, population
from service.core.events import (
    CREATED,
    DELETED,
    UPDATED,
    Customer,
    Data,
    Discount,
    Event,
    Invoice,
    InvoiceLine,
    Item,
    Payment,
    Refund,
    Subscription,
)

SEED = 1
TODAY = date(2026, 1, 1)
WHALE, WHALE_CURRENCY, WHALE_ORDERS = "cus_whale", "eur", 2_000  # apart from the population's figures
FAILED, REFUNDED, DISCOUNTED = 33, 40, 20  # one in so many bills and payments; payments; contracts
PRODUCTS = 12
_DAY = 86_400
_KEY_RANGE = 10**7  # more than any day
_BEGINNING = date(2018, 1, 1).toordinal()
_INTERVALS = {1: ("month", 1), 3: ("month", 3), 12: ("year", 1)}


class EventSource(Struct, frozen=True, kw_only=True):
    """The events of one kind: the time of each, its row in the kind's table, and how to make it."""

    seconds: Ints  # since the beginning
    row: Ints
    make: Callable[[int, datetime], Event]


class Lives(Struct, frozen=True, kw_only=True):
    """A population, with its orders divided into bills and payments, and the day when each customer left."""

    population: Population
    left_days: Ints
    contract: Ints  # of each order: its row in `population.contracts`, -1 where it is a payment
    number: Ints  # of each bill in its contract
    spread: Ints  # the second of the day at which things of an order happen


def lives(customers: int, seed: int = SEED, today: date = TODAY) -> Lives:
    """The population of this seed, up to the close of `today`."""
    population_, left_days = population(customers, seed, today.toordinal())
    customer, day, _ = population_.orders
    subscribers = round(customers * SUBSCRIBERS)
    bills = int(np.searchsorted(customer, subscribers))  # those come first, by contract and day
    contract_keys = population_.contracts[0] * _KEY_RANGE + population_.contracts[1]
    contract = np.full(len(customer), -1)
    contract[:bills] = np.searchsorted(contract_keys, (customer * _KEY_RANGE + day)[:bills], side="right") - 1
    number = np.arange(len(customer)) - np.searchsorted(contract[:bills], contract)
    spread = np.random.default_rng(seed).integers(0, _DAY // 3, len(customer))
    return Lives(population=population_, left_days=left_days, contract=contract, number=number, spread=spread)


def events(lives_: Lives) -> Iterator[Event]:
    """All events of these lives, in the order of time."""
    sources = _event_sources(lives_)
    seconds = np.concatenate([source.seconds for source in sources])
    row = np.concatenate([source.row for source in sources])
    kind = np.repeat(np.arange(len(sources)), [len(source.row) for source in sources])
    order = np.argsort(seconds, kind="stable")
    makers = [source.make for source in sources]
    start = datetime.combine(date.fromordinal(_BEGINNING), datetime.min.time(), UTC)
    for second, source_row, number in zip(
        seconds[order].tolist(), row[order].tolist(), kind[order].tolist(), strict=True
    ):
        yield makers[number](source_row, start + timedelta(seconds=second))


def _event_sources(lives_: Lives) -> list[EventSource]:
    """One source for each kind of event."""
    (buyer, bought, _), (signer, begun, ended, _, _) = lives_.population.orders, lives_.population.contracts
    bills, payments = np.flatnonzero(lives_.contract >= 0), np.flatnonzero(lives_.contract < 0)
    renewals, over = bills[lives_.number[bills] > 0], np.flatnonzero(ended >= 0)
    contracts, customers = np.arange(len(signer)), np.unique(np.concatenate([buyer, signer]))
    arrived = np.full(lives_.population.n, TODAY.toordinal())
    np.minimum.at(arrived, buyer, bought)
    np.minimum.at(arrived, signer, begun)
    maker = _EventMaker(lives_)

    def source(row: Ints, day: Ints, hours: float, make: Callable[[int, datetime], Event]) -> EventSource:
        second_of_day = lives_.spread[row % len(lives_.spread)] + int(hours * 3_600)
        return EventSource(seconds=(day - _BEGINNING) * _DAY + second_of_day, row=row, make=make)

    def every(rows: Ints, one_in: int) -> Ints:
        return rows[rows % one_in == 0]

    failed, refunded = every(payments, FAILED), every(payments, REFUNDED)
    refunded = refunded[bought[refunded] + 5 <= TODAY.toordinal()]
    declined, whale = every(bills, FAILED), np.arange(WHALE_ORDERS)
    return [
        source(customers, arrived[customers], 0, maker.customer),
        source(contracts, begun, 1, maker.contract),
        source(bills, bought[bills], 10, maker.finalized),
        source(declined, bought[declined], 11, maker.declined),
        source(bills, bought[bills], 12, maker.paid),
        source(renewals, bought[renewals], 13, maker.renewed),
        source(over, ended[over], 15, maker.ended),
        source(failed, bought[failed], 10, maker.failed),
        source(payments, bought[payments], 11, maker.bought),
        source(refunded, bought[refunded] + 5, 12, maker.refunded),
        source(whale, TODAY.toordinal() - whale % 1_400, 10, maker.whale),
    ]


class _EventMaker:
    """Makes each event from its row."""

    def __init__(self, lives_: Lives) -> None:
        self._contract, self._number = lives_.contract.tolist(), lives_.number.tolist()
        self._buyer, _, self._amount = (column.tolist() for column in lives_.population.orders)
        self._signer, self._begun, _, self._months, self._price = (
            c.tolist() for c in lives_.population.contracts
        )

    def customer(self, row: int, at: datetime) -> Event:
        return _event("cus", row, at, Customer(customer_id=f"cus_{row}", name=f"Customer {row}"), CREATED)

    def contract(self, row: int, at: datetime) -> Event:
        return _event("sub", row, at, self._subscription(row, 1, at), CREATED)

    def renewed(self, row: int, at: datetime) -> Event:
        data = self._subscription(self._contract[row], self._number[row] + 1, at)
        return _event("renew", row, at, data)

    def ended(self, row: int, at: datetime) -> Event:
        data = self._subscription(row, 0, at, ended_at=at)
        return _event("end", row, at, data, DELETED)

    def finalized(self, row: int, at: datetime) -> Event:
        return _event("final", row, at, self._invoice(row, "open", at))

    def declined(self, row: int, at: datetime) -> Event:
        return _event("declined", row, at, self._invoice(row, "open", at, payment_failed=True))

    def paid(self, row: int, at: datetime) -> Event:
        return _event("paid", row, at, self._invoice(row, "paid", at, paid_at=at))

    def failed(self, row: int, at: datetime) -> Event:
        return _event("failed", row, at, self._payment(row, "failed"))

    def bought(self, row: int, at: datetime) -> Event:
        return _event("bought", row, at, self._payment(row, "succeeded"))

    def refunded(self, row: int, at: datetime) -> Event:
        data = Refund(
            refund_id=f"re_{row}",
            status="succeeded",
            currency="usd",
            amount=max(1, self._amount[row] // 2),
            created_at=at,
            payment_id=f"pi_{row}",
            customer_id=f"cus_{self._buyer[row]}",
        )
        return _event("refund", row, at, data, CREATED)

    def whale(self, row: int, at: datetime) -> Event:
        data = Payment(
            payment_id=f"pi_whale_{row}",
            status="succeeded",
            currency=WHALE_CURRENCY,
            amount=900_00 + row,
            customer_id=WHALE,
        )
        return _event("whale", row, at, data)

    def _subscription(self, row: int, number: int, at: datetime, ended_at: datetime | None = None) -> Data:
        months, price = self._months[row], self._price[row]
        next_day = self._begun[row] + round(number * months * MONTH_DAYS)
        interval, every = _INTERVALS[months]
        product = row % PRODUCTS
        return Subscription(
            subscription_id=f"sub_{row}",
            customer_id=f"cus_{self._signer[row]}",
            status="canceled" if ended_at else "active",
            currency="usd",
            items=(
                Item(
                    interval=interval,
                    every=every,
                    unit_amount=price,
                    price_id=f"price_{product}_{price}",
                    product_id=f"prod_{product}",
                ),
            ),
            discounts=() if row % DISCOUNTED else (Discount(percent_off=10, duration="repeating"),),
            next_bill_at=None if ended_at else at + timedelta(days=next_day - at.toordinal()),
            ended_at=ended_at,
        )

    def _invoice(
        self,
        row: int,
        status: str,
        at: datetime,
        *,
        paid_at: datetime | None = None,
        payment_failed: bool = False,
    ) -> Data:
        product, amount = self._contract[row] % PRODUCTS, self._amount[row]
        issued = at.replace(hour=8, minute=0, second=0)
        return Invoice(
            invoice_id=f"in_{row}",
            status=status,
            currency="usd",
            amount_due=amount,
            amount_paid=amount if paid_at else 0,
            amount_remaining=0 if paid_at else amount,
            customer_id=f"cus_{self._buyer[row]}",
            subscription_id=f"sub_{self._contract[row]}",
            created_at=issued,
            finalized_at=issued,
            paid_at=paid_at,
            payment_failed=payment_failed,
            lines=(InvoiceLine(amount=amount, product_id=f"prod_{product}", product_name=f"Plan {product}"),),
        )

    def _payment(self, row: int, status: str) -> Data:
        return Payment(
            payment_id=f"pi_{row}",
            status=status,
            currency="usd",
            amount=self._amount[row],
            customer_id=f"cus_{self._buyer[row]}",
        )


def _event(name: str, row: int, at: datetime, data: Data, rank: int = UPDATED) -> Event:
    return Event(
        processor="stripe",
        account="acct_bench",
        event_id=f"evt_{name}_{row}",
        occurred_at=at,
        rank=rank,
        data=data,
    )

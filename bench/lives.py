"""The lives of a population as a processor tells them: about twenty events a customer, as time goes by.

A subscriber's contract is told when it begins, at each renewal and at its end; a bill when it is finalized,
when an attempt to collect it fails, and when it is paid. A purchase is a payment, with now and then an
attempt before it that fails, or a refund after it.
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
_BIG = 10**7  # more than any day
_BEGINNING = date(2018, 1, 1).toordinal()
_INTERVALS = {1: ("month", 1), 3: ("month", 3), 12: ("year", 1)}


class Told(Struct, frozen=True, kw_only=True):
    """What one kind of telling needs: when each is told, and of which row of its table."""

    seconds: Ints  # since the beginning
    row: Ints
    make: Callable[[int, datetime], Event]


class Lives(Struct, frozen=True, kw_only=True):
    """A population, its bills and payments apart, and when each customer truly left."""

    seen: Population
    left: Ints
    contract: Ints  # of each order: its row in `seen.contracts`, -1 where it is a payment
    number: Ints  # of each bill in its contract
    spread: Ints  # the second of the day at which things of an order happen


def lives(customers: int, seed: int = SEED, today: date = TODAY) -> Lives:
    """The population of this seed, up to the close of `today`."""
    seen, left = population(customers, seed, today.toordinal())
    who, day, _ = seen.orders
    subscribers = round(customers * SUBSCRIBERS)
    bills = int(np.searchsorted(who, subscribers))  # those come first, by contract and day
    began = seen.contracts[0] * _BIG + seen.contracts[1]
    contract = np.full(len(who), -1)
    contract[:bills] = np.searchsorted(began, (who * _BIG + day)[:bills], side="right") - 1
    number = np.arange(len(who)) - np.searchsorted(contract[:bills], contract)
    spread = np.random.default_rng(seed).integers(0, _DAY // 3, len(who))
    return Lives(seen=seen, left=left, contract=contract, number=number, spread=spread)


def events(of: Lives) -> Iterator[Event]:
    """Everything that is told of these lives, in the order of time."""
    told = _tellings(of)
    seconds = np.concatenate([one.seconds for one in told])
    row = np.concatenate([one.row for one in told])
    kind = np.repeat(np.arange(len(told)), [len(one.row) for one in told])
    order = np.argsort(seconds, kind="stable")
    make = [one.make for one in told]
    start = datetime.combine(date.fromordinal(_BEGINNING), datetime.min.time(), UTC)
    for second, of_row, number in zip(
        seconds[order].tolist(), row[order].tolist(), kind[order].tolist(), strict=True
    ):
        yield make[number](of_row, start + timedelta(seconds=second))


def _tellings(of: Lives) -> list[Told]:
    """One line for each kind of telling."""
    (buyer, bought, _), (signer, begun, ended, _, _) = of.seen.orders, of.seen.contracts
    bills, payments = np.flatnonzero(of.contract >= 0), np.flatnonzero(of.contract < 0)
    renewals, over = bills[of.number[bills] > 0], np.flatnonzero(ended >= 0)
    contracts, customers = np.arange(len(signer)), np.unique(np.concatenate([buyer, signer]))
    arrived = np.full(of.seen.n, TODAY.toordinal())
    np.minimum.at(arrived, buyer, bought)
    np.minimum.at(arrived, signer, begun)
    tell = _Teller(of)

    def told(row: Ints, day: Ints, hours: float, make: Callable[[int, datetime], Event]) -> Told:
        later = of.spread[row % len(of.spread)] + int(hours * 3_600)
        return Told(seconds=(day - _BEGINNING) * _DAY + later, row=row, make=make)

    def some(rows: Ints, one_in: int) -> Ints:
        return rows[rows % one_in == 0]

    failed, refunded = some(payments, FAILED), some(payments, REFUNDED)
    refunded = refunded[bought[refunded] + 5 <= TODAY.toordinal()]
    declined, whale = some(bills, FAILED), np.arange(WHALE_ORDERS)
    return [
        told(customers, arrived[customers], 0, tell.customer),
        told(contracts, begun, 1, tell.contract),
        told(bills, bought[bills], 10, tell.finalized),
        told(declined, bought[declined], 11, tell.declined),
        told(bills, bought[bills], 12, tell.paid),
        told(renewals, bought[renewals], 13, tell.renewed),
        told(over, ended[over], 15, tell.ended),
        told(failed, bought[failed], 10, tell.failed),
        told(payments, bought[payments], 11, tell.bought),
        told(refunded, bought[refunded] + 5, 12, tell.refunded),
        told(whale, TODAY.toordinal() - whale % 1_400, 10, tell.whale),
    ]


class _Teller:
    """Makes each event from its row."""

    def __init__(self, of: Lives) -> None:
        self._contract, self._number = of.contract.tolist(), of.number.tolist()
        self._buyer, _, self._amount = (column.tolist() for column in of.seen.orders)
        self._signer, self._begun, _, self._months, self._price = (c.tolist() for c in of.seen.contracts)

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

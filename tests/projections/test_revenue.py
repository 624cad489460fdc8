"""The revenue book: its rows against a recount, whatever was delivered when; and its lists on any day."""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.receipts import by_product
from projections.revenue import (
    REVENUE,
    Failure,
    Order,
    _split_by_product,
)
from service.core.events import Event, InvoiceLine
from tests.support.events import but, dispute, event, invoice, payment, refund
from tests.support.folded_books import rows_of
from tests.support.temporary_books import document, new_books


def order_rows(*events: Event) -> list[Order]:
    """Every order."""
    return [row for row in rows_of(REVENUE, events) if isinstance(row, Order)]


def orders(*events: Event) -> list[tuple[str, str, int]]:
    """(day, customer, cents) of every order."""
    return sorted((row.date, row.customer_id, row.amount_cents) for row in order_rows(*events))


def failures(*events: Event) -> list[tuple[str, bool]]:
    """(day, recovered) of every failure."""
    found = [row for row in rows_of(REVENUE, events) if isinstance(row, Failure)]
    return sorted((row.date, row.recovered) for row in found)


# Products


LINES = st.lists(
    st.builds(
        InvoiceLine,
        amount=st.integers(-(10**7), 10**7) | st.sampled_from((0, 1, -1)),
        product_id=st.sampled_from((None, "a", "b", "c")),
        price_id=st.sampled_from((None, "p1", "p2")),
        product_name=st.sampled_from((None, "A", "B")),
    ),
    max_size=6,
)


@given(LINES, st.integers(1, 10**9))
def test_parts_of_an_order_add_up_to_it(lines, amount):
    parts = _split_by_product(by_product(lines), amount)

    assert sum(cents for _, _, cents in parts) == amount
    assert len({product for product, _, _ in parts}) == len(parts)


@given(LINES, st.integers(1, 10**9))
def test_each_part_is_in_proportion_to_its_lines_to_the_cent(lines, amount):
    of: Counter[str | None] = Counter()
    for line in lines:
        of[line.product_id or line.price_id] += line.amount
    billed = {product: cents for product, cents in of.items() if cents > 0}
    whole = sum(billed.values())

    parts = {product: cents for product, _, cents in _split_by_product(by_product(lines), amount)}

    if billed:
        assert parts.keys() == billed.keys()
        for product, cents in parts.items():
            assert abs(cents - Fraction(amount * billed[product], whole)) < 1
            assert cents >= 0
    else:
        assert parts == {None: amount}


@given(LINES, st.integers(1, 10**9), st.randoms())
def test_the_order_of_lines_changes_no_amount(lines, amount, rng):
    def amounts(of):
        return [(product, cents) for product, _, cents in _split_by_product(by_product(of), amount)]

    other = list(lines)
    rng.shuffle(other)

    assert amounts(other) == amounts(lines)


@pytest.mark.parametrize(
    ("weights", "amount", "parts"),
    [
        ((1, 1, 1), 100, (34, 33, 33)),
        ((1, 1, 1), 101, (34, 34, 33)),
        ((2, 1, 0), 10, (7, 3)),  # 6⅔ and 3⅓
        ((1, 2, 3), 1, (0, 0, 1)),
        # what was taken back has no part
        ((3, -1, 1), 1000, (750, 250)),
        ((5, -5, 0), 70, (70,)),
        ((-1, -1, -2), 400, (400,)),
    ],
)
def test_the_largest_remainders_get_the_cents_that_are_left(weights, amount, parts):
    lines = [InvoiceLine(amount=weight, product_id=id_) for weight, id_ in zip(weights, "abc", strict=True)]

    assert tuple(cents for _, _, cents in _split_by_product(by_product(lines), amount)) == parts


# Failures


def test_a_failed_invoice_is_a_failure_of_its_first_attempt():
    first = event(invoice("open", payment_failed=True), "2025-11-14")
    second = event(invoice("open", payment_failed=True), "2025-11-16")
    paid = event(invoice("paid", when="2025-11-20"), "2025-11-20")

    assert failures(first, second) == [("2025-11-14", False)]
    assert failures(paid, second, first) == [("2025-11-14", True)]
    assert orders(first, second, paid) == [("2025-11-20", "cus_1", 10_000)]


def test_a_failed_payment_is_a_failure_unless_it_is_an_invoices():
    failed = event(payment(status="failed"), "2025-11-14", rank=0)

    assert failures(failed) == [("2025-11-14", False)]
    assert failures(failed, event(payment(), "2025-11-15")) == [("2025-11-14", True)]
    assert failures(event(payment(status="failed", for_invoice=True), "2025-11-14")) == []


def test_what_goes_back_of_a_payment_takes_its_failure_from_nowhere():
    failed = event(payment(status="failed"), "2025-11-14", rank=0)
    events = (failed, event(payment(), "2025-11-15"))

    assert failures(*events, event(refund(), "2025-11-20")) == [("2025-11-14", True)]
    assert failures(*events, event(dispute("lost"), "2025-11-20")) == [("2025-11-14", True)]


def test_a_failure_counts_once_it_is_confirmed():
    unconfirmed = payment(status="failed", awaits_confirmation=True)
    paid = event(payment(), "2025-11-15")

    assert failures(event(unconfirmed, "2025-11-14", rank=0), paid) == []
    (order,) = order_rows(event(unconfirmed, "2025-11-14", rank=0), paid)
    assert order.paid_first_try
    assert failures(event(but(unconfirmed, awaits_confirmation=False), "2025-11-14", rank=0), paid) == [
        ("2025-11-14", True)
    ]


def test_an_order_is_whosever_any_telling_of_its_payment_says():
    nobody = event(payment(customer_id=None), "2025-11-15")
    known = event(payment(), datetime(2025, 11, 15, 12, 0, 5, tzinfo=UTC))

    assert {who for _, who, _ in orders(nobody, known)} == {"cus_1"}


def test_an_order_is_paid_at_first_try_where_no_attempt_had_failed():
    def paid_first_try(*events):
        return [row.paid_first_try for row in order_rows(*events)]

    failed = event(payment(status="failed"), "2025-11-14", rank=0)
    unpaid = event(invoice("open", payment_failed=True), "2025-11-14")
    bill = event(invoice("paid"), "2025-11-20")
    assert paid_first_try(event(payment(), "2025-11-15")) == paid_first_try(bill) == [True]
    assert paid_first_try(failed, event(payment(), "2025-11-15")) == paid_first_try(unpaid, bill) == [False]


# Lists of a day in the past


LISTS: tuple[tuple[str, dict[str, str]], ...] = (
    *(("customers-top", {"sort": sort, "limit": "1000"}) for sort in ("revenue", "orders", "last_purchase")),
    ("customers-top", {"sort": "first_purchase", "order": "asc", "limit": "3"}),
    ("customers-at-risk", {}),
    ("customers-at-risk", {"stage": "churned", "segments": "low_value,medium_value"}),
    ("cohorts", {"from_": "2024-01", "to": "2025-12"}),
    ("distribution", {}),
    ("purchase-frequency", {}),
    ("dashboard", {}),
)
STARTS_ON = date(2024, 1, 1)


def _history(rng: random.Random) -> list[Event]:
    """Some customers' orders and what went back of them, each told on its day."""
    events = []
    for number in range(rng.randint(3, 8)):
        who = {"customer_id": f"cus_{number % 3}", "currency": rng.choice(("usd", "usd", "eur"))}
        where = {"processor": rng.choice(("stripe", "acme")), "account": rng.choice(("", "", "acct_b"))}
        day = STARTS_ON + timedelta(days=rng.randrange(300))
        for n in range(rng.randint(1, 6)):
            when, pays = day.isoformat(), f"pi_{number}_{n}"
            cents = rng.choice((100, 9_999, 10_000, 50_000, 100_000, 1_000_000))
            if rng.random() < 0.5:
                bill = invoice("paid", cents, when, invoice_id=f"in_{number}_{n}", payment_ids=(pays,), **who)
                events.append(event(bill, when, **where))
            else:
                events.append(event(payment(cents, payment_id=pays, **who), when, **where))
            back = (day + timedelta(days=rng.choice((0, 3, 40)))).isoformat()
            of = {"payment_id": pays, **who}
            if rng.random() < 0.2:
                events.append(event(refund(cents // 2, back, refund_id=f"re_{pays}", **of), back, **where))
            elif rng.random() < 0.1:
                events.append(event(dispute("lost", cents, dispute_id=f"dp_{pays}", **of), back, **where))
            day += timedelta(days=rng.choice((0, 1, 30, 31, 90, 91, 180, 181)))
    return events


@pytest.mark.usefixtures("each_store")
@pytest.mark.parametrize("seed", range(3))
async def test_a_list_of_a_day_is_what_it_was_for_who_knew_only_what_came_until_then(seed):
    rng = random.Random(seed)
    events = sorted(_history(rng), key=_day)
    happens = sorted(set(map(_day, events)))
    days = sorted({*rng.sample(happens, min(2, len(happens))), happens[-1], date(2025, 12, 31)})
    async with new_books() as whole, new_books() as growing:
        await whole.record(*events)
        async with whole.store() as all_known:
            known = 0
            for day in days:
                new = [event for event in events if _day(event) <= day][known:]
                known += len(new)
                await growing.record(*new)
                async with growing.store() as then:
                    for name, query in LISTS:
                        for currency, account in (("usd", None), ("usd", "acct_b")):
                            asked = (f"payment-analytics-{name}", currency, day, account)
                            assert await document(all_known, *asked, **query) == (
                                await document(then, *asked, **query)
                            ), (name, day)


def _day(event: Event) -> date:
    return event.occurred_at.date()

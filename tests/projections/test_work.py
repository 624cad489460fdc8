"""How the cost of a fold grows: steps of the interpreter, for a history and for one twice as long."""

import sys
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec import json

from projections import pricing
from projections.bills import bill_rows, contract_rows
from projections.book import Row, Rules
from projections.collections import payment_cash_rows, settled_cash_rows
from projections.contracts import ContractStates, contract_state_rows, effective_states
from projections.customer_discounts import CustomerDiscounts, customer_discount_rows
from projections.inferred import billed_item_rows, inferred_state_rows
from projections.issued_invoices import invoice_rows
from projections.observed_bills import ObservedBill, ObservedPayment, settled_bill_rows
from projections.pricing import price_on
from projections.receipts import claim_rows, receipt_rows
from projections.work import MAX_STEPS, TooMuchWork, Work
from service.core.events import AppliedDiscount, BilledItem, Discount, Event
from tests.support.events import (
    at,
    but,
    changed,
    created,
    event,
    invoice,
    item,
    payment,
    refund,
    settles,
    subscription,
)

RULES = Rules()
START = at("2024-01-01")
PLAN = subscription(item(10_000))


def days(count: int) -> list[Any]:
    return [START + timedelta(days=number) for number in range(count)]


def refunds(count: int) -> Callable[[], Any]:
    """A payment whose refunds are told by it and by themselves."""
    history: list[Event] = [event(payment(count * 10, payment_id="pi_1"), START)]
    for number, day in enumerate(days(count)):
        history.append(event(payment(count * 10, payment_id="pi_1", amount_refunded=number + 1), day))
        history.append(event(refund(1, str(day.date()), refund_id=f"re_{number}"), day))
    return lambda: payment_cash_rows(history, RULES)


def attachments(count: int) -> Callable[[], Any]:
    """A payment that many events link to its invoice."""
    history = [event(payment(payment_id="pi_1"), START), *(event(settles(), day) for day in days(count))]
    return lambda: receipt_rows(history)


def bounces(count: int) -> Callable[[], Any]:
    """An invoice that was paid and opened again many times, as its payment says, too."""
    stated, paid = [], [event(settles(), START)]
    for number, day in enumerate(days(count)):
        status = "open" if number % 2 else "paid"
        stated.append(event(invoice(status, payment_ids=("pi_1",)), day))
        attempt = {"payment_id": "pi_1", "attempted_at": START + timedelta(days=number // 2)}
        paid.append(event(payment(status="failed" if number % 2 else "succeeded", **attempt), day))
    rows = [*claim_rows(stated), *receipt_rows(paid)]
    return lambda: settled_cash_rows(rows, RULES)


def observed(count: int) -> Callable[[], Any]:
    """The bills and payments of one customer and amount."""
    common = {
        "processor": "mxmerchant",
        "account": "",
        "currency": "usd",
        "customer_id": "c",
        "trust": "fetched",
    }
    rows: list[Row] = []
    for day in days(count):
        dated = {**common, "date": day.date().isoformat(), "amount_cents": 100}
        rows.append(ObservedBill(contract_id="7", interval="day", every=1, **dated))
        rows.append(ObservedPayment(payment_id=f"p{day}", last_event_date="", **dated))
    return lambda: settled_bill_rows(rows, RULES)


def states_of(count: int) -> list[Row]:
    updates = [
        changed(but(PLAN, items=(item(10_000 + n),)), str(d.date())) for n, d in enumerate(days(count))
    ]
    return contract_state_rows([created(PLAN, "2023-12-31"), *updates], RULES)


def invoiced(count: int) -> Callable[[], Any]:
    """A contract of many prices with many invoices."""
    contract = contract_rows(states_of(count)[1:], RULES)
    rows = [
        row
        for number, day in enumerate(days(count))
        for row in invoice_rows(
            [
                event(
                    invoice("open", invoice_id=f"in_{number}", subscription_id="sub_1", when=str(day.date())),
                    day,
                )
            ],
            RULES,
        )
    ]
    return lambda: bill_rows([*contract, *rows], RULES)


def billed(count: int) -> Callable[[], Any]:
    """A contract of which only invoices tell the past."""
    start = contract_state_rows([created(PLAN, "2026-01-01")], RULES)[:1]
    rows = [
        row
        for number, day in enumerate(days(count))
        for row in billed_item_rows([event(past_invoice(number, day), day)], RULES)
    ]
    return lambda: inferred_state_rows([*start, *rows], RULES)


def past_invoice(number: int, day: Any) -> Any:
    covered = BilledItem(starts_at=day, ends_at=day + timedelta(days=1), amount=100 + number, interval="day")
    return invoice("paid", invoice_id=f"in_{number}", subscription_id="sub_1", billed=(covered,))


def discounts_of(count: int) -> list[Row]:
    history = [
        event(
            AppliedDiscount(
                customer_id="cus_1",
                discount=Discount(discount_id="di_1", percent_off=Decimal(1 + number % 50)),
            ),
            day,
        )
        for number, day in enumerate(days(count))
    ]
    return customer_discount_rows(history, RULES)


def applied(count: int) -> Callable[[], Any]:
    """A customer's discount that many events change."""
    return lambda: discounts_of(count)


def discounted(count: int) -> Callable[[], Any]:
    """A contract of many states, off which are a customer's discounts of many days."""
    count *= 4
    states, discounts = states_of(count)[1], discounts_of(count)[0]
    assert isinstance(states, ContractStates)
    assert isinstance(discounts, CustomerDiscounts)
    return lambda: effective_states(states, discounts, RULES)


def priced(count: int) -> Callable[[], Any]:
    """A contract of many items, each with a discount of its product."""
    data = subscription(
        *(item(100 + number, product_id=f"p{number}") for number in range(count)),
        discounts=tuple(Discount(amount_off=1, product_ids=(f"p{number}",)) for number in range(count)),
    )
    return lambda: price_on(data, date(2026, 1, 1), RULES)


def steps(fold: Callable[[], Any]) -> int:
    """The steps that the interpreter takes for a fold whose prices are in no cache."""
    pricing._price_contract.cache_clear()
    pricing._own_line.cache_clear()
    count = 0

    def trace(frame: Any, _event: str, _arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        fold()
    finally:
        sys.settrace(before)
    return count


FOLDS = (refunds, attachments, bounces, observed, invoiced, billed, applied, discounted, priced)


@pytest.mark.parametrize("fold", FOLDS, ids=[fold.__name__ for fold in FOLDS])
def test_twice_the_history_takes_little_more_than_twice_the_steps(fold: Callable[[int], Any]) -> None:
    short, long = steps(fold(60)), steps(fold(120))
    assert long < 2.4 * short


def test_a_fold_that_would_take_too_many_steps_is_ended_before_it_takes_them() -> None:
    work = Work()
    work.add(MAX_STEPS)
    with pytest.raises(TooMuchWork):
        work.add(1)


def test_folds_that_take_too_many_steps_together_are_ended() -> None:
    together = Work(100)
    with together.enclosing():
        for _ in range(2):
            Work().add(50)
        with pytest.raises(TooMuchWork):
            Work().add(1)
    Work().add(1)


def test_a_contract_that_alternates_between_customers_takes_too_much_work() -> None:
    def moving(count: int) -> Sequence[Row]:
        moves = [
            changed(but(PLAN, customer_id=f"cus_{number}"), str(day.date()))
            for number, day in enumerate(days(count))
        ]
        return contract_state_rows([created(PLAN, "2023-12-31"), *moves], RULES)

    assert len(moving(20)) == 21
    assert json.decode(moving(1)[0].customers)  # type: ignore[attr-defined]
    with pytest.raises(TooMuchWork):
        moving(400)

"""The bills of observed contracts: on which days, and which payment pays which. Source: contract 3."""

from datetime import date

import pytest

from tests.support.events import at, but, event, item, payment, refund, subscription
from tests.support.folded_books import bills

CONTRACT = subscription(
    item(10_000), subscription_id="7001", customer_id="mx_1", next_bill_on=date(2025, 11, 10)
)


def observed(next_bill: str, when: str, **fields):
    """An observation of the contract, with the next bill that it states."""
    data = but(CONTRACT, next_bill_on=date.fromisoformat(next_bill), **fields)
    return event(data, when, processor="mxmerchant")


def paid(when: str, cents: int = 10_000, **fields):
    fields = {"payment_id": f"p_{when}", "customer_id": "mx_1", **fields}
    return event(payment(cents, **fields), when, processor="mxmerchant")


def left(*events) -> list[tuple[str, str]]:
    """The days and statuses of the bills that have come."""
    return [(bill.date, bill.status) for bill in bills(events) if bill.status != "upcoming"]


BILLED = observed("2025-11-10", "2025-11-01"), observed("2025-12-10", "2025-11-12")


def test_a_due_day_between_two_observations_leaves_a_bill():
    (bill, coming) = bills(BILLED)
    assert (bill.date, bill.status, bill.amount_cents, bill.open_cents) == ("2025-11-10", "billed", 10_000, 0)
    assert (bill.next_bill_date, coming.date) == ("2025-12-10", "2025-12-10")


@pytest.mark.parametrize(
    ("next_bill", "seen", "days"),
    [
        ("2026-02-10", "2026-01-15", ["2025-11-10", "2025-12-10", "2026-01-10"]),
        ("2026-02-10", "2025-12-05", ["2025-11-10"]),  # not after the second observation
        ("2025-11-10", "2025-12-05", []),  # the day is still to come, as the processor says
        ("2025-10-10", "2025-11-12", []),
    ],
)
def test_due_days_end_with_the_second_observation_and_its_next_bill(next_bill, seen, days):
    events = observed("2025-11-10", "2025-11-01"), observed(next_bill, seen)
    assert [day for day, _ in left(*events)] == days


@pytest.mark.parametrize(
    ("invoiced", "day"),
    [("2025-11-11", "2025-11-11"), ("2025-11-24", "2025-11-24"), ("2025-11-25", "2025-11-10")],
)
def test_the_last_invoice_takes_the_place_of_a_due_day_within_half_an_interval(invoiced, day):
    second = observed("2025-12-10", "2025-11-30", last_invoice_on=date.fromisoformat(invoiced))
    assert left(observed("2025-11-10", "2025-11-01"), second) == [(day, "billed")]


@pytest.mark.parametrize("status", ["inactive", "cancelled"])
def test_a_contract_that_does_not_count_leaves_no_bill_and_one_that_ended_keeps_its_own(status):
    ended = observed("2026-01-10", "2025-12-20", status=status)
    idle = observed("2026-02-10", "2026-01-20", status=status)
    assert [day for day, _ in left(*BILLED, ended, idle)] == ["2025-11-10", "2025-12-10"]


@pytest.mark.parametrize(
    ("when", "status"),
    [("2025-11-07", "paid"), ("2025-11-13", "paid"), ("2025-11-06", "billed"), ("2025-11-14", "billed")],
)
def test_a_payment_within_three_days_pays_a_bill(when, status):
    assert left(*BILLED, paid(when)) == [("2025-11-10", status)]


@pytest.mark.parametrize("fields", [{"customer_id": "mx_2"}, {"currency": "eur"}, {"status": "failed"}])
def test_another_customers_currencys_or_failed_payment_pays_nothing(fields):
    assert left(*BILLED, paid("2025-11-10", **fields)) == [("2025-11-10", "billed")]
    assert left(*BILLED, paid("2025-11-10", cents=9_999)) == [("2025-11-10", "billed")]


@pytest.mark.parametrize("created", ["2025-11-10", "2025-11-09"])
def test_a_payment_that_a_fetch_shows_voided_pays_nothing(created):
    made = paid("2025-11-10")
    void = event(but(made.data, status="voided"), created, processor="mxmerchant", trust="fetched")
    assert left(*BILLED, made, void) == [("2025-11-10", "billed")]


def test_one_payment_pays_one_bill_and_the_nearest_goes_first():
    twin = but(CONTRACT, subscription_id="7002", next_bill_on=date(2025, 11, 12))
    later = but(twin, next_bill_on=date(2025, 12, 12))
    both = [
        *BILLED,
        event(twin, "2025-11-01", processor="mxmerchant"),
        event(later, "2025-11-15", processor="mxmerchant"),
    ]
    one, two = paid("2025-11-12"), paid("2025-11-13")
    assert left(*both, one) == [("2025-11-10", "billed"), ("2025-11-12", "paid")]
    assert left(*both, one, two) == [("2025-11-10", "paid"), ("2025-11-12", "paid")]


def test_stripes_contracts_leave_no_observed_bills():
    now, later = (
        but(CONTRACT, next_bill_on=None, next_bill_at=at(day)) for day in ("2025-11-10", "2025-12-10")
    )
    assert left(event(now, "2025-11-01"), event(later, "2025-11-12")) == []


@pytest.mark.parametrize(("when", "unheard"), [("2025-12-09", True), ("2025-12-10", False)])
def test_a_later_event_of_a_payment_that_paid_a_bill_says_that_the_contract_is_heard(when, unheard):
    payment_id = "p_2025-11-11"
    given_back = event(refund(payment_id=payment_id), when, processor="mxmerchant")
    of_another = event(refund(payment_id="p_other"), "2025-12-20", processor="mxmerchant")
    *_, coming = bills((*BILLED, paid("2025-11-11"), given_back, of_another))
    assert (coming.date, coming.status, coming.unheard) == ("2025-12-10", "upcoming", unheard)

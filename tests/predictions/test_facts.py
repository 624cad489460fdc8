"""From a customer's rows to the facts that predictions are made from."""

from datetime import date
from typing import Any

import pytest
from msgspec import json

from service.predictions.model import Facts
from service.predictions.predict import predict
from service.reads.customers.customer import Customer, facts_from, facts_of
from tests.support.customers import TODAY, ago, contract, curve, customer, model, movement, order, schedule


def facts_today(whom: Customer) -> Facts:
    return facts_of(whom, TODAY)


def days(known: Facts) -> list[str]:
    return [date.fromordinal(day).isoformat() for day, _ in known.bills]


def yearly(day: str | None, **fields: Any) -> Any:
    """A contract of 1,200.00 a year."""
    schedules = [schedule(day, "year", cents=120_000)] if day else []
    terms = json.encode([("2025-01-01", 10_000, True)]).decode()
    return contract("sub_2", schedules, interval="year", terms=terms, **fields)


def test_bills_are_those_of_36_months_from_today_on() -> None:
    known = facts_today(customer(contracts=[contract(schedules=[schedule(ago(0))])]))
    assert days(known)[:2] == ["2026-03-15", "2026-04-15"]
    assert days(known)[-1] == "2029-02-15"
    assert len(known.bills) == 36


def test_each_contract_bills_until_its_own_end() -> None:
    ending = contract(ends_date="2026-05-01")
    known = facts_today(customer(contracts=[ending, yearly("2026-06-07")]))
    assert days(known) == ["2026-04-01", "2026-06-07", "2027-06-07", "2028-06-07"]
    assert [cents for _, cents in known.bills] == [5000, 120_000, 120_000, 120_000]
    assert known.ends_date is None


def test_all_schedules_of_a_contract_bill_until_its_end() -> None:
    yearly_too = schedule("2026-04-20", "year", cents=900)
    known = facts_today(
        customer(contracts=[contract(schedules=[schedule(), yearly_too], ends_date="2026-05-02")])
    )
    assert days(known) == ["2026-04-01", "2026-04-20", "2026-05-01"]
    assert [cents for _, cents in known.bills] == [5000, 900, 5000]


def test_where_nothing_is_due_there_is_no_bill() -> None:
    free_until_june = schedule("2026-04-01", "month", 1, ("2026-06-01", 5000), cents=0)
    known = facts_today(customer(contracts=[contract(schedules=[free_until_june])]))
    assert days(known)[0] == "2026-06-01"


def test_a_trial_has_no_bill_yet() -> None:
    known = facts_today(customer(contracts=[contract(status="trialing", terms="[]"), yearly("2026-06-07")]))
    assert days(known)[0] == "2026-06-07"


@pytest.mark.parametrize(
    ("fields", "undated"),
    [
        ({"schedules": []}, 5000),
        ({"schedules": [], "ends_date": "2026-04-14"}, 0),  # its end comes before another bill
        ({"schedules": [], "ends_date": "2026-06-14"}, 5000),
        ({}, 0),
    ],
)
def test_what_goes_on_without_a_date_is_known_by_its_mrr(fields: dict[str, Any], undated: int) -> None:
    assert (
        facts_today(customer(contracts=[contract(**fields), yearly("2026-06-07")])).undated_mrr_cents
        == undated
    )


def test_a_bill_is_overdue_where_no_other_is_stated() -> None:
    late = contract(schedules=[schedule(ago(4))])
    assert facts_today(customer(contracts=[late])).overdue_date == ago(4)
    assert facts_today(customer(contracts=[late, yearly("2026-06-07")])).overdue_date is None
    assert facts_today(customer(contracts=[contract(schedules=[schedule(ago(0))])])).overdue_date is None


def test_the_last_order_is_all_of_its_day_and_the_mrr_that_of_then() -> None:
    moves = [movement("new", ago(90), 100), movement("expansion", ago(40), 300)]
    moves.append(movement("expansion", ago(39), 900))
    whom = customer([order(ago(70), 1), order(ago(40), 200), order(ago(40), 100)], movements=moves)
    assert (facts_today(whom).last_order_cents, facts_today(whom).last_order_mrr_cents) == (300, 300)
    assert (facts_today(customer()).last_order_cents, facts_today(customer()).last_order_mrr_cents) == (0, 0)


def test_facts_come_from_sums_and_rows_as_well() -> None:
    whom = customer([order(ago(70), 500), order(ago(40), 201)], [contract()])
    assert facts_today(whom) == facts_from(
        orders=2,
        first_date=ago(70),
        last_date=ago(40),
        paid_cents=701,
        net_cents=701,
        last_order_cents=201,
        movements=whom.movements,
        contracts=whom.contracts,
        today=TODAY,
    )
    assert facts_today(whom).average_order_cents == 351


def test_a_year_paid_in_advance_is_not_expected_once_more() -> None:
    half = model(tenure=curve({300: 0.5}, 2000))
    orders, moves = [order(ago(0), 120_000)], [movement("new", ago(0), 10_000)]
    new = customer(orders, [yearly("2027-03-15")], moves)
    ending = customer(orders, [yearly(None, ends_date="2027-03-15")], moves)
    assert (
        predict(facts_today(new), half).estimated_ltv_cents == 120_000 + 2 * 60_000
    )  # the third is in 1,096 days
    assert predict(facts_today(ending), half).estimated_ltv_cents == 120_000

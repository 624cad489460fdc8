"""Discounts wherever they are stated: by a contract, by an event of their own, or by the customer."""

from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.book import Rules
from projections.contract_life import ContractLife, ContractState
from projections.contracts import ContractStates, contract_state_rows, effective_states
from projections.customer_discounts import CustomerDiscounts, customer_discount_rows
from projections.mrr import MRR, Step
from projections.pricing import is_unpriced
from service.core.events import (
    DELETED,
    AppliedDiscount,
    Customer,
    Discount,
    Event,
    Item,
    Phase,
    Schedule,
)
from tests.support.effort import examples
from tests.support.events import at, but, changed, created, event, invoice, item, subscription
from tests.support.folded_books import movements, mrr, rows_of

RULES = Rules()
PLAN = subscription(item(8_000))


def off(percent: str | None = None, discount_id: str | None = "di_1", **fields) -> Discount:
    value = {} if percent is None else {"percent_off": Decimal(percent)}
    return Discount(discount_id=discount_id, **value, **fields)


def applied(
    discount: Discount, when: str, *, deleted: bool = False, customer: bool = False, **fields
) -> Event:
    """The event of a contract's discount, or of a customer's."""
    named = {"customer_id": "cus_1"} if customer else {"subscription_id": "sub_1"}
    data = AppliedDiscount(discount=discount, deleted=deleted, **named)
    return event(data, when, rank=DELETED if deleted else 1, **fields)


def in_any_order(events) -> list[tuple[str, str, int]]:
    """The movements of the events, the same in every order."""
    found = [movements(order) for order in permutations(events)]
    assert all(each == found[0] for each in found)
    return found[0]


# Stated by an event of its own


@pytest.mark.parametrize("told_at", ["2025-01-10", "2025-01-09 23:00", "2025-02-20"])
def test_a_discount_that_is_named_by_id_alone_is_known_by_its_own_event(told_at):
    plan = but(PLAN, discounts=(off(),))
    events = [created(plan, "2025-01-10"), applied(off("25"), told_at)]
    assert in_any_order(events) == [("2025-01-10", "new", 6_000)]


def test_an_items_discount_is_known_by_its_own_event_and_off_that_item_alone():
    plan = subscription(item(3_000, discounts=(off(),)), item(500))
    events = [created(plan, "2025-01-10"), applied(off(amount_off=1_000), "2025-01-10")]
    assert in_any_order(events) == [("2025-01-10", "new", 2_500)]


def test_a_discount_of_which_nobody_says_how_much_it_is_stays_marked():
    events = [created(but(PLAN, discounts=(off(),)), "2025-01-10"), applied(off("10", "di_2"), "2025-01-10")]
    (state,) = ContractLife(events, RULES).states()
    assert is_unpriced(state.data)
    assert mrr(events) == 7_200
    assert is_unpriced(
        ContractLife([created(PLAN, "2025-01-10"), applied(off(), "2025-01-10")], RULES).states()[0].data
    )


def test_a_discount_that_only_its_own_event_states_counts_from_that_event():
    events = [created(PLAN, "2025-01-10"), applied(off("50"), "2025-03-05")]
    assert in_any_order(events) == [("2025-01-10", "new", 8_000), ("2025-03-05", "contraction", -4_000)]


def test_a_later_statement_of_the_contract_says_which_discounts_it_has():
    events = [
        created(PLAN, "2025-01-10"),
        applied(off("50"), "2025-03-05"),
        changed(but(PLAN, declined=True), "2025-04-01"),
    ]
    assert in_any_order(events)[-1] == ("2025-04-01", "expansion", 4_000)


def test_a_deleted_discount_is_off_no_more_though_the_contract_still_lists_it():
    plan = but(PLAN, discounts=(off("50"),))
    events = [created(plan, "2025-01-10"), applied(off("50"), "2025-03-05", deleted=True)]
    assert in_any_order(events) == [("2025-01-10", "new", 4_000), ("2025-03-05", "expansion", 4_000)]


def test_a_discount_that_is_deleted_and_listed_again_later_is_off_again():
    plan = but(PLAN, discounts=(off(),))
    events = [
        created(plan, "2025-01-10"),
        applied(off("10"), "2025-02-01", deleted=True),
        changed(plan, "2025-03-01"),
    ]
    assert [cents for *_, cents in in_any_order(events)] == [7_200, 800, -800]


def test_another_value_counts_from_the_event_that_states_it():
    plan = but(PLAN, discounts=(off("50"),))
    events = [
        created(plan, "2025-01-10"),
        applied(off("50"), "2025-01-10"),
        applied(off("25"), "2025-02-01"),
    ]
    assert in_any_order(events) == [("2025-01-10", "new", 4_000), ("2025-02-01", "expansion", 2_000)]


def test_a_discount_of_its_own_event_ends_on_its_day():
    repeating = off("50", duration="repeating", ends_at=at("2025-04-10"))
    events = [created(but(PLAN, discounts=(off(),)), "2025-01-10"), applied(repeating, "2025-01-10")]
    assert in_any_order(events)[-1] == ("2025-04-10", "expansion", 4_000)


def test_what_says_how_much_is_off_is_among_the_causes():
    events = [
        created(but(PLAN, discounts=(off(),)), "2025-01-10", event_id="a"),
        applied(off("25"), "2025-01-10", event_id="b", trust="fetched"),
    ]
    (step,) = [row for row in rows_of(MRR, events) if isinstance(row, Step)]
    assert (step.causes, step.trust) == ('["stripe:a","stripe:b"]', "fetched")


# Stated of the customer


def has(*discounts: Discount, when: str) -> Event:
    return event(Customer(customer_id="cus_1", discounts=discounts), when)


@pytest.mark.parametrize(
    "told",
    [
        [has(off("25"), when="2025-02-01"), has(when="2025-03-01")],
        [
            applied(off("25"), "2025-02-01", customer=True),
            applied(off("25"), "2025-03-01", deleted=True, customer=True),
        ],
        [has(off("25"), when="2025-02-01"), applied(off(), "2025-03-01", deleted=True, customer=True)],
        [
            has(off(), when="2025-02-01"),
            applied(off("25"), "2025-02-02", customer=True),
            has(when="2025-03-01"),
        ],
    ],
    ids=["by the customer", "by itself", "by both", "by its id"],
)
def test_a_customers_discount_is_off_all_their_contracts_while_it_holds(told):
    second = subscription(item(400, "year"), subscription_id="sub_2")
    events = [created(PLAN, "2025-01-10"), created(second, "2025-01-10"), *told]
    assert in_any_order(events) == [
        ("2025-01-10", "new", 8_033),
        ("2025-02-01", "contraction", -2_008),
        ("2025-03-01", "expansion", 2_008),
    ]


@pytest.mark.parametrize(
    "own",
    [
        but(PLAN, discounts=(off("50", "di_2"),)),
        subscription(item(8_000, discounts=(off("50", "di_2"),))),
    ],
    ids=["the contract's", "an item's"],
)
def test_a_contracts_own_discount_goes_before_the_customers(own):
    events = [has(off("25"), when="2025-01-01"), created(own, "2025-01-10")]
    assert mrr(events) == 4_000


def test_the_customers_discount_is_off_from_the_day_on_which_the_contracts_own_one_ends():
    own = off("50", "di_2", duration="repeating", ends_at=at("2025-04-10 10:00"))
    events = [has(off("25"), when="2025-01-01"), created(but(PLAN, discounts=(own,)), "2025-01-10")]
    assert in_any_order(events) == [("2025-01-10", "new", 4_000), ("2025-04-10", "expansion", 2_000)]


def test_a_customers_discount_ends_on_its_day():
    held = off("25", duration="repeating", ends_at=at("2025-02-14"))
    events = [created(PLAN, "2025-01-10"), has(held, when="2025-01-10")]
    assert in_any_order(events) == [("2025-01-10", "new", 6_000), ("2025-02-14", "expansion", 2_000)]


def test_a_discount_is_off_the_contracts_of_its_customer_alone():
    moved = but(PLAN, customer_id="cus_2")
    events = [created(PLAN, "2025-01-10"), has(off("25"), when="2025-01-10"), changed(moved, "2025-02-10")]
    assert in_any_order(events) == [
        ("2025-01-10", "new", 6_000),
        ("2025-02-10", "churn", -6_000),
        ("2025-02-10", "new", 8_000),
    ]


def test_customers_of_another_account_or_processor_have_their_own_discounts():
    events = [
        created(PLAN, "2025-01-10"),
        event(Customer(customer_id="cus_1", discounts=(off("25"),)), "2025-01-10", account="acct_b"),
        event(Customer(customer_id="cus_1", discounts=(off("25"),)), "2025-01-10", processor="standard.own"),
    ]
    assert mrr(events) == 8_000


def test_there_is_no_row_of_discounts_where_nothing_was_ever_off():
    assert customer_discount_rows([has(when="2025-01-10"), has(when="2025-02-10")], RULES) == []
    assert customer_discount_rows([], RULES) == []


# What bills read


def states_of(events: list[Event]) -> list[ContractState]:
    rows = rows_of(MRR, events)
    (states,) = [row for row in rows if isinstance(row, ContractStates) and row.present]
    discounts = next((row for row in rows if isinstance(row, CustomerDiscounts)), None)
    return effective_states(states, discounts, RULES)


def test_the_last_state_is_what_is_known_now():
    own = off("50", "di_2", duration="repeating", ends_at=at("2025-04-10"))
    plan = but(PLAN, discounts=(own,), cancel_at=at("2026-01-10"))
    last = states_of([has(off("25"), when="2025-02-01"), created(plan, "2025-01-10")])[-1]
    assert (last.day.isoformat(), str(last.ends_on), last.ended) == ("2025-02-01", "2026-01-10", False)
    assert [d.discount_id for d in last.data.discounts] == ["di_2", "di_1"]


def test_a_contract_that_moved_is_present_with_its_last_customer():
    events = [created(PLAN, "2025-01-10"), changed(but(PLAN, customer_id="cus_2"), "2025-02-10")]
    rows = [row for row in contract_state_rows(events, RULES) if isinstance(row, ContractStates)]
    assert [(row.parent_key, row.present) for row in rows] == [
        ("stripe||cus_1", False),
        ("stripe||cus_2", True),
    ]
    assert rows[0].states == rows[1].states


def schedule(*phases: Phase, status: str = "active") -> Schedule:
    return Schedule(schedule_id="sched_1", subscription_id="sub_1", status=status, phases=phases)


LATER = Phase(starts_at=at("2025-06-01"), items=(Item(interval="month", price_id="price_a", quantity=2),))


@pytest.mark.parametrize("told_at", ["2025-01-09", "2025-01-10", "2025-03-01"])
def test_phases_to_come_are_known_with_the_prices_that_were_once_named(told_at):
    named = subscription(item(900, "year", price_id="price_a"))
    begun = but(LATER, starts_at=at("2025-01-05"))
    events = [created(named, "2025-01-10"), event(schedule(begun, LATER), told_at)]
    (phase,) = states_of(events)[-1].phases
    assert phase.items == (item(900, "year", price_id="price_a", quantity=2),)


def test_a_schedule_that_was_released_changes_nothing_any_more():
    events = [
        created(PLAN, "2025-01-10"),
        event(schedule(LATER), "2025-01-11"),
        event(schedule(LATER, status="released"), "2025-01-12"),
    ]
    assert [len(state.phases) for state in states_of(events)] == [0, 1, 0]
    assert movements(events) == [("2025-01-10", "new", 8_000)]


# Any set of events

DAYS = st.integers(1, 28).map(lambda day: f"2025-03-{day:02d} 12:00")
discounts = st.builds(off, st.sampled_from([None, "10", "50"]), st.sampled_from(["di_1", "di_2", None]))
lists = st.lists(discounts, max_size=2).map(tuple)
statements = st.builds(
    lambda listed, mine, status, taxed, cancel_at: subscription(
        item(5_000, discounts=mine),
        discounts=listed,
        status=status,
        automatic_tax=taxed,
        cancel_at=cancel_at and at(cancel_at),
    ),
    lists,
    lists,
    st.sampled_from(["active", "Past_Due", "unpaid", "canceled", "live"]),
    st.booleans(),
    st.sampled_from([None, "2025-03-20", "2025-04-02"]),
)
applications = st.builds(
    lambda discount, deleted, named: AppliedDiscount(discount=discount, deleted=deleted, **named),
    discounts,
    st.booleans(),
    st.sampled_from([{"subscription_id": "sub_1"}, {"customer_id": "cus_1"}]),
)
invoices = st.builds(
    lambda number, tax: but(
        invoice("paid", invoice_id=f"in_{number}", subscription_id="sub_1"),
        taxed_amount=10_000,
        inclusive_tax=tax,
    ),
    st.integers(1, 3),
    st.sampled_from([0, 1_667, 1_668]),
)
customers = st.builds(lambda listed: Customer(customer_id="cus_1", discounts=listed), lists)
told = st.tuples(
    st.one_of(statements, statements, applications, invoices, customers, st.just(schedule(LATER))),
    DAYS,
    st.sampled_from(["stripe", "standard.own"]),
)


@given(st.lists(told, min_size=1, max_size=8), st.randoms())
@examples(150)
def test_any_order_of_any_events_gives_the_same_rows(facts, random):
    events = [
        event(data, when, f"evt_{n}", processor=processor) for n, (data, when, processor) in enumerate(facts)
    ]
    shuffled = random.sample([*events], len(events))
    assert rows_of(MRR, shuffled) == rows_of(MRR, events)


@given(st.lists(st.tuples(st.one_of(applications, customers), DAYS), min_size=1, max_size=6))
@examples(100)
def test_a_contract_with_a_lasting_discount_of_its_own_does_not_care_for_the_customers(facts):
    own = created(but(PLAN, discounts=(off("10", "di_own"),)), "2025-02-01")
    events = [event(data, when, f"evt_{n}") for n, (data, when) in enumerate(facts)]
    of_contract = [e for e in events if isinstance(e.data, AppliedDiscount) and e.data.subscription_id]
    assert movements([own, *events]) == movements([own, *of_contract])

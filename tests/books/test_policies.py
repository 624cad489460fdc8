"""Random scenarios: the books of every policy are a function of the events, and what differs is explained."""

import asyncio
from datetime import date
from decimal import Decimal
from fractions import Fraction
from functools import partial
from itertools import groupby, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Connection, select

from projections import BOOKS, MRR
from projections.book import Policy, Rules
from projections.contract_life import ContractLife
from projections.contracts import mrr_terms
from projections.mrr import Step
from service.books.engine import Engine
from service.books.store import BookStore
from service.books.tables import ROWS
from service.books.view import Scope, View
from service.core.events import Customer, Discount, Subscription, subjects
from service.core.order import canonical
from service.ledger.history import read_histories
from service.reads import compare
from service.rulebook import load_rulebook
from service.verify import digests, replay, verify_totals
from tests.support.effort import examples
from tests.support.events import at, created, event, item, subscription
from tests.support.random_deliveries import deliveries
from tests.support.random_scenarios import Scenario, scenarios
from tests.support.temporary_books import TemporaryBooks, document, new_books, now

KINDS = ("new", "reactivation", "expansion", "contraction", "churn")
PRESETS = load_rulebook().policies
KEPT = (*BOOKS, *(MRR.with_policy(name, policy) for name, policy in PRESETS.items()))
FIRST, LAST = date(2024, 12, 1), date(2026, 12, 31)

policies = st.builds(
    Policy,
    statuses=st.sampled_from(
        [("active", "past_due"), ("active",), ("active", "trialing", "unpaid", "incomplete"), ()]
    ),
    paused=st.booleans(),
    ignored_discounts=st.sampled_from([("once",), (), ("once", "repeating"), ("forever",)]),
    churn=st.sampled_from(["when_ended", "when_set_to_cancel"]),
    weeks_per_month=st.sampled_from([None, Fraction(52, 12), Fraction(4), Fraction(433, 100)]),
)


def contracts(scenario: Scenario) -> list[list]:
    """The history of each contract, in canonical order."""
    told = sorted(
        ((subjects(event)[0], event) for event in scenario.events if isinstance(event.data, Subscription)),
        key=lambda pair: pair[0],
    )
    return [canonical(event for _, event in pairs) for _, pairs in groupby(told, key=lambda pair: pair[0])]


def side(name: str, policy: Policy, zone: str) -> compare.PolicySide:
    return compare.PolicySide(policy=name, rules=Rules(reporting_tz=zone).with_policy(policy))


def cents(history: list, day: date, rules: Rules) -> int:
    found = [term for term in mrr_terms(ContractLife(history, rules).states(), rules) if term.day <= day]
    return found[-1].mrr_cents if found else 0


@given(scenarios(), policies, policies, st.dates(date(2025, 1, 1), date(2026, 6, 30)))
@examples(150)
def test_reasons_add_up_to_the_difference_of_any_contract(scenario, one, other, day):
    first, second = side("one", one, scenario.zone), side("other", other, scenario.zone)
    for history in contracts(scenario):
        amounts = [cents(history, day, each.rules) for each in (first, second)]
        if amounts[0] == amounts[1]:
            continue
        there, back = (
            compare.explain_contract(history, day, *pair) for pair in ((first, second), (second, first))
        )
        assert sum(reason.amount_cents for reason in there.reasons) == amounts[1] - amounts[0]
        assert sum(reason.amount_cents for reason in back.reasons) == amounts[0] - amounts[1]
        assert there.causes
        assert all(reason.amount_cents for reason in there.reasons)
        assert {there.status, back.status} <= {event.data.status for event in history}


@given(scenarios(), policies, st.sampled_from(Policy.__struct_fields__), policies)
@examples(50)
def test_policies_that_differ_in_one_rule_have_no_other_reason(scenario, one, field, other):
    first = side("one", one, scenario.zone)
    second = side("other", replace(one, **{field: getattr(other, field)}), scenario.zone)
    day = date(2025, 6, 15)
    for history in contracts(scenario):
        if cents(history, day, first.rules) != cents(history, day, second.rules):
            (reason,) = compare.explain_contract(history, day, first, second).reasons
            assert reason.rule == {"ignored_discounts": "discounts"}.get(field, field)


@pytest.mark.parametrize(("ignored", "amount"), [(("once", "forever"), 1_200), (("once",), 0)])
def test_a_customers_own_discount_is_among_the_reasons(ignored, amount):
    off = Discount(discount_id="di_1", percent_off=Decimal(15))
    discount_history = [event(Customer(customer_id="cus_1", discounts=(off,)), "2025-01-05")]
    both = side("one", Policy(), "UTC"), side("other", Policy(ignored_discounts=ignored), "UTC")
    history = [created(subscription(item(8_000)), "2025-01-10")]
    found = compare.explain_contract(history, date(2025, 2, 1), *both, discount_history)
    assert [(reason.rule, reason.amount_cents) for reason in found.reasons] == (
        [("discounts", amount)] if amount else []
    )
    assert len(found.causes) == 2


@pytest.mark.usefixtures("each_store")
async def test_a_customers_discount_reaches_their_contracts_whichever_comes_first():
    off = Discount(discount_id="di_1", percent_off=Decimal(15))
    told = [
        event(Customer(customer_id="cus_1", discounts=(off,)), "2025-01-05"),
        created(subscription(item(8_000)), "2025-01-10"),
        event(Customer(customer_id="cus_1", discounts=()), "2025-03-01"),
    ]
    for order in permutations(told):
        async with new_books() as books, books.store(books=KEPT) as store:
            for each in order:
                await books.append([each])
                await Engine(books.ledger, store, now).catch_up()
            days = [date(2025, 2, 1), date(2025, 3, 1)]
            found = [(await document(store, "mrr", "usd", day))["mrr_cents"] for day in days]
            assert found == [6_800, 8_000]
            await verify_totals(store)


@given(st.data(), scenarios())
@examples(12)
@pytest.mark.usefixtures("each_store")
def test_any_delivery_gives_the_books_of_one_replay_under_every_policy(data, scenario):
    planned = data.draw(deliveries(scenario), label="deliveries")
    asyncio.run(_any_delivery_gives_the_books_of_one_replay_under_every_policy(scenario, planned))


async def _any_delivery_gives_the_books_of_one_replay_under_every_policy(scenario, planned):
    rules = Rules(reporting_tz=scenario.zone)
    async with (
        new_books(rules) as books,
        new_books(rules) as ordered,
        books.store(books=KEPT) as store,
        ordered.store(books=KEPT) as straight,
    ):
        engine = Engine(books.ledger, store, now, kept_states=planned.kept_states)
        for batch, _ in planned.batches:
            await books.append(batch)
            await engine.catch_up()
        await ordered.append(scenario.events)
        await Engine(ordered.ledger, straight, now).catch_up()
        assert await digests(store) == await digests(straight)
        await verify_totals(store)
        for currency in scenario.expected.currencies():
            for policy in ("default", *PRESETS):
                await _adds_up(store, currency, policy)
            await _is_explained(books, store, currency, date(2025, 5, 20))


async def _adds_up(store: BookStore, currency: str, policy: str) -> None:
    """In every period opening and movements make closing; months make quarters; the last closing is MRR."""
    asked = {"from_": FIRST.isoformat(), "to": LAST.isoformat(), "policy": policy}
    moved = (await document(store, "mrr-movements", currency, LAST, **asked))["periods"]
    months, quarters = [
        (await document(store, "metrics", currency, LAST, by=by, **asked))["periods"]
        for by in ("month", "quarter")
    ]
    for periods in (moved, months, quarters):
        level = 0
        for period in periods:
            assert period["opening_cents"] == level
            level += sum(period[f"{kind}_cents"] for kind in KINDS)
            assert period["closing_cents"] == level
        assert level == (await document(store, "mrr", currency, LAST, policy=policy))["mrr_cents"]
    assert {month["period"]: month["closing_cents"] for month in months} == {
        period["period"]: period["closing_cents"] for period in moved
    }


async def _is_explained(books: TemporaryBooks, store: BookStore, currency: str, day: date) -> None:
    """Reasons make contracts, contracts customers, and customers the difference of the two totals."""
    scope = Scope(currency=currency, today=day)
    for second in PRESETS:

        def find(connection, policies=("default", second)):
            view = View(connection=connection, books=store.positions(connection).books, scope=scope)
            return compare.find_differences(view, policies, None, None), compare.policy_sides(view, policies)

        page, both = await store.read(find)
        contracts = [contract for row in page.customers for contract in row.contracts]
        names = [name for contract in contracts for name in contract.histories]
        told = await books.ledger.read(
            lambda connection, of=names: read_histories(connection, of, 2**40, books.ledger.vault)
        )
        shown = compare.with_reasons(page, told, day, *both)
        assert sum(row.difference_cents for row in shown.customers) == shown.difference_cents
        for row in shown.customers:
            assert row.difference_cents == row.second_mrr_cents - row.first_mrr_cents
            assert row.difference_cents == sum(each.difference_cents for each in row.contracts)
            assert row.causes
            for each in row.contracts:
                assert each.difference_cents == sum(r.amount_cents for r in each.reasons) != 0


async def test_a_policy_that_counts_trials_shares_no_states_with_one_that_does_not():
    trial = subscription(item(8_000), status="trialing", counts_from=at("2025-01-02"))
    counts_trials = MRR.with_policy("trials", Policy(statuses=("active", "past_due", "trialing")))
    async with new_books() as books, new_books() as other, books.store(books=(MRR, counts_trials)) as store:
        await books.append([created(trial, "2025-01-10", processor="standard.acme")])
        await Engine(books.ledger, store, now).catch_up()
        assert await digests(store) == await replay(books.ledger, store.rules, other.directory, store.books)
        found = await store.read(partial(_steps_of, store=store, book=counts_trials.name))
    assert found == [("2025-01-02", 8_000)]


def _steps_of(connection: Connection, store: BookStore, book: str) -> list[tuple[str, int]]:
    steps = ROWS[Step]
    of_book = steps.c.book == store.positions(connection).books[book]
    return [tuple(row) for row in connection.execute(select(steps.c.date, steps.c.mrr_cents).where(of_book))]

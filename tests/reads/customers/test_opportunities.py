"""Rules on customers: each field of `when` at its edge, and the texts."""

from decimal import Decimal
from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from service.books.view import ReadOptions
from service.reads.customers.customer import Customer
from service.reads.customers.opportunities import opportunities, recommend
from service.rulebook import NAMES, Opportunity, When, load_rulebook
from tests.support.customers import ago, contract, curve, customer, model, movement, order, schedule, view

MONTHLY, YEARLY = contract(), contract(schedules=[schedule(interval="year")])


NOTHING_MORE = dict.fromkeys(
    ("offer_type", "discount_percentage", "message", "type", "potential_revenue_cents", "probability")
)


def applies(when: When, whom: Customer, risk: float | None = None) -> bool:
    return bool(recommend(view(Opportunity(rule="one", kind="offer", text="x", when=when)), whom, risk))


def bought(cents: int) -> Customer:
    return customer([order(ago(0), cents)])


def quiet(days: int) -> Customer:
    return customer([order(ago(400)), order(ago(days))])


@pytest.mark.parametrize(
    ("when", "inside", "beside"),
    [
        (When(segments=("whale",)), bought(1_000_000), bought(999_999)),
        (When(segments=("high_value",)), bought(100_000), bought(1_000_000)),
        (When(segments=("medium_value",)), bought(10_000), bought(9_999)),
        (When(segments=("low_value",)), bought(9_999), bought(10_000)),
        (When(activity=("highly_active",)), quiet(30), quiet(31)),
        (When(activity=("active",)), quiet(60), quiet(61)),
        (When(activity=("declining",)), quiet(90), quiet(91)),
        (When(activity=("at_risk",)), quiet(91), quiet(90)),
        (When(lifecycle=("new",)), customer([order(ago(29))]), customer([order(ago(30))])),
        (When(lifecycle=("active",)), quiet(59), quiet(60)),
        (When(lifecycle=("at_risk",)), quiet(120), quiet(121)),
        (When(lifecycle=("churned",)), quiet(121), quiet(120)),
        (When(lifecycle=("at_risk", "churned")), quiet(121), quiet(59)),
        (
            When(cadences=("monthly",)),
            customer(contracts=[YEARLY, MONTHLY]),
            customer(contracts=[YEARLY]),
        ),
        (
            When(cadences=("every 4 weeks",)),
            customer(contracts=[contract(schedules=[schedule(interval="week", every=4)])]),
            customer(contracts=[contract(schedules=[schedule(interval="week", every=3)])]),
        ),
        (
            When(cadences=("yearly",)),
            customer(contracts=[contract(schedules=[schedule(), schedule("2026-05-01", "year")])]),
            customer(contracts=[contract("sub_1", [])]),
        ),
        (
            When(cadences=("monthly",)),
            customer(contracts=[contract(schedules=[])]),  # by its price
            customer(contracts=[contract(schedules=[], interval="year")]),
        ),
        (When(orders_at_least=2), quiet(0), bought(1)),
        (When(orders_at_least=1), bought(1), customer()),
        (When(orders_at_most=1), bought(1), quiet(0)),
        (When(quiet_days_at_least=30), quiet(30), quiet(29)),
        (When(live=True), customer(contracts=[MONTHLY]), customer([order(ago(1))])),
        (
            When(live=True),
            customer(contracts=[contract(terms='[["2026-03-15",1,true]]')]),
            customer(contracts=[contract(terms='[["2026-03-16",1,true]]')]),
        ),
        (When(live=False), customer([order(ago(1))]), customer(contracts=[MONTHLY])),
        (
            When(declined=True),
            customer(contracts=[MONTHLY, contract(declined=True)]),
            customer(contracts=[MONTHLY]),
        ),
        (
            When(declined=True),
            customer(contracts=[contract(declined=True)]),
            customer(contracts=[contract(declined=True, terms="[]")]),
        ),
        (
            When(ending=True),
            customer(contracts=[MONTHLY, contract(ends_date=ago(-1))]),
            customer(contracts=[MONTHLY, contract(ends_date=ago(0))]),
        ),
        (
            When(ending=False),
            customer(contracts=[MONTHLY]),
            customer(contracts=[contract(ends_date=ago(-9))]),
        ),
        (When(orders_at_least=2, quiet_days_at_least=30), quiet(30), quiet(29)),
    ],
)
def test_a_rule_applies_where_all_that_it_asks_for_is_so(
    when: When, inside: Customer, beside: Customer
) -> None:
    assert applies(when, inside)
    assert not applies(when, beside)


def test_churn_risk_counts_from_the_risk_asked_for() -> None:
    when = When(churn_risk_at_least=0.5)
    assert applies(when, customer(), 0.5)
    assert not applies(when, customer(), 0.4999)


def test_a_rule_that_asks_for_nothing_applies_to_everybody() -> None:
    assert applies(When(), customer())


@pytest.mark.parametrize(
    "when",
    [
        When(activity=("highly_active", "active", "declining", "at_risk")),
        When(lifecycle=("new", "active", "at_risk", "churned")),
        When(quiet_days_at_least=0),
        When(churn_risk_at_least=0.0),
        When(cadences=("monthly",)),
    ],
)
def test_what_is_not_known_is_never_so(when: When) -> None:
    assert not applies(when, customer())


def test_the_reasons_are_the_facts_that_were_asked_for() -> None:
    when = When(segments=("low_value",), orders_at_most=3, quiet_days_at_least=2, ending=False)
    rule = Opportunity(rule="one", kind="offer", text="{orders} of them", when=when)
    assert to_builtins(recommend(view(rule), quiet(5), 0.9)) == [
        {
            "rule": "one",
            "kind": "offer",
            "text": "2 of them",
            **NOTHING_MORE,
            "because": {"segment": "low_value", "orders": 2, "days_quiet": 5, "ending": False},
            "causes": ["stripe:evt_1"],
        }
    ]


FULL = customer(
    [order(ago(300), 120_000), order(ago(10), 5_001)],
    [contract(ends_date=ago(-40)), contract("sub_2", [schedule("2026-05-01", "year")])],
    [movement("new", ago(300), 4000), movement("expansion", ago(30), 5417)],
    [order(ago(2), 2_001)],
)


@pytest.mark.parametrize(
    ("name", "text"),
    {
        "customer": "Ada",
        "orders": "2",
        "revenue": "1,250.01 USD",
        "net_revenue": "1,230.00 USD",
        "average_order": "625.01 USD",
        "last_purchase": "2026-03-05",
        "days_quiet": "10",
        "segment": "high_value",
        "activity": "highly_active",
        "lifecycle": "active",
        "churn_risk": "62%",
        "mrr": "54.17 USD",
        "cadence": "monthly, yearly",
        "next_bill_date": "2026-04-01",
        "ends_date": "2026-04-24",
    }.items(),
)
def test_a_text_is_filled_in(name: str, text: str) -> None:
    rule = Opportunity(rule="one", kind="offer", text=f"<{{{name}}}>")
    assert recommend(view(rule), FULL, 0.621)[0].text == f"<{text}>"


def test_every_name_is_known_of_somebody() -> None:
    rule = Opportunity(rule="one", kind="offer", text=" ".join(f"{{{name}}}" for name in NAMES))
    assert recommend(view(rule), FULL, 0.5)


@pytest.mark.parametrize(
    "name", sorted({*NAMES} - {"customer", "orders", "revenue", "net_revenue", "segment"})
)
def test_a_text_that_names_what_is_not_known_is_not_told(name: str) -> None:
    assert not recommend(view(Opportunity(rule="one", kind="offer", text=f"{{{name}}}")), customer(), None)


def test_a_name_that_holds_braces_stays_as_it_is() -> None:
    rule = Opportunity(rule="one", kind="offer", text="{{{customer}}}")
    whom = replace(customer(), name="{orders}")
    assert recommend(view(rule), whom, None)[0].text == "{{orders}}"


def test_a_customer_without_a_name_is_named_by_id() -> None:
    rule = Opportunity(rule="one", kind="offer", text="{customer}")
    assert recommend(view(rule), replace(customer(), name=None), None)[0].text == "cus_1"


KINDS = [
    Opportunity(rule="a", kind="action", text="x"),
    Opportunity(rule="b", kind="upsell", text="x"),
    Opportunity(rule="c", kind="offer", text="x"),
    Opportunity(rule="d", kind="action", text="x"),
]


@pytest.mark.parametrize(
    ("kinds", "rules"), [((), "abcd"), (("action",), "ad"), (("offer", "upsell"), "bc"), (("offer",), "c")]
)
def test_rules_of_the_kinds_asked_for_are_told_in_the_order_of_the_file(
    kinds: tuple[str, ...], rules: str
) -> None:
    assert [row.rule for row in recommend(view(*KINDS), customer(), None, *kinds)] == list(rules)


def test_the_document_has_who_it_is_about_and_what_to_do() -> None:
    document = opportunities(view(*KINDS), FULL)
    assert {name: getattr(document, name) for name in ("success", "customer_id", "customer_segment")} == {
        "success": True,
        "customer_id": "cus_1",
        "customer_segment": "high_value",
    }
    assert [row.rule for row in document.opportunities] == ["b", "c"]
    assert [row.rule for row in document.actions] == ["a", "d"]


def test_the_documents_churn_risk_is_the_predicted_one() -> None:
    rule = Opportunity(rule="one", kind="action", text="{churn_risk}", when=When(churn_risk_at_least=0.25))
    learnt = model(tenure=curve({500: 0.75}, 900))
    whom = customer(contracts=[contract()])
    assert to_builtins(opportunities(view(rule, learnt=learnt), whom).actions) == [
        {
            "rule": "one",
            "kind": "action",
            "text": "25%",
            **NOTHING_MORE,
            "because": {"churn_risk": 0.25},
            "causes": ["stripe:evt_2"],
        }
    ]
    assert opportunities(view(rule), whom).actions == []


@pytest.mark.parametrize(
    ("rule", "whom", "risk"),
    [
        ("yearly-for-loyal-monthly", customer([order(ago(n)) for n in range(6)], [MONTHLY]), None),
        ("subscription-for-regulars", customer([order(ago(n)) for n in range(4)]), None),
        ("account-manager-for-whales", customer([order(ago(1), 1_000_000)], [MONTHLY]), None),
        ("second-order", customer([order(ago(30))]), None),
        ("win-back", customer([order(ago(121), 10_000)]), None),
        ("call-quiet-customers", customer([order(ago(60), 100_000)]), None),
        ("save-declined-contract", customer(contracts=[contract(declined=True)]), None),
        ("keep-before-it-ends", customer(contracts=[contract(ends_date=ago(-1))]), None),
        ("high-churn-risk", customer(contracts=[MONTHLY]), 0.5),
    ],
)
def test_each_of_daybooks_own_rules_finds_its_customer(rule: str, whom: Any, risk: float | None) -> None:
    asked = view(*load_rulebook().opportunities)
    assert rule in [row.rule for row in recommend(asked, whom, risk)]


def test_a_customer_of_whom_nothing_is_known_gets_a_first_offer_alone() -> None:
    (found,) = recommend(view(*load_rulebook().opportunities), customer(), None)
    assert (found.rule, found.discount_percentage) == ("first-offer", 10)


def own(whom: Customer, currency: str = "usd") -> dict[str, Any]:
    """What Daybook's own rules recommend, by rule."""
    asked = view(*load_rulebook().opportunities)
    asked = replace(asked, scope=replace(asked.scope, currency=currency))
    return {row.rule: row for row in recommend(asked, whom, None)}


DISCOUNTS = {
    "early-access-for-high-value": ("exclusive_early_access", 20),
    "loyalty-discount-for-medium-value": ("loyalty_discount", 15),
    "first-offer": ("first_offer", 10),
}


@pytest.mark.parametrize(
    ("paid_cents", "rule"),
    [
        (1_000_000, "early-access-for-high-value"),
        (100_000, "early-access-for-high-value"),
        (99_999, "loyalty-discount-for-medium-value"),
        (10_000, "loyalty-discount-for-medium-value"),
        (9_999, "first-offer"),
    ],
)
def test_everybody_gets_one_discount_by_what_they_have_paid(paid_cents: int, rule: str) -> None:
    found = own(bought(paid_cents))
    assert found.keys() & DISCOUNTS.keys() == {rule}
    assert (found[rule].offer_type, found[rule].discount_percentage) == DISCOUNTS[rule]
    assert found[rule].message
    assert (found[rule].type, found[rule].potential_revenue_cents, found[rule].probability) == (None,) * 3


@pytest.mark.parametrize(
    ("orders", "cents", "is_offered"),
    [(6, 2_000, True), (5, 2_000, False), (6, 1_666, False), (6, 16_666, True), (6, 16_667, False)],
)
def test_an_upgrade_is_for_medium_value_with_over_five_orders(
    orders: int, cents: int, is_offered: bool
) -> None:
    found = own(customer([order(ago(n), cents) for n in range(orders)])).get(
        "premium-upgrade-for-medium-value"
    )
    assert (found is not None) is is_offered
    if found:
        assert (found.kind, found.type, found.probability) == ("upsell", "premium_upgrade", 0.65)
        assert found.potential_revenue_cents == 50_000
        assert (found.offer_type, found.discount_percentage, found.message) == (None,) * 3


@pytest.mark.parametrize(("currency", "minor"), [("jpy", 500), ("kwd", 500_000)])
def test_what_an_upsell_may_bring_is_in_units_of_the_currency(currency: str, minor: int) -> None:
    rule = Opportunity(rule="one", kind="upsell", text="x", potential_revenue=Decimal(500))
    asked = view(rule)
    asked = replace(asked, scope=replace(asked.scope, currency=currency))
    assert recommend(asked, customer(), None)[0].potential_revenue_cents == minor


@pytest.mark.parametrize(
    ("rule", "inside", "beside"),
    [
        (
            "retain-high-value-at-risk",
            [(400, 100_000), (60, 1)],
            [(400, 100_000), (59, 1)],
        ),
        ("retain-high-value-at-risk", [(120, 1_000_000)], [(121, 1_000_000)]),
        ("retain-medium-value-declining", [(61, 10_000)], [(60, 10_000)]),
        ("retain-medium-value-declining", [(90, 99_999)], [(91, 99_999)]),
        ("welcome-low-value-new", [(29, 9_999)], [(30, 9_999)]),
    ],
)
def test_customers_are_retained_by_value_and_how_long_they_are_quiet(
    rule: str, inside: list[tuple[int, int]], beside: list[tuple[int, int]]
) -> None:
    assert own(customer([order(ago(days), cents) for days, cents in inside]))[rule].kind == "action"
    assert rule not in own(customer([order(ago(days), cents) for days, cents in beside]))


def test_a_message_is_filled_in_and_keeps_its_rule_back_like_a_text() -> None:
    rule = Opportunity(rule="one", kind="offer", text="x", message="{customer}, since {last_purchase}")
    assert recommend(view(rule), FULL, None)[0].message == "Ada, since 2026-03-05"
    assert recommend(view(rule), customer(), None) == []


def test_a_segment_has_its_treatment_and_a_stage_its_focus() -> None:
    book = load_rulebook()
    options = ReadOptions(treatment=book.treatment, focus=book.focus)
    document = opportunities(replace(view(), options=options), quiet(70))
    assert document.treatment == book.treatment["low_value"]
    assert document.focus == book.focus["at_risk"]
    nobody = opportunities(replace(view(), options=options), customer())
    assert (nobody.treatment, nobody.focus) == (book.treatment["low_value"], None)
    silent = opportunities(view(), quiet(70))
    assert silent.treatment is silent.focus is None

"""The rulebook's recommendations for one customer."""

from collections.abc import Callable
from fractions import Fraction
from operator import contains, eq, ge, le
from typing import Annotated, Any, Literal

from msgspec import Struct, json
from msgspec.structs import asdict

from projections.schedules import decode
from service.books.view import View
from service.core.cadence import cadence_label
from service.core.money import format_minor, round_fraction, to_minor
from service.predictions.model import Facts
from service.reads.answers import about, cents, or_null
from service.reads.customers.classes import (
    ActivityStatus,
    CustomerSegment,
    Focus,
    LifecycleStage,
    Treatment,
)
from service.reads.customers.customer import (
    Customer,
    CustomerHeader,
    classify,
    facts_of,
    header,
    live_contracts,
    predict_customer,
)
from service.rulebook import Opportunity

# By field of `When`: the fact to compare, and the comparison of the rule's value with it.
_CONDITIONS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "segments": ("segment", contains),
    "activity": ("activity", contains),
    "lifecycle": ("lifecycle", contains),
    "cadences": ("cadences", lambda wanted, billed: not set(wanted).isdisjoint(billed)),
    "orders_at_least": ("orders", le),
    "orders_at_most": ("orders", ge),
    "quiet_days_at_least": ("days_quiet", le),
    "churn_risk_at_least": ("churn_risk", le),
    "live": ("live", eq),
    "declined": ("declined", eq),
    "ending": ("ending", eq),
}


class Recommendation(Struct, frozen=True, kw_only=True):
    """A rule of the rulebook that applies to a customer."""

    rule: Annotated[str, about("the rulebook's rule")]
    kind: Annotated[Literal["offer", "upsell", "action"], about("what it is")]
    text: Annotated[str, about("what is recommended")]
    offer_type: Annotated[str | None, about("of an offer, what kind of offer; null where the rule says none")]
    discount_percentage: Annotated[
        float | None, about("of an offer, the discount in percent; null where the rule says none")
    ]
    message: Annotated[
        str | None, about("of an offer, what to tell the customer; null where the rule says none")
    ]
    type: Annotated[str | None, about("of an upsell, what kind of upsell; null where the rule says none")]
    potential_revenue_cents: Annotated[
        int | None, or_null(cents("of an upsell, what it may bring"), "where the rule says none")
    ]
    probability: Annotated[
        float | None, about("of an upsell, how probable that is, 0 to 1; null where the rule says none")
    ]
    because: Annotated[
        dict[str, str | bool | int | float | list[str]],
        about("what the rule asks for, as the customer has it"),
    ]
    causes: Annotated[list[str], about("the events behind the last order and the live contracts")]


class Opportunities(CustomerHeader, frozen=True, kw_only=True):
    """What the rulebook recommends to offer a customer, and to do."""

    customer_segment: CustomerSegment
    treatment: Treatment
    activity_status: ActivityStatus
    lifecycle_stage: LifecycleStage
    focus: Focus
    opportunities: Annotated[
        list[Recommendation], about("offers and upsells whose rules apply, in the rulebook's order")
    ]
    actions: Annotated[list[Recommendation], about("what to do, by rules that apply")]


def opportunities(view: View, customer: Customer) -> Opportunities:
    """The offers to make to a customer, and other actions."""
    predictions = predict_customer(view, customer)
    risk = predictions.churn_risk_score if predictions else None
    return Opportunities(
        **asdict(header(customer, view.scope.currency)),
        **asdict(classify(view, customer)),
        opportunities=recommend(view, customer, risk, "offer", "upsell"),
        actions=recommend(view, customer, risk, "action"),
    )


def recommend(view: View, customer: Customer, churn_risk: float | None, *kinds: str) -> list[Recommendation]:
    """The rules of these kinds (of any kind, if none is given) that apply, each with its text and reasons.

    A rule does not apply if a fact that it asks for, or that its text names, is not known.
    """
    rules = [rule for rule in view.options.opportunities if not kinds or rule.kind in kinds]
    facts = facts_of(customer, view.scope.today)
    rule_facts = _rule_facts(view, customer, facts, churn_risk)
    text_values = _text_values(view, customer, facts, rule_facts)
    causes, currency = _causes(view, customer), view.scope.currency
    return [
        Recommendation(
            rule=rule.rule,
            kind=rule.kind,
            text=text,
            offer_type=rule.offer_type,
            discount_percentage=rule.discount_percentage,
            message=message or None,
            type=rule.type,
            potential_revenue_cents=_potential_cents(rule, currency),
            probability=rule.probability,
            because=because,
            causes=causes,
        )
        for rule in rules
        if (because := _matched_facts(rule, rule_facts)) is not None
        and (text := _fill_text(rule.text, text_values)) is not None
        and (message := _fill_text(rule.message or "", text_values)) is not None
    ]


def _potential_cents(rule: Opportunity, currency: str) -> int | None:
    revenue = rule.potential_revenue
    return None if revenue is None else round_fraction(Fraction(to_minor(revenue, currency)))


def _causes(view: View, customer: Customer) -> list[str]:
    """The events behind the last order and the live contracts."""
    rows = [*customer.orders[-1:], *live_contracts(customer, view.scope.today.isoformat())]
    return sorted({cause for row in rows for cause in json.decode(row.causes)})


def _matched_facts(rule: Opportunity, rule_facts: dict[str, Any]) -> dict[str, Any] | None:
    """The facts that a rule asks for; None if one of them differs or is not known."""
    matched = {}
    for field, expected in asdict(rule.when).items():
        if expected is None:
            continue
        name, holds = _CONDITIONS[field]
        if rule_facts[name] is None or not holds(expected, rule_facts[name]):
            return None
        matched[name] = rule_facts[name]
    return matched


def _fill_text(text: str, values: dict[str, str | None]) -> str | None:
    """A text with its names replaced by values; None if one of the values is not known."""
    try:
        return text.format_map({name: value for name, value in values.items() if value is not None})
    except KeyError:
        return None


def _rule_facts(view: View, customer: Customer, facts: Facts, churn_risk: float | None) -> dict[str, Any]:
    """The facts that rules ask for, None where they are not known."""
    today = view.scope.today
    live, customer_classes = live_contracts(customer, today.isoformat()), classify(view, customer)
    ends_date = min((day for row in live if (day := row.ends_date) and day > today.isoformat()), default=None)
    return {
        "segment": customer_classes.customer_segment,
        "activity": customer_classes.activity_status,
        "lifecycle": customer_classes.lifecycle_stage,
        "cadences": sorted({cadence for row in live for cadence in _cadences(row)}),
        "orders": facts.orders,
        "days_quiet": None if facts.last_day is None else facts.today - facts.last_day,
        "churn_risk": churn_risk,
        "live": bool(live),
        "declined": any(row.declined for row in live),
        "ending": ends_date is not None,
        "ends_date": ends_date,
    }


def _cadences(row: Any) -> set[str]:
    """The cadences of a contract's bills; without a bill to come, that of its price."""
    schedules = [(each.interval, each.every) for each in decode(row.schedules)]
    return {cadence_label(*each) for each in schedules or [(row.interval, row.every)]}


def _text_values(
    view: View, customer: Customer, facts: Facts, rule_facts: dict[str, Any]
) -> dict[str, str | None]:
    """The values of the names in texts (`service.rulebook.NAMES`), None where they are not known."""
    currency = view.scope.currency
    days_quiet, risk = rule_facts["days_quiet"], rule_facts["churn_risk"]

    def money(cents: int) -> str:
        return f"{format_minor(cents, currency)} {currency.upper()}"

    return {
        "customer": customer.name or customer.customer_id,
        "orders": str(facts.orders),
        "revenue": money(sum(row.amount_cents for row in customer.orders)),
        "net_revenue": money(facts.revenue_cents),
        "average_order": money(facts.average_order_cents) if facts.orders else None,
        "last_purchase": customer.orders[-1].date if facts.orders else None,
        "days_quiet": None if days_quiet is None else str(days_quiet),
        "segment": rule_facts["segment"],
        "activity": rule_facts["activity"],
        "lifecycle": rule_facts["lifecycle"],
        "churn_risk": None if risk is None else f"{risk:.0%}",
        "mrr": money(facts.mrr_cents) if rule_facts["live"] else None,
        "cadence": ", ".join(rule_facts["cadences"]) or None,
        "next_bill_date": min(
            (row.next_bill_date for row in customer.contracts if row.next_bill_date), default=None
        ),
        "ends_date": rule_facts["ends_date"],
    }

"""What the rulebook recommends for one customer."""

from collections.abc import Callable
from operator import contains, eq, ge, le
from typing import Any

from msgspec import json
from msgspec.structs import asdict

from service.books.view import View
from service.core.cadence import cadence_label
from service.core.money import format_minor
from service.predictions.model import Facts
from service.reads.customers.customer import (
    Customer,
    classes,
    facts,
    header,
    live_contracts,
    predictions,
)
from service.rulebook import Opportunity

# Each field of `When`: the fact that it asks for, and how what the rule says is compared with it.
_ASKED: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "segments": ("segment", contains),
    "activity": ("activity", contains),
    "lifecycle": ("lifecycle", contains),
    "cadences": ("cadences", lambda asked, billed: not set(asked).isdisjoint(billed)),
    "orders_at_least": ("orders", le),
    "orders_at_most": ("orders", ge),
    "quiet_days_at_least": ("days_quiet", le),
    "churn_risk_at_least": ("churn_risk", le),
    "live": ("live", eq),
    "declined": ("declined", eq),
    "ending": ("ending", eq),
}


def opportunities(view: View, customer: Customer) -> dict[str, Any]:
    """What to offer to a customer, and what else to do."""
    told = predictions(view, customer)
    risk = told.churn_risk_score if told else None
    return {
        **header(view, customer),
        **classes(view, customer),
        "opportunities": recommended(view, customer, risk, "offer", "upsell"),
        "actions": recommended(view, customer, risk, "action"),
    }


def recommended(
    view: View, customer: Customer, churn_risk: float | None, *kinds: str
) -> list[dict[str, Any]]:
    """The rules of these kinds (of any, if none is given) that apply, each with its text and its reasons.

    A rule that asks for what is not known, or names it in its text, does not apply.
    """
    rules = [rule for rule in view.options.opportunities if not kinds or rule.kind in kinds]
    of = facts(customer, view.scope.today)
    known = _known(view, customer, of, churn_risk)
    told = _told(view, customer, of, known)
    causes = _causes(view, customer)
    return [
        {"rule": rule.rule, "kind": rule.kind, "text": text, "because": because, "causes": causes}
        for rule in rules
        if (because := _because(rule, known)) is not None and (text := _filled(rule.text, told)) is not None
    ]


def _causes(view: View, customer: Customer) -> list[str]:
    """The events behind the last order and the live contracts."""
    rows = [*customer.orders[-1:], *live_contracts(customer, view.scope.today.isoformat())]
    return sorted({cause for row in rows for cause in json.decode(row.causes)})


def _because(rule: Opportunity, known: dict[str, Any]) -> dict[str, Any] | None:
    """The facts that a rule asks for; None where one of them is not so, or not known."""
    because = {}
    for field, asked in asdict(rule.when).items():
        if asked is None:
            continue
        fact, holds = _ASKED[field]
        if known[fact] is None or not holds(asked, known[fact]):
            return None
        because[fact] = known[fact]
    return because


def _filled(text: str, told: dict[str, str | None]) -> str | None:
    """A text with its names filled in; None where one of them is not known."""
    try:
        return text.format_map({name: value for name, value in told.items() if value is not None})
    except KeyError:
        return None


def _known(view: View, customer: Customer, of: Facts, churn_risk: float | None) -> dict[str, Any]:
    """The facts that rules ask for, None where they are not known."""
    today = view.scope.today
    live, those = live_contracts(customer, today.isoformat()), classes(view, customer)
    ends_date = min((day for row in live if (day := row.ends_date) and day > today.isoformat()), default=None)
    return {
        "segment": those["customer_segment"],
        "activity": those["activity_status"],
        "lifecycle": those["lifecycle_stage"],
        "cadences": sorted({cadence_label(row.interval, row.every) for row in live}),
        "orders": of.orders,
        "days_quiet": None if of.last_day is None else of.today - of.last_day,
        "churn_risk": churn_risk,
        "live": bool(live),
        "declined": any(row.declined for row in live),
        "ending": ends_date is not None,
        "ends_date": ends_date,
    }


def _told(view: View, customer: Customer, of: Facts, known: dict[str, Any]) -> dict[str, str | None]:
    """What the names in texts stand for (`service.rulebook.NAMES`), None where it is not known."""
    currency = view.scope.currency
    days_quiet, risk = known["days_quiet"], known["churn_risk"]

    def money(cents: int) -> str:
        return f"{format_minor(cents, currency)} {currency.upper()}"

    return {
        "customer": customer.name or customer.customer_id,
        "orders": str(of.orders),
        "revenue": money(sum(row.amount_cents for row in customer.orders)),
        "net_revenue": money(of.revenue_cents),
        "average_order": money(of.average_order_cents) if of.orders else None,
        "last_purchase": customer.orders[-1].date if of.orders else None,
        "days_quiet": None if days_quiet is None else str(days_quiet),
        "segment": known["segment"],
        "activity": known["activity"],
        "lifecycle": known["lifecycle"],
        "churn_risk": None if risk is None else f"{risk:.0%}",
        "mrr": money(of.mrr_cents) if known["live"] else None,
        "cadence": ", ".join(known["cadences"]) or None,
        "next_bill_date": min(
            (row.next_bill_date for row in customer.contracts if row.next_bill_date), default=None
        ),
        "ends_date": known["ends_date"],
    }

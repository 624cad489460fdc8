"""What is to be expected of a customer, by what the worker has learnt; and how good that is."""

from datetime import date
from typing import Any

from msgspec import Struct, json, to_builtins

from service.books.view import View
from service.core.errors import ParameterError
from service.predictions.predict import Basis, Predictions, predict
from service.reads.customers.customer import Customer, facts, model
from service.reads.customers.opportunities import recommended

_FIGURES = (
    "estimated_ltv_cents",
    "next_purchase_probability",
    "next_purchase_predicted_date",
    "churn_risk_score",
)
_BACKTEST = ("day", "cut", "hidden_days", "churn", "unpredicted", "calibration", "revenue")


class _Learnt(Struct):
    """When something was learnt, and of which ledger position."""

    day: int
    position: int = 0


def expectations(view: View, customer: Customer) -> dict[str, Any]:
    """Predictions and what the rulebook recommends; where nothing is learnt, null and the reason."""
    learnt = model(view)
    told = predict(facts(customer, view.scope.today), learnt) if learnt else _nothing(_why_not(view))
    document: dict[str, Any] = to_builtins(told)
    basis = document.pop("basis")
    actions = recommended(view, customer, told.churn_risk_score, "action")
    return {
        **document,
        "recommended_actions": [f"{row['text']} ({row['rule']})" for row in actions],
        "learnt": learnt and {"on": _iso(learnt.day), "position": learnt.position},
        "basis": basis,
    }


def _nothing(reason: str) -> Predictions:
    basis = Basis(reason=reason)
    return Predictions(**dict.fromkeys(_FIGURES), basis=dict.fromkeys(_FIGURES, basis))


def _why_not(view: View) -> str:
    found = view.stored_model("model")
    if found is None:
        return f"nothing is learnt of {view.scope.currency} yet: the worker does so soon after it starts"
    on = _iso(json.decode(found, type=_Learnt).day)
    return f"it was learnt on {on}; what was to be expected of an earlier day is not kept"


def _iso(day: int) -> str:
    return date.fromordinal(day).isoformat()


def backtest(view: View) -> dict[str, Any]:
    """How well the model would have foreseen the days before it was learnt. Raises ParameterError.

    Nulls and a reason until something is learnt.
    """
    if view.scope.account is not None:
        raise ParameterError("account: not here; what is predicted is learnt of all accounts together")
    found, scope = view.stored_model("backtest"), {"currency": view.scope.currency}
    if found is None:
        return {**scope, "learnt": None, **dict.fromkeys(_BACKTEST), "reason": _why_not(view)}
    document: dict[str, Any] = json.decode(found)
    document |= {name: _iso(document[name]) for name in ("day", "cut")}
    learnt = {"on": document["day"], "position": document.pop("position")}
    return {**scope, "learnt": learnt, **document, "reason": None}

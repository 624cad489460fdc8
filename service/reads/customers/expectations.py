"""The predictions for a customer, by the model that the worker has fitted; and how good that model is."""

from datetime import date
from typing import Any

from msgspec import Struct, json, to_builtins

from service.books.view import View
from service.core.errors import ParameterError
from service.predictions.predict import Basis, Predictions, predict
from service.reads.customers.customer import Customer, facts_of, read_model
from service.reads.customers.opportunities import recommend

_FIGURES = (
    "estimated_ltv_cents",
    "next_purchase_probability",
    "next_purchase_predicted_date",
    "churn_risk_score",
)
_BACKTEST_FIELDS = ("day", "cut", "hidden_days", "churn", "unpredicted", "calibration", "revenue")


class _ModelVersion(Struct):
    """The day and the ledger position of a fitted model."""

    day: int
    position: int = 0


def expectations(view: View, customer: Customer) -> dict[str, Any]:
    """Predictions, and the rulebook's recommended actions; without a model, nulls and the reason."""
    model = read_model(view)
    predictions = (
        predict(facts_of(customer, view.scope.today), model)
        if model
        else _no_predictions(_missing_model_reason(view))
    )
    document: dict[str, Any] = to_builtins(predictions)
    basis = document.pop("basis")
    actions = recommend(view, customer, predictions.churn_risk_score, "action")
    return {
        **document,
        "recommended_actions": [f"{row['text']} ({row['rule']})" for row in actions],
        "learnt": model and {"on": _iso(model.day), "position": model.position},
        "basis": basis,
    }


def _no_predictions(reason: str) -> Predictions:
    basis = Basis(reason=reason)
    return Predictions(**dict.fromkeys(_FIGURES), basis=dict.fromkeys(_FIGURES, basis))


def _missing_model_reason(view: View) -> str:
    document = view.stored_model("model")
    if document is None:
        return f"nothing is learnt of {view.scope.currency} yet: the worker does so soon after it starts"
    fitted_on = _iso(json.decode(document, type=_ModelVersion).day)
    return f"it was learnt on {fitted_on}; what was to be expected of an earlier day is not kept"


def _iso(day: int) -> str:
    return date.fromordinal(day).isoformat()


def backtest(view: View) -> dict[str, Any]:
    """How well the model would have predicted the days before it was fitted; without a model, nulls and why.

    Raises ParameterError if the view is limited to an account.
    """
    if view.scope.account is not None:
        raise ParameterError("account: not here; what is predicted is learnt of all accounts together")
    body, scope = view.stored_model("backtest"), {"currency": view.scope.currency}
    if body is None:
        return {
            **scope,
            "learnt": None,
            **dict.fromkeys(_BACKTEST_FIELDS),
            "reason": _missing_model_reason(view),
        }
    document: dict[str, Any] = json.decode(body)
    document |= {name: _iso(document[name]) for name in ("day", "cut")}
    trained = {"on": document["day"], "position": document.pop("position")}
    return {**scope, "learnt": trained, **document, "reason": None}

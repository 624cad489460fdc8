"""The predictions for a customer, by the model that the worker has fitted; and how good that model is."""

from datetime import date
from typing import Annotated

from msgspec import Meta, Struct, convert, field, json

from service.books.view import View
from service.predictions import predict
from service.reads.answers import Currency, Day, Reason, about, cents, day, or_null
from service.reads.customers.customer import Customer, Success, facts_of, read_model
from service.reads.customers.opportunities import recommend

_FIGURES = (
    "estimated_ltv_cents",
    "next_purchase_probability",
    "next_purchase_predicted_date",
    "churn_risk_score",
)
_TOO_LITTLE_HISTORY = "where there is too little history; `basis` says why"
_UNFITTED = "before anything is learnt"
_OF_NONE = "of none"
ChurnRisk = Annotated[
    float | None,
    about(
        "the probability that live contracts end within 90 days; else, that no order comes; 0 to 1; "
        f"null {_TOO_LITTLE_HISTORY}"
    ),
]
_Bounds = Annotated[list[int | float | str | None], Meta(min_length=2, max_length=2)]


class Basis(Struct, frozen=True, kw_only=True):
    """The method and sample behind a figure; without a figure, the reason why there is none."""

    method: Annotated[str | None, about("stated (by the processor), or kaplan-meier; null without a figure")]
    n: Annotated[int | None, about("how many lives or gaps it was learnt from; null where it was not learnt")]
    events: Annotated[int | None, about("how many of them have ended; null where it was not learnt")]
    interval: Annotated[
        _Bounds | None,
        about("95 % interval, of a date the quartiles; null where there is none"),
    ]
    reason: Reason


class Bases(Struct, frozen=True, kw_only=True):
    """How each of the predictions was made."""

    estimated_ltv_cents: Annotated[Basis, about("how it was made")]
    next_purchase_probability: Annotated[Basis, about("how it was made")]
    next_purchase_predicted_date: Annotated[Basis, about("how it was made")]
    churn_risk_score: Annotated[Basis, about("how it was made")]


class Learnt(Struct, frozen=True, kw_only=True):
    """When and of what the predictions were learnt."""

    on: Annotated[Day, day("the day")]
    position: Annotated[int, about("the ledger position that the books held")]


LearntOrNone = Annotated[
    Learnt | None,
    about("when and of what it was learnt; null where it is not, and `reason` says why"),
]


class Predictions(Struct, frozen=True, kw_only=True):
    """What is to be expected of a customer."""

    estimated_ltv_cents: Annotated[
        int | None,
        or_null(
            cents("net revenue so far, and what the next 36 months are expected to bring"),
            _TOO_LITTLE_HISTORY,
        ),
    ]
    next_purchase_probability: Annotated[
        float | None,
        about(
            "that a live contract lives until its next bill; else of an order within 90 days; 0 to 1; "
            f"null {_TOO_LITTLE_HISTORY}"
        ),
    ]
    next_purchase_predicted_date: Annotated[
        Day | None,
        or_null(
            day("a live contract's next bill date; else the day by which an order is as likely as not"),
            _TOO_LITTLE_HISTORY,
        ),
    ]
    churn_risk_score: ChurnRisk
    recommended_actions: Annotated[list[str], about("what the rulebook says to do, each with its rule")]
    learnt: LearntOrNone
    basis: Annotated[Bases, about("how each of the figures was made")]


class ChurnScore(Struct, frozen=True, kw_only=True):
    """How good the churn risks of some customers were."""

    n: Annotated[int, about("how many were predicted")]
    churned: Annotated[int | None, about("how many left; null of none")]
    mean_predicted: Annotated[float | None, about("mean predicted risk; null of none")]
    naive: Annotated[float | None, about("mean naive risk; null of none")]
    brier: Annotated[float | None, about("mean square of risk less outcome: 0 is perfect; null of none")]
    brier_naive: Annotated[float | None, about("the same of the naive guess; null of none")]
    skill: Annotated[
        float | None,
        about("1 − brier ÷ brier_naive; null where the naive guess is perfect, or of none"),
    ]
    reason: Reason


class ChurnScores(Struct, frozen=True, kw_only=True):
    """How good the churn risks were, by kind of customer."""

    tenure: Annotated[ChurnScore, about("live contracts")]
    gap: Annotated[ChurnScore, about("everybody else")]
    all: Annotated[ChurnScore, about("both; the naive guess is that of each one's kind")]


class RevenueScore(Struct, frozen=True, kw_only=True):
    """How good the expected revenue of some customers was."""

    n: Annotated[int, about("how many were predicted")]
    predicted_cents: Annotated[int | None, or_null(cents("expected of all together"), _OF_NONE)]
    actual_cents: Annotated[int | None, or_null(cents("paid by all together"), _OF_NONE)]
    mae_cents: Annotated[int | None, or_null(cents("mean absolute error a customer"), _OF_NONE)]
    mae_naive_cents: Annotated[int | None, or_null(cents("the same of the naive guess"), _OF_NONE)]


class RevenueScores(Struct, frozen=True, kw_only=True):
    """How good the expected revenue was, by kind of customer."""

    tenure: Annotated[RevenueScore, about("live contracts")]
    gap: Annotated[RevenueScore, about("everybody else")]
    all: Annotated[RevenueScore, about("both; the naive guess is that of each one's kind")]


class CalibrationBin(Struct, frozen=True, kw_only=True):
    """The customers with a predicted churn risk in a range."""

    from_: Annotated[float, about("the least predicted risk")] = field(name="from")
    to: Annotated[float, about("the most")]
    n: Annotated[int, about("how many")]
    predicted: Annotated[float | None, about("mean predicted risk; null of none")]
    observed: Annotated[float | None, about("part of them that left; null of none")]


class Unpredicted(Struct, frozen=True, kw_only=True):
    """Customers without an estimate."""

    n: Annotated[int, about("how many had no estimate")]
    reasons: Annotated[dict[str, int], about("how many by reason")]


class Backtest(Struct, frozen=True, kw_only=True):
    """How well the model would have predicted the days before it was fitted."""

    success: Success
    currency: Currency
    learnt: LearntOrNone
    day: Annotated[Day | None, or_null(day("the last day known"), _UNFITTED)]
    cut: Annotated[Day | None, or_null(day("the day up to which it was learnt"), _UNFITTED)]
    hidden_days: Annotated[int | None, about(f"how many days were hidden; null {_UNFITTED}")]
    churn: Annotated[ChurnScores | None, about(f"who left, against the probabilities; null {_UNFITTED}")]
    unpredicted: Annotated[Unpredicted | None, about(f"customers who had no estimate; null {_UNFITTED}")]
    calibration: Annotated[
        list[CalibrationBin] | None, about(f"ten bins of predicted churn risk; null {_UNFITTED}")
    ]
    revenue: Annotated[
        RevenueScores | None, about(f"what they paid, against what was expected; null {_UNFITTED}")
    ]
    reason: Reason


class _ModelVersion(Struct, kw_only=True):
    """The day and the ledger position of a fitted model."""

    day: int
    position: int = 0


class _StoredBacktest(_ModelVersion, kw_only=True):
    """A backtest as the worker stores it."""

    cut: int
    hidden_days: int
    churn: ChurnScores
    unpredicted: Unpredicted
    calibration: list[CalibrationBin]
    revenue: RevenueScores


def expectations(view: View, customer: Customer) -> Predictions:
    """Predictions, and the rulebook's recommended actions; without a model, nulls and the reason."""
    model = read_model(view)
    predictions = (
        predict.predict(facts_of(customer, view.scope.today), model)
        if model
        else _no_predictions(_missing_model_reason(view))
    )
    actions = recommend(view, customer, predictions.churn_risk_score, "action")
    return Predictions(
        **{name: getattr(predictions, name) for name in _FIGURES},
        recommended_actions=[f"{action.text} ({action.rule})" for action in actions],
        learnt=Learnt(on=_iso(model.day), position=model.position) if model else None,
        basis=convert(predictions.basis, Bases, from_attributes=True),
    )


def _no_predictions(reason: str) -> predict.Predictions:
    basis = predict.Basis(reason=reason)
    return predict.Predictions(**dict.fromkeys(_FIGURES), basis=dict.fromkeys(_FIGURES, basis))


def _missing_model_reason(view: View) -> str:
    document = view.stored_model("model")
    if document is None:
        return f"nothing is learnt of {view.scope.currency} yet: the worker does so soon after it starts"
    fitted_on = _iso(json.decode(document, type=_ModelVersion).day)
    return f"it was learnt on {fitted_on}; what was to be expected of an earlier day is not kept"


def _iso(ordinal: int) -> str:
    return date.fromordinal(ordinal).isoformat()


def backtest(view: View) -> Backtest:
    """How well the model would have predicted the days before it was fitted; without one, nulls and why."""
    body = view.stored_model("backtest")
    stored = json.decode(body, type=_StoredBacktest) if body is not None else None
    return Backtest(
        success=True,
        currency=view.scope.currency,
        learnt=Learnt(on=_iso(stored.day), position=stored.position) if stored else None,
        day=_iso(stored.day) if stored else None,
        cut=_iso(stored.cut) if stored else None,
        hidden_days=stored.hidden_days if stored else None,
        churn=stored.churn if stored else None,
        unpredicted=stored.unpredicted if stored else None,
        calibration=stored.calibration if stored else None,
        revenue=stored.revenue if stored else None,
        reason=None if stored else _missing_model_reason(view),
    )

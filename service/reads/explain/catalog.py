"""The reads whose figures can be explained, by the name with which an address begins: one line each."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from service.books.view import View
from service.reads.catalog import READS
from service.reads.compare import COMPARE
from service.reads.explain import (
    compare,
    contracts,
    customer_lists,
    customers,
    forecasts,
    metrics,
    months,
    mrr,
    predictions,
)
from service.reads.explain.rows import Explainer
from service.reads.months import month_summary
from service.reads.parameters import LOOK_BACK, Parameter, text
from service.reads.read import BookRead

_Answer = Callable[[View, dict[str, Any]], Struct]
_CUSTOMER_PARAMETERS = (
    text("customer_id", "the customer, of the reads about one and of mrr"),
    text("processor", "whose customer, where several processors have one of this id"),
)


class ExplainableRead(Struct, frozen=True, kw_only=True):
    """A read whose figures can be explained; `default` is the pointer used when an address has none.

    `rows` is the list of which `limit` gives a page. `fixed` are parameters that are always set, and `needed`
    those that the first part of a pointer needs, so that the document contains the figure. `without_list` is
    the name of the document's long list, and a function that makes the document without it, for figures
    outside it.
    """

    path: str
    answer: _Answer
    parameters: tuple[Parameter, ...]
    figures: Mapping[str, Explainer]
    rows: str = ""
    default: str = ""
    fixed: Mapping[str, str] = {}
    needed: Mapping[str, Mapping[str, str]] = {}
    without_list: tuple[str, _Answer] | None = None

    @property
    def looks_back(self) -> bool:
        """Whether its figures can be explained as they were known."""
        return any(parameter is LOOK_BACK[0] for parameter in self.parameters)


def _explainable(
    path: str,
    figures: Mapping[str, Explainer],
    default: str = "",
    needed: Mapping[str, Mapping[str, str]] = {},
    **fixed: str,
) -> ExplainableRead:
    read: BookRead = next(read for read in READS if read.path == path)
    customer_parameters = _CUSTOMER_PARAMETERS[:1] if "{customer_id}" in path else ()
    return ExplainableRead(
        path=path,
        answer=read.answer,
        parameters=(*customer_parameters, *read.parameters),
        figures=figures,
        rows=read.rows,
        default=default,
        fixed=fixed,
        needed=needed,
    )


_ANALYTICS = "/api/payment/analytics"
_ONE = f"{_ANALYTICS}/customers/{{customer_id}}"
_ORDERS = {"detail": "orders"}
EXPLAINABLE: dict[str, ExplainableRead] = {
    "month-detail": replace(
        _explainable("/api/v1/revenue/month-detail", months.MONTH_DETAIL, "summary/total_cents"),
        without_list=("payments", lambda view, args: month_summary(view, args["year"], args["month"])),
    ),
    "current-month": _explainable(
        "/api/v1/revenue/current-month", months.CURRENT_MONTH, "summary/total_cents"
    ),
    "quarterly-forecast": _explainable("/api/v1/revenue/quarterly-forecast", forecasts.QUARTERLY),
    "annual-forecast": _explainable("/api/v1/revenue/annual-forecast", forecasts.ANNUAL, "total_cents"),
    "monthly-totals": _explainable(
        "/api/v1/revenue/monthly-totals", months.MONTHLY_TOTALS, needed={"cash": {"detail": "cash"}}
    ),
    "upcoming": _explainable("/api/v1/upcoming", months.UPCOMING_BILLS, "total_cents"),
    "contracts": _explainable("/api/v1/contracts", contracts.CONTRACTS),
    "mrr": _explainable("/api/v1/mrr", mrr.MRR, "mrr_cents"),
    "movements": _explainable(
        "/api/v1/mrr/movements", mrr.MOVEMENTS, needed={"movements": {"detail": "customers"}}
    ),
    "metrics": _explainable("/api/v1/metrics", metrics.METRICS),
    "compare": ExplainableRead(
        path=COMPARE.path,
        answer=compare.differences,
        parameters=COMPARE.parameters,
        figures=compare.COMPARE,
        rows=COMPARE.rows,
        default="difference_cents",
    ),
    "customers-top": _explainable(f"{_ANALYTICS}/customers/top", customer_lists.TOP),
    "customers-at-risk": _explainable(f"{_ANALYTICS}/customers/at-risk", customer_lists.AT_RISK),
    "cohorts": _explainable(f"{_ANALYTICS}/cohorts", customer_lists.COHORTS),
    "distribution": _explainable(f"{_ANALYTICS}/distribution", customer_lists.DISTRIBUTION, "revenue_cents"),
    "purchase-frequency": _explainable(
        f"{_ANALYTICS}/purchase-frequency", customer_lists.PURCHASE_FREQUENCY, "revenue_cents"
    ),
    "dashboard": _explainable(
        f"{_ANALYTICS}/dashboard", customer_lists.DASHBOARD, "total_customer_value_cents"
    ),
    "customer-revenue": _explainable(
        f"{_ONE}/revenue",
        {**customers.REVENUE, **predictions.PREDICTIONS},
        "revenue_summary/net_revenue_cents",
        {"orders": _ORDERS, "reversals": _ORDERS, "predictions": {"include_predictions": "true"}},
        breakdown="monthly,quarterly,by_product",
        include_predictions="false",
    ),
    "customer-forecast": _explainable(f"{_ONE}/forecast", predictions.FORECAST, "annual/expected_cents"),
    "customer-opportunities": _explainable(f"{_ONE}/opportunities", predictions.OPPORTUNITIES),
}
CUSTOMER_MRR = ExplainableRead(
    path="/api/v1/mrr",
    answer=mrr.customer_mrr,
    parameters=(*_CUSTOMER_PARAMETERS, *EXPLAINABLE["mrr"].parameters),
    figures=mrr.CUSTOMER_MRR,
    default="mrr_cents",
)

# Parameters that the address of a figure decides, and those of the request itself.
_DECIDED = {"limit", "cursor", "detail", "breakdown", "include_predictions", "position", "known_at"}


def _read_parameters() -> tuple[Parameter, ...]:
    reads_by_parameter: dict[str, list[str]] = {}
    for name, read in EXPLAINABLE.items():
        for parameter in read.parameters:
            reads_by_parameter.setdefault(parameter.name, []).append(name)
    own = {parameter.name: parameter for parameter in _CUSTOMER_PARAMETERS}
    return tuple(
        own.get(name) or text(name, f"as in {', '.join(reads)}")
        for name, reads in reads_by_parameter.items()
        if name not in _DECIDED
    )


READ_PARAMETERS = _read_parameters()
"""The parameters that a request for a figure may pass on to its read, which parses them."""

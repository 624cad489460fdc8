"""The reads: one line each. The API serves them; the worker keeps the precomputed ones ready."""

from calendar import month_name
from datetime import date, timedelta
from typing import Any

from msgspec.structs import replace

from projections.mrr import MOVEMENT_KINDS
from service.books.view import DEFAULT_POLICY, View
from service.core.errors import ParameterError
from service.reads import forecast, inferred_share, lists, metrics, monthly_totals, months
from service.reads import mrr as mrr_reads
from service.reads.customers.catalog import CUSTOMER_READS
from service.reads.parameters import (
    LOOK_BACK,
    check_range,
    choice,
    choices,
    cursor,
    day,
    flag,
    integer,
    last_of_month,
    month_end,
    month_start,
    months_back,
    text,
)
from service.reads.read import BookRead

_YEARS_AHEAD = 10  # how far a forecast goes


def _current_month(view: View, _args: dict[str, Any]) -> months.CurrentMonth:
    return months.month_summary(view, view.scope.today.year, view.scope.today.month)


def _month_detail(view: View, args: dict[str, Any]) -> months.MonthDetail:
    _check_year(view, args["year"])
    return months.month_detail(view, args["year"], args["month"])


def _quarters(view: View, args: dict[str, Any]) -> forecast.QuarterlyForecast:
    return forecast.quarters(view, args["quarters"])


def _year(view: View, args: dict[str, Any]) -> forecast.AnnualForecast:
    _check_year(view, args["year"])
    return forecast.year(view, args["year"])


def _check_year(view: View, year: int) -> None:
    """Raise ParameterError for a year of which no forecast is made."""
    if year > view.scope.today.year + _YEARS_AHEAD:
        raise ParameterError(f"year: at most {_YEARS_AHEAD} years after that of `today`")


def _totals(view: View, args: dict[str, Any]) -> monthly_totals.MonthlyTotals:
    check_range(args["from"], args["to"])
    with_cash = args["detail"] == "cash"
    return monthly_totals.monthly_totals(view, args["from"], args["to"], with_cash=with_cash)


def _mrr(view: View, args: dict[str, Any]) -> mrr_reads.Mrr:
    return mrr_reads.mrr(view.with_policy(args["policy"]))


def _metrics(view: View, args: dict[str, Any]) -> metrics.Metrics:
    check_range(args["from"], args["to"])
    return metrics.metrics(view.with_policy(args["policy"]), args["from"], args["to"], args["by"])


def _movements(view: View, args: dict[str, Any]) -> mrr_reads.Movements:
    check_range(args["from"], args["to"])
    if args["kind"] and not args["detail"]:
        raise ParameterError("kind: only with detail=customers, of whose movements it chooses some")
    return mrr_reads.movements(
        view.with_policy(args["policy"]),
        args["from"],
        args["to"],
        args["by"],
        with_customers=args["detail"] == "customers",
        kinds=args["kind"] or MOVEMENT_KINDS,
    )


def _upcoming(view: View, args: dict[str, Any]) -> lists.Upcoming:
    check_range(args["from"], args["to"])
    return lists.upcoming(view, args["from"], args["to"], with_forecast=args["forecast"])


def _contracts(view: View, args: dict[str, Any]) -> lists.Contracts:
    asked = lists.ContractPage(
        status=args["status"], overdue=args["overdue"], limit=args["limit"], after=args["cursor"]
    )
    return lists.contracts(view, asked)


def _this_year(today: date) -> int:
    return today.year


_YEAR = integer("year", _this_year, 1970, 2999, "the year, by default this one")
_FROM = month_start(
    "from", lambda today: months_back(today, 11), "the first month, by default eleven before this one"
)
_TO = month_end("to", last_of_month, "the last month, by default this one")
_POLICY = replace(
    text("policy", "the policy of what counts, of those in the rulebook"), default=lambda _: DEFAULT_POLICY
)

READS = (
    *CUSTOMER_READS,
    BookRead(
        path="/api/v1/revenue/current-month",
        summary="The month that holds today: summary, weeks, days and the ten largest bills",
        answer=_current_month,
        shape=months.CurrentMonth,
        rows="days",
        parameters=LOOK_BACK,
        precomputed=True,
    ),
    BookRead(
        path="/api/v1/revenue/month-detail",
        summary="One month's bills in full",
        answer=_month_detail,
        shape=months.MonthDetail,
        rows="payments",
        file_name=lambda args: f"{month_name[args['month']].lower()}_collections_{args['year']}",
        parameters=(
            _YEAR,
            integer("month", lambda today: today.month, 1, 12, "the month, by default this one"),
            *LOOK_BACK,
        ),
        precomputed=True,
    ),
    BookRead(
        path="/api/v1/revenue/quarterly-forecast",
        summary="Billed and coming by quarter, from the one that holds today",
        answer=_quarters,
        shape=forecast.QuarterlyForecast,
        rows="quarters",
        parameters=(integer("quarters", lambda _: 4, 1, 20, "how many quarters"),),
    ),
    BookRead(
        path="/api/v1/revenue/annual-forecast",
        summary="Billed and coming by month of a year",
        answer=_year,
        shape=forecast.AnnualForecast,
        rows="months",
        parameters=(
            integer("year", _this_year, 1970, 2999, "the year, by default this one, at most ten ahead"),
        ),
    ),
    BookRead(
        path="/api/v1/revenue/monthly-totals",
        summary="Billed, collected, refunded, disputed and open by month",
        answer=_totals,
        shape=monthly_totals.MonthlyTotals,
        rows="months",
        rows_of_detail={"cash": "cash"},
        parameters=(
            _FROM,
            _TO,
            choice("detail", None, ("cash",), "with the payments, refunds and disputes behind the months"),
            *LOOK_BACK,
        ),
        precomputed=True,
    ),
    BookRead(
        path="/api/v1/mrr",
        summary="Monthly recurring revenue at the end of today",
        answer=_mrr,
        inferred_share=inferred_share.of_mrr,
        shape=mrr_reads.Mrr,
        rows="by_schedule",
        parameters=(_POLICY, *LOOK_BACK),
        precomputed=True,
    ),
    BookRead(
        path="/api/v1/mrr/movements",
        summary="What moved MRR, by month or day",
        answer=_movements,
        inferred_share=inferred_share.of_movements,
        shape=mrr_reads.Movements,
        rows="periods",
        rows_of_detail={"customers": "movements"},
        commented="movements",
        parameters=(
            _FROM,
            _TO,
            choice("by", "month", ("month", "day"), "the length of a period"),
            choice("detail", None, ("customers",), "with the customers' movements behind the periods"),
            replace(
                choices("kind", "", MOVEMENT_KINDS, "of the customers' movements only those of these kinds"),
                default=lambda _: None,
            ),
            _POLICY,
            *LOOK_BACK,
        ),
        precomputed=True,
    ),
    BookRead(
        path="/api/v1/metrics",
        summary="Churn, retention, quick ratio, lifetime value and failed payments by month, quarter or year",
        answer=_metrics,
        inferred_share=inferred_share.of_metrics,
        shape=metrics.Metrics,
        rows="periods",
        parameters=(
            replace(_FROM, description=f"{_FROM.description}; its whole period is listed"),
            replace(_TO, description=f"{_TO.description}; its whole period is listed"),
            choice("by", "month", tuple(metrics.PERIODS), "the length of a period"),
            _POLICY,
        ),
    ),
    BookRead(
        path="/api/v1/upcoming",
        summary="Next bills between two days, by default in the next 30",
        answer=_upcoming,
        shape=lists.Upcoming,
        rows="payments",
        parameters=(
            day("from", lambda today: today, "the first day, by default today"),
            day("to", lambda today: today + timedelta(days=30), "the last day, by default 30 days on"),
            flag("forecast", default=False, description="with the bills that are only forecast"),
            *LOOK_BACK,
        ),
    ),
    BookRead(
        path="/api/v1/contracts",
        summary="The contracts by customer, a page at a time",
        answer=_contracts,
        shape=lists.Contracts,
        rows="contracts",
        parameters=(
            text("status", "only contracts of this status, in any case"),
            flag("overdue", default=False, description="only those that `meta.overdue_contracts` counts"),
            integer("limit", lambda _: 100, 1, 1000, "contracts a page"),
            cursor(),
        ),
    ),
)

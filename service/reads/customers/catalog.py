"""The reads about customers: one line each."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from service.books.view import View
from service.reads.customers import customer, expectations, forecast, lists, opportunities, revenue
from service.reads.customers.classes import SEGMENTS
from service.reads.parameters import (
    Parameter,
    check_range,
    choice,
    choices,
    cursor,
    flag,
    integer,
    last_of_month,
    month_end,
    month_start,
    months_back,
    text,
)
from service.reads.read import BookRead

_PATH = "/api/payment/analytics"
_SORTED = (
    choice("sort", "revenue", tuple(lists.SORTS), "what they are ordered by"),
    choice("order", "desc", ("desc", "asc"), "which way"),
)
_PROCESSOR = text("processor", "whose customer, where several processors have one of this id")


def _find_customer(view: View, args: dict[str, Any]) -> customer.Customer:
    return customer.find(view, args["customer_id"], args["processor"])


def _revenue(view: View, args: dict[str, Any]) -> revenue.CustomerRevenue:
    return revenue.revenue(
        view,
        _find_customer(view, args),
        args["period"],
        args["breakdown"],
        with_predictions=args["include_predictions"],
        with_orders=args["detail"] == "orders",
    )


def _forecast(view: View, args: dict[str, Any]) -> forecast.CustomerForecast:
    return forecast.forecast(view, _find_customer(view, args), args["months"])


def _opportunities(view: View, args: dict[str, Any]) -> opportunities.Opportunities:
    return opportunities.opportunities(view, _find_customer(view, args))


def _top(view: View, args: dict[str, Any]) -> lists.TopCustomers:
    return lists.top(view, _page_request(args))


def _at_risk(view: View, args: dict[str, Any]) -> lists.CustomersAtRisk:
    return lists.at_risk(view, args["segments"], args["by"], args["stage"], _page_request(args))


def _page_request(args: dict[str, Any]) -> lists.PageRequest:
    return lists.PageRequest(
        sort=args["sort"], order=args["order"], limit=args["limit"], after=args["cursor"]
    )


def _cohorts(view: View, args: dict[str, Any]) -> lists.Cohorts:
    check_range(args["from"], args["to"])
    return lists.cohorts(view, args["from"], args["to"])


def _distribution(view: View, _args: dict[str, Any]) -> lists.Distribution:
    return lists.distribution(view)


def _frequency(view: View, _args: dict[str, Any]) -> lists.PurchaseFrequency:
    return lists.purchase_frequency(view)


def _dashboard(view: View, _args: dict[str, Any]) -> lists.Dashboard:
    return lists.dashboard(view)


def _backtest(view: View, _args: dict[str, Any]) -> expectations.Backtest:
    return expectations.backtest(view)


def _read(
    path: str,
    summary: str,
    answer: Callable[[View, dict[str, Any]], Struct],
    shape: type[Struct],
    rows: str,
    *parameters: Parameter,
    precomputed: bool = False,
    rows_of_detail: Mapping[str, str] = MappingProxyType({}),
    commented: str = "",
) -> BookRead:
    return BookRead(
        path=f"{_PATH}/{path}",
        summary=summary,
        answer=answer,
        shape=shape,
        rows=rows,
        rows_of_detail=rows_of_detail,
        parameters=parameters,
        precomputed=precomputed,
        commented=commented,
        dated=False,
    )


CUSTOMER_READS = (
    _read(
        "customers/top",
        "Customers by revenue, or by another measure, a page at a time",
        _top,
        lists.TopCustomers,
        "customers",
        *_SORTED,
        integer("limit", lambda _: 10, 1, 1000, "customers a page"),
        cursor(),
        precomputed=True,
    ),
    _read(
        "customers/at-risk",
        "Customers whose last purchase is 60 to 120 days ago, those with the most revenue first",
        _at_risk,
        lists.CustomersAtRisk,
        "customers",
        choices("segments", ",".join(SEGMENTS), SEGMENTS, "only customers of these segments"),
        choice("by", "lifecycle", ("lifecycle", "activity"), "60 to 120 days without a purchase, or over 90"),
        choice("stage", "at_risk", ("at_risk", "churned"), "about to go, or gone"),
        *_SORTED,
        integer("limit", lambda _: 50, 1, 1000, "customers a page"),
        cursor(),
        commented="customers",
    ),
    _read(
        "cohorts",
        "Customers by the month of their first purchase, and how many of them bought in each month since",
        _cohorts,
        lists.Cohorts,
        "cohorts",
        month_start(
            "from", lambda today: months_back(today, 11), "the first cohort, by default eleven months back"
        ),
        month_end("to", last_of_month, "the last cohort, by default this month's"),
        precomputed=True,
    ),
    _read(
        "distribution",
        "Customers and revenue by segment, with shares",
        _distribution,
        lists.Distribution,
        "segments",
        precomputed=True,
    ),
    _read(
        "purchase-frequency",
        "Customers and revenue by the average days between purchases",
        _frequency,
        lists.PurchaseFrequency,
        "frequencies",
        precomputed=True,
    ),
    _read(
        "dashboard",
        "What customers are worth altogether, who they are, and how that changes",
        _dashboard,
        lists.Dashboard,
        "monthly_trend",
        precomputed=True,
    ),
    _read(
        "predictions/backtest",
        "How good the predictions would have been for the last months, beside a naive guess",
        _backtest,
        expectations.Backtest,
        "",
    ),
    _read(
        "customers/{customer_id}/revenue",
        "One customer's revenue, breakdowns and predictions",
        _revenue,
        revenue.CustomerRevenue,
        "",
        choice("period", "all_time", tuple(revenue.PERIODS), "which orders count, up to today"),
        flag("include_predictions", default=True, description="with predictions"),
        choices("breakdown", "monthly,by_product", revenue.BREAKDOWNS, "what it is broken down by"),
        choice("detail", None, ("orders",), "with every order and reversal of the period"),
        _PROCESSOR,
        rows_of_detail={"orders": "orders"},
    ),
    _read(
        "customers/{customer_id}/forecast",
        "What a customer is expected to pay, by month",
        _forecast,
        forecast.CustomerForecast,
        "monthly",
        integer("months", lambda _: 12, 1, 36, "how many months ahead"),
        _PROCESSOR,
    ),
    _read(
        "customers/{customer_id}/opportunities",
        "What the rulebook recommends to offer a customer",
        _opportunities,
        opportunities.Opportunities,
        "opportunities",
        _PROCESSOR,
    ),
)

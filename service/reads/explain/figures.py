"""A figure by its address, and what it is made of.

An address is the name of a read and a JSON pointer (RFC 6901) into its answer:
`month-detail/summary/total_cents`, `month-detail/payments/0/amount_cents`. In a list, what tells a row
apart can stand in place of its number: `month-detail/days/date=2025-11-13/total_cents`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from service.books.view import View
from service.core.errors import NotFound, ParameterError
from service.reads.catalog import READS
from service.reads.explain import customers, months, mrr
from service.reads.explain.rows import Asked, Explain, page
from service.reads.months import month_summary
from service.reads.parameters import Parameter, parse_all, text
from service.reads.read import Answer

_WHOSE = (
    text("customer_id", "the customer, of customer-revenue and mrr"),
    text("processor", "whose customer, where several processors have one of this id"),
)
# What a figure may be asked for with; its own read parses it.
PASSED = (
    *_WHOSE,
    *(
        text(name, f"as {reads} takes it")
        for name, reads in (
            ("year", "month-detail"),
            ("month", "month-detail"),
            ("from", "monthly-totals, movements or upcoming"),
            ("to", "monthly-totals, movements or upcoming"),
            ("by", "movements"),
            ("period", "customer-revenue"),
            ("policy", "mrr or movements"),
        )
    ),
)
_DETAIL = {"movements": "customers", "cash": "cash", "orders": "orders", "reversals": "orders"}


class _Told(Struct, frozen=True, kw_only=True):
    """A document whose figures can be taken apart; `default` is the one meant without a pointer, if any is.

    `fixed` are the parameters that make the document whole, whoever asks. `without_list` names its long list
    and makes the document without it, for the figures outside of that list.
    """

    path: str
    answer: Answer
    parameters: tuple[Parameter, ...]
    default: str
    figures: Mapping[str, Explain]
    fixed: Mapping[str, str]
    without_list: tuple[str, Answer] | None = None


def _told(path: str, default: str, figures: Mapping[str, Explain], **fixed: str) -> _Told:
    read = next(each for each in READS if each.path == path)
    of_one = _WHOSE[:1] if "{customer_id}" in path else ()
    return _Told(
        path=path,
        answer=read.answer,
        parameters=(*of_one, *read.parameters),
        default=default,
        figures=figures,
        fixed=fixed,
    )


_REVENUE = "/api/payment/analytics/customers/{customer_id}/revenue"
_BREAKDOWN = "monthly,quarterly,by_product"
TOLD: dict[str, _Told] = {
    "month-detail": replace(
        _told("/api/v1/revenue/month-detail", "summary/total_cents", months.MONTH_DETAIL),
        without_list=("payments", lambda view, args: month_summary(view, args["year"], args["month"])),
    ),
    "current-month": _told("/api/v1/revenue/current-month", "summary/total_cents", months.CURRENT_MONTH),
    "monthly-totals": _told("/api/v1/revenue/monthly-totals", "", months.MONTHLY_TOTALS),
    "upcoming": _told("/api/v1/upcoming", "total_cents", months.UPCOMING_BILLS),
    "mrr": _told("/api/v1/mrr", "mrr_cents", mrr.MRR),
    "movements": _told("/api/v1/mrr/movements", "", mrr.MOVEMENTS),
    "customer-revenue": _told(
        _REVENUE,
        "revenue_summary/net_revenue_cents",
        customers.REVENUE,
        breakdown=_BREAKDOWN,
        include_predictions="false",
    ),
}
_MRR_OF_ONE = _Told(
    path="/api/v1/mrr",
    answer=mrr.customers_mrr,
    parameters=(*_WHOSE, *TOLD["mrr"].parameters),
    default="mrr_cents",
    figures=mrr.CUSTOMERS_MRR,
    fixed={},
)


def explain(
    view: View, figure: str, given: Mapping[str, str], offset: int, limit: int | None
) -> dict[str, Any]:
    """The figure's value, and a page of the rows behind it.

    `given` are the read's own parameters. Raises ParameterError for what is no figure, or no parameter of
    its read; NotFound where the answer holds no such row.
    """
    name, _, pointer = figure.partition("/")
    told = _MRR_OF_ONE if name == "mrr" and "customer_id" in given else TOLD.get(name)
    if told is None:
        raise ParameterError(f"figure: {name}/… can't be explained; there are {', '.join(sorted(TOLD))}")
    path = [_unescaped(token) for token in (pointer or told.default).split("/")]
    args = _args(view, name, told, given, path[0])
    view = view.with_policy(args["policy"]) if "policy" in args else view
    answer = told.without_list[1] if told.without_list and path[0] != told.without_list[0] else told.answer
    document = answer(view, args)
    row, place = _held(document, name, path)
    found = _explainer(name, told, place)(
        Asked(view=view, args=args, document=document, row=row, name=path[-1])
    )
    shown = page(view, found.rows, offset, limit)
    after = offset + len(shown.rows)
    return {
        "figure": f"{name}/{pointer or told.default}",
        "read": told.path,
        "of": {key: value for key, value in row.items() if isinstance(value, str)},
        "currency": view.scope.currency,
        "value": row[path[-1]],
        "formula": found.formula or found.counting,
        "terms": found.terms,
        "sum": shown.total,
        "adds_up": None if found.formula else shown.total == row[path[-1]],
        "count": shown.count,
        "rows": shown.rows,
        "next_cursor": str(after) if after < shown.count else None,
    }


def _unescaped(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")


def _args(view: View, name: str, told: _Told, given: Mapping[str, str], head: str) -> dict[str, Any]:
    """The read's parameters: those given, and those that make its document hold the figure."""
    known = {each.name for each in told.parameters} & {each.name for each in PASSED}
    if unknown := set(given) - known:
        raise ParameterError(
            f"{min(unknown)}: no such parameter of {name}, which takes {', '.join(sorted(known))}"
        )
    detail = {"detail": _DETAIL[head]} if head in _DETAIL else {}
    args = parse_all(told.parameters, {**detail, **told.fixed, **given}, view.scope.today)
    if args.get("customer_id", "") is None:
        raise ParameterError("customer_id: the customer whose figure it is")
    return args


def _held(document: dict[str, Any], name: str, path: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The object that holds the figure, and its place in any such document, "days/*/total_cents".

    Raises NotFound where a list has no such row; what is no object is one without fields.
    """
    held: Any = document
    place = []
    for token in path[:-1]:
        place.append("*" if isinstance(held, list) else token)
        if isinstance(held, list):
            held = _row(held, token, name)
        else:
            held = held.get(token) if isinstance(held, dict) else None
    return held if isinstance(held, dict) else {}, "/".join((*place, path[-1]))


def _row(rows: list[Any], token: str, name: str) -> Any:
    """The one row that a token of an address tells: by its number, or by its fields."""
    if token.isascii() and token.isdigit() and len(token) < 10:
        found = rows[int(token) :][:1]
    else:
        wanted = [part.partition("=")[::2] for part in token.split(",")]
        found = [
            row for row in rows if isinstance(row, dict) and all(str(row.get(k)) == v for k, v in wanted)
        ]
    if len(found) != 1:
        raise NotFound(f"figure: {len(found) or 'no'} rows of this answer of {name} are {token}")
    return found[0]


def _explainer(name: str, told: _Told, place: str) -> Explain:
    if place not in told.figures:
        raise ParameterError(f"figure: of {name} there are {', '.join(told.figures)}")
    return told.figures[place]

"""Explains a figure, given by its address: its value, and the rows behind it.

An address is the name of a read and a JSON pointer (RFC 6901) into its answer:
`month-detail/summary/total_cents`, `month-detail/payments/0/amount_cents`. In a list, fields that identify a
row can replace its number: `month-detail/days/date=2025-11-13/total_cents`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from service.books.view import View
from service.core.errors import NotFound, ParameterError
from service.reads.answers import Currency, Moment, NextCursor, Trust, about, moment, or_null
from service.reads.catalog import READS
from service.reads.explain import customers, months, mrr
from service.reads.explain.rows import ExplainedRow, Explainer, Figure, page
from service.reads.months import month_summary
from service.reads.parameters import Parameter, cursor, integer, parse_all, text, to_cursor
from service.reads.read import Read

_Answer = Callable[[View, dict[str, Any]], Struct]
_CUSTOMER_PARAMETERS = (
    text("customer_id", "the customer, of customer-revenue and mrr"),
    text("processor", "whose customer, where several processors have one of this id"),
)
# The parameters that a request for a figure may pass on to its read, which parses them.
READ_PARAMETERS = (
    *_CUSTOMER_PARAMETERS,
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


class ProvedDelivery(Struct, frozen=True, kw_only=True):
    """A delivery, its signature checked again."""

    position: Annotated[int, about("position of the delivery's first event")]
    method: Annotated[
        str | None, about("how it was verified, such as stripe-signature; null where its bytes are gone")
    ]
    received_at: Annotated[Moment | None, or_null(moment("when it came"), "where its bytes are gone")]
    signed_at: Annotated[Moment | None, or_null(moment("the signed time"), "where the method signs none")]
    body_bytes: Annotated[int | None, about("how long the raw body is; null where its bytes are gone")]
    verified: Annotated[
        bool | None,
        about(
            "whether the signature over the raw bytes still proves them, by the secrets that are "
            "configured now; null where it can't be checked"
        ),
    ]
    why: Annotated[str | None, about("why it is not verified; null where it is")]


class Cause(Struct, frozen=True, kw_only=True):
    """An event behind a figure."""

    cause: Annotated[str, about('the event\'s name in `causes`, such as "stripe:evt_1"')]
    position: Annotated[int, about("its position in the ledger")]
    account: Annotated[str, about("the processor's account that it belongs to; empty for the only one")]
    type: Annotated[str, about("the event's type in the ledger's words")]
    occurred_at: Annotated[Moment, moment("when it happened")]
    recorded_at: Annotated[Moment, moment("when it was recorded")]
    trust: Trust
    link: Annotated[str, about("where the event and its raw bytes are")]
    delivery: Annotated[ProvedDelivery, about("what it came in, its signature checked again")]


class ExplainedFigure(Struct, frozen=True, kw_only=True):
    """A figure, and the rows and events that made it."""

    figure: Annotated[str, about("its address: a read, and a JSON pointer into its answer")]
    read: Annotated[str, about("the read that shows it")]
    of: Annotated[
        dict[str, str], about("the texts beside it in that read's answer, which identify the figure")
    ]
    currency: Currency
    value: Annotated[
        int | float | None,
        about("the figure as the read shows it; amounts in minor units of `currency`"),
    ]
    formula: Annotated[
        str | None,
        about(
            "how the value follows from `sum` and `terms`, or what is counted; null where it is a plain sum"
        ),
    ]
    terms: Annotated[dict[str, int | float | None], about("the other figures in the formula")]
    sum: Annotated[int, about("what all rows contribute, on all pages")]
    adds_up: Annotated[
        bool | None,
        about("whether the value is `sum`, as it should be; null where it is made by the formula"),
    ]
    count: Annotated[int, about("how many rows there are, on all pages")]
    rows: Annotated[list[ExplainedRow], about("a page of the rows, by date")]
    next_cursor: NextCursor
    events: Annotated[list[Cause], about("what caused the rows of this page, each once, by position")]


EXPLAIN = Read(
    path="/api/v1/explain",
    summary="What a figure is made of: rows of the books, their events, and signatures checked again",
    shape=ExplainedFigure,
    rows="rows",
    parameters=(
        replace(
            text("figure", "a read and a JSON pointer into its answer, as month-detail/summary/total_cents"),
            required=True,
        ),
        *READ_PARAMETERS,
        integer("limit", lambda _: 100, 1, 500, "rows a page"),
        cursor(),
    ),
)


class ExplainableRead(Struct, frozen=True, kw_only=True):
    """A read whose figures can be explained; `default` is the pointer used when an address has none.

    `fixed` are parameters that are always set, so that the document is complete. `without_list` is the name
    of the document's long list, and a function that makes the document without it, for figures outside it.
    """

    path: str
    answer: _Answer
    parameters: tuple[Parameter, ...]
    default: str
    figures: Mapping[str, Explainer]
    fixed: Mapping[str, str]
    without_list: tuple[str, _Answer] | None = None


def _explainable(path: str, default: str, figures: Mapping[str, Explainer], **fixed: str) -> ExplainableRead:
    read = next(read for read in READS if read.path == path)
    customer_parameters = _CUSTOMER_PARAMETERS[:1] if "{customer_id}" in path else ()
    return ExplainableRead(
        path=path,
        answer=read.answer,
        parameters=(*customer_parameters, *read.parameters),
        default=default,
        figures=figures,
        fixed=fixed,
    )


_REVENUE = "/api/payment/analytics/customers/{customer_id}/revenue"
_BREAKDOWN = "monthly,quarterly,by_product"
EXPLAINABLE: dict[str, ExplainableRead] = {
    "month-detail": replace(
        _explainable("/api/v1/revenue/month-detail", "summary/total_cents", months.MONTH_DETAIL),
        without_list=("payments", lambda view, args: month_summary(view, args["year"], args["month"])),
    ),
    "current-month": _explainable(
        "/api/v1/revenue/current-month", "summary/total_cents", months.CURRENT_MONTH
    ),
    "monthly-totals": _explainable("/api/v1/revenue/monthly-totals", "", months.MONTHLY_TOTALS),
    "upcoming": _explainable("/api/v1/upcoming", "total_cents", months.UPCOMING_BILLS),
    "mrr": _explainable("/api/v1/mrr", "mrr_cents", mrr.MRR),
    "movements": _explainable("/api/v1/mrr/movements", "", mrr.MOVEMENTS),
    "customer-revenue": _explainable(
        _REVENUE,
        "revenue_summary/net_revenue_cents",
        customers.REVENUE,
        breakdown=_BREAKDOWN,
        include_predictions="false",
    ),
}
_CUSTOMER_MRR = ExplainableRead(
    path="/api/v1/mrr",
    answer=mrr.customer_mrr,
    parameters=(*_CUSTOMER_PARAMETERS, *EXPLAINABLE["mrr"].parameters),
    default="mrr_cents",
    figures=mrr.CUSTOMER_MRR,
    fixed={},
)


def explain(
    view: View, address: str, given: Mapping[str, str], offset: int, limit: int | None
) -> ExplainedFigure:
    """The figure's value, and a page of the rows behind it, without their events.

    `given` are the parameters for the read. Raises ParameterError for an unknown figure or parameter;
    NotFound where the read's answer has no such row.
    """
    name, _, pointer = address.partition("/")
    read = _CUSTOMER_MRR if name == "mrr" and "customer_id" in given else EXPLAINABLE.get(name)
    if read is None:
        raise ParameterError(
            f"figure: {name}/… can't be explained; there are {', '.join(sorted(EXPLAINABLE))}"
        )
    path = [_unescaped(token) for token in (pointer or read.default).split("/")]
    args = _args(view, name, read, given, path[0])
    view = view.with_policy(args["policy"]) if "policy" in args else view
    make_document = (
        read.without_list[1] if read.without_list and path[0] != read.without_list[0] else read.answer
    )
    document = to_builtins(make_document(view, args))
    row, pattern = _locate(document, name, path)
    explanation = _find_explainer(name, read, pattern)(
        Figure(view=view, args=args, document=document, row=row, name=path[-1])
    )
    rows_page = page(view, explanation.sources, offset, limit)
    next_offset = offset + len(rows_page.rows)
    return ExplainedFigure(
        figure=f"{name}/{pointer or read.default}",
        read=read.path,
        of={key: value for key, value in row.items() if isinstance(value, str)},
        currency=view.scope.currency,
        value=row[path[-1]],
        formula=explanation.formula or explanation.counting,
        terms=explanation.terms,
        sum=rows_page.total,
        adds_up=None if explanation.formula else rows_page.total == row[path[-1]],
        count=rows_page.count,
        rows=rows_page.rows,
        next_cursor=to_cursor(str(next_offset)) if next_offset < rows_page.count else None,
        events=[],
    )


def _unescaped(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")


def _args(
    view: View, name: str, read: ExplainableRead, given: Mapping[str, str], first_token: str
) -> dict[str, Any]:
    """The read's arguments: the given ones, and those that make its document contain the figure."""
    known = {parameter.name for parameter in read.parameters} & {
        parameter.name for parameter in READ_PARAMETERS
    }
    if unknown := set(given) - known:
        raise ParameterError(
            f"{min(unknown)}: no such parameter of {name}, which takes {', '.join(sorted(known))}"
        )
    detail = {"detail": _DETAIL[first_token]} if first_token in _DETAIL else {}
    args = parse_all(read.parameters, {**detail, **read.fixed, **given}, view.scope.today)
    if args.get("customer_id", "") is None:
        raise ParameterError("customer_id: the customer whose figure it is")
    return args


def _locate(document: dict[str, Any], name: str, path: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The object that holds the figure, and the pattern of its address, "days/*/total_cents".

    Raises NotFound where a list has no such row. Where the path leads to no object, the object is empty.
    """
    holder: Any = document
    pattern = []
    for token in path[:-1]:
        pattern.append("*" if isinstance(holder, list) else token)
        if isinstance(holder, list):
            holder = _row(holder, token, name)
        else:
            holder = holder.get(token) if isinstance(holder, dict) else None
    return holder if isinstance(holder, dict) else {}, "/".join((*pattern, path[-1]))


def _row(rows: list[Any], token: str, name: str) -> Any:
    """The one row that a token of an address identifies: by its number, or by its fields."""
    if token.isascii() and token.isdigit() and len(token) < 10:
        matches = rows[int(token) :][:1]
    else:
        wanted = [part.partition("=")[::2] for part in token.split(",")]
        matches = [
            row for row in rows if isinstance(row, dict) and all(str(row.get(k)) == v for k, v in wanted)
        ]
    if len(matches) != 1:
        raise NotFound(f"figure: {len(matches) or 'no'} rows of this answer of {name} are {token}")
    return matches[0]


def _find_explainer(name: str, read: ExplainableRead, pattern: str) -> Explainer:
    if pattern not in read.figures:
        raise ParameterError(f"figure: of {name} there are {', '.join(read.figures)}")
    return read.figures[pattern]

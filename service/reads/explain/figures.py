"""Explains a figure, given by its address: its value, and the rows behind it.

An address is the name of a read and a JSON pointer (RFC 6901) into its answer:
`month-detail/summary/total_cents`, `month-detail/payments/0/amount_cents`. In a list, fields that identify a
row can replace its number: `month-detail/days/date=2025-11-13/total_cents`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from service.books.view import View
from service.core.errors import NotFound, ParameterError
from service.reads.answers import Currency, Moment, NextCursor, Trust, about, moment, or_null
from service.reads.explain.catalog import CUSTOMER_MRR, EXPLAINABLE, READ_PARAMETERS, ExplainableRead
from service.reads.explain.rows import ExplainedRow, Explainer, Figure, page
from service.reads.parameters import LOOK_BACK, cursor, integer, parse_all, text, to_cursor
from service.reads.read import Read


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
        int | float | str | None,
        about("the figure as the read shows it: a number, or a day; amounts in minor units of `currency`"),
    ]
    formula: Annotated[
        str | None,
        about(
            "how the value follows from `sum` and `terms`, or what is counted; null where it is a plain sum"
        ),
    ]
    terms: Annotated[dict[str, int | float | None], about("the other figures in the formula")]
    estimate: Annotated[
        bool,
        about("whether it is a prediction, and the rows what it was made from; else they make it exactly"),
    ]
    sum: Annotated[int, about("what all rows contribute, on all pages")]
    adds_up: Annotated[
        bool | None,
        about("whether the value is `sum`, as it should be; null where it is null, or made by the formula"),
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
        *LOOK_BACK,
        integer("limit", lambda _: 100, 1, 500, "rows a page"),
        cursor(),
    ),
)


def find_read(address: str, given: Mapping[str, str]) -> ExplainableRead:
    """The read of a figure's address. Raises ParameterError for an unknown one."""
    name = address.partition("/")[0]
    read = CUSTOMER_MRR if name == "mrr" and "customer_id" in given else EXPLAINABLE.get(name)
    if read is None:
        raise ParameterError(
            f"figure: {name}/… can't be explained; there are {', '.join(sorted(EXPLAINABLE))}"
        )
    return read


def check_looks_back(address: str, given: Mapping[str, str], args: Mapping[str, Any]) -> None:
    """Raise ParameterError for a `position` or `known_at` of a read that does not look back."""
    past = next((name for name in ("position", "known_at") if args[name] is not None), None)
    if past and not find_read(address, given).looks_back:
        raise ParameterError(f"{past}: not for this read, which shows nothing as it was known")


def explain(
    view: View, address: str, given: Mapping[str, str], offset: int, limit: int | None
) -> tuple[ExplainedFigure, float]:
    """The figure's value, a page of the rows behind it without their events, and its inferred share.

    `given` are the parameters for the read. Raises ParameterError for an unknown figure or parameter;
    NotFound where the read's answer has no such row.
    """
    read = find_read(address, given)
    name, _, pointer = address.partition("/")
    path = [_unescaped(token) for token in (pointer or read.default).split("/")]
    args = _args(view, name, read, given, path)
    view = view.with_policy(args["policy"]) if "policy" in args else view
    list_name, without_list = read.without_list or ("", read.answer)
    make_document = read.answer if path[0] == list_name else without_list
    holders, holder, pattern = _walk(to_builtins(make_document(view, args)), name, path)
    explainer = _find_explainer(name, read, pattern)
    index = int(path[-1]) if isinstance(holder, list) and _is_number(path[-1]) else None
    figure = Figure(
        view=view,
        args=args,
        holders=holders,
        name=path[-1] if index is None else path[-2],
        value=_value(holder, path[-1] if index is None else index, name),
        index=index,
    )
    explanation = explainer(figure)
    rows_page = page(view, explanation.sources, offset, limit)
    next_offset = offset + len(rows_page.rows)
    explained = ExplainedFigure(
        figure=f"{name}/{pointer or read.default}",
        read=read.path,
        of={key: value for key, value in figure.row.items() if isinstance(value, str)},
        currency=view.scope.currency,
        value=figure.value,
        formula=explanation.formula or explanation.counting,
        terms=explanation.terms,
        estimate=explanation.is_estimate,
        sum=rows_page.total,
        adds_up=None if explanation.formula or figure.value is None else rows_page.total == figure.value,
        count=rows_page.count,
        rows=rows_page.rows,
        next_cursor=to_cursor(str(next_offset)) if next_offset < rows_page.count else None,
        events=[],
    )
    return explained, rows_page.inferred_share


def _unescaped(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")


def _args(
    view: View, name: str, read: ExplainableRead, given: Mapping[str, str], path: Sequence[str]
) -> dict[str, Any]:
    """The read's arguments: the given ones, and those that make its document contain the figure."""
    known = {parameter.name for parameter in read.parameters} & {
        parameter.name for parameter in READ_PARAMETERS
    }
    if unknown := set(given) - known:
        raise ParameterError(
            f"{min(unknown)}: no such parameter of {name}, which takes {', '.join(sorted(known))}"
        )
    stated = {**read.fixed, **read.needed.get(path[0], {}), **given}
    args = parse_all(read.parameters, stated, view.scope.today)
    if args.get("customer_id", "") is None:
        raise ParameterError("customer_id: the customer whose figure it is")
    if "limit" in args and path[0] == read.rows:
        args["limit"] = int(path[1]) + 1 if len(path) > 1 and _is_number(path[1]) else None
    return args


def _walk(document: dict[str, Any], name: str, path: Sequence[str]) -> tuple[list[dict[str, Any]], Any, str]:
    """The objects on the way to a figure, what holds it, and its address's pattern, "days/*/total_cents".

    Raises NotFound where a list has no such row. Where the path leads nowhere, nothing holds the figure.
    """
    holder: Any = document
    holders, pattern = [document], []
    for token in path[:-1]:
        pattern.append("*" if isinstance(holder, list) else token)
        if isinstance(holder, list):
            holder = _row(holder, token, name)
        else:
            holder = holder.get(token) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holders.append(holder)
    return holders, holder, "/".join((*pattern, "*" if isinstance(holder, list) else path[-1]))


def _is_number(token: str) -> bool:
    return token.isascii() and token.isdigit() and len(token) < 10


def _row(rows: list[Any], token: str, name: str) -> Any:
    """The one row that a token of an address identifies: by its number, or by its fields."""
    if _is_number(token):
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
    """The explainer of a pattern; of an object whose fields have no fixed names, that of all its fields."""
    of_all = f"{pattern.rpartition('/')[0]}/*"
    explainer = read.figures.get(pattern) or read.figures.get(of_all)
    if explainer is None:
        raise ParameterError(f"figure: of {name} there are {', '.join(read.figures)}")
    return explainer


def _value(holder: Any, place: str | int, name: str) -> Any:
    try:
        return holder[place]
    except (KeyError, IndexError, TypeError):
        raise NotFound(f"figure: this answer of {name} has no {place} there") from None

"""The rows behind a figure: how to select them, the contribution of each, and a page of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Struct, json
from sqlalchemy import BigInteger, ColumnElement, FromClause, Table, case, cast, false, func, select

from projections.book import INFERRED
from service.books.view import View
from service.reads.answers import Account, Causes, CustomerId, Day, Processor, TrustLevel, about, day, or_null
from service.reads.inferred_share import SHARE_DIGITS

# The order of each table's rows: by their content, not by when they were written.
_ORDER_COLUMNS = {
    "bills": ("date", "key", "invoice_id"),
    "contracts": ("next_bill_date", "parent_key"),
    "failures": ("date", "source_id", "key"),
    "cash": ("date", "key", "kind", "source_id", "part"),
    "mrr_steps": ("date", "key", "customer_id", "currency", "interval", "every"),
    "mrr_movements": ("date", "key"),
    "orders": ("date", "source_id", "key"),
    "reversals": ("date", "key", "kind", "source_id", "part"),
}


class RowSource(Struct, frozen=True, kw_only=True):
    """The rows of one table that meet `where`, and the contribution of each to a figure.

    `contribution` is SQL, or a function of a row where the rows are few. `joined` is the table joined to
    others, where it is.
    """

    table: Table
    where: Sequence[ColumnElement[bool]]
    contribution: ColumnElement[Any] | Callable[[Any], int]
    joined: FromClause | None = None


class Figure(Struct, frozen=True, kw_only=True):
    """A figure and its place in a read's answer, as JSON: the field `name`, or the item `index` of it.

    `holders` are the objects around it, from the answer to the one that has the field. `args` are the read's
    arguments, and `view` has the read's policy.
    """

    view: View
    args: dict[str, Any]
    holders: Sequence[dict[str, Any]]
    name: str
    value: Any
    index: int | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The read's answer."""
        return self.holders[0]

    @property
    def row(self) -> dict[str, Any]:
        """The object that has the field."""
        return self.holders[-1]

    def holder(self, name: str) -> dict[str, Any]:
        """The nearest object around the figure that has a field of this name."""
        return next(holder for holder in reversed(self.holders) if name in holder)

    def term(self, name: str) -> Any:
        """The field of this name of the nearest object that has it; "/a/b" is a place in the answer."""
        if not name.startswith("/"):
            return self.holder(name)[name]
        value: Any = self.document
        for part in name[1:].split("/"):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value


class Explanation(Struct, frozen=True, kw_only=True):
    """How a figure is made: as the sum of rows' contributions, or by a `formula` that uses the sum.

    `counting` explains how rows count, where that is not obvious. `terms` are the formula's other figures.
    `is_estimate`: the formula is a prediction's, and the rows are what it was made from.
    """

    sources: Sequence[RowSource]
    counting: str | None = None
    formula: str | None = None
    terms: dict[str, Any] = {}
    is_estimate: bool = False


Explainer = Callable[[Figure], Explanation]
ROUNDED = "rounded half away from zero"


def by_formula(
    formula: str, *terms: str, of: Explainer, others: Mapping[str, str] = {}, is_estimate: bool = False
) -> Explainer:
    """Explains a figure by a formula of other figures, and by the rows that `of` finds.

    `terms` are fields of the objects around the figure; `others` places in the answer, by the term's name.
    """

    def explain(figure: Figure) -> Explanation:
        return Explanation(
            sources=of(figure).sources,
            formula=formula,
            terms={name: figure.term(place) for name, place in ({n: n for n in terms} | {**others}).items()},
            is_estimate=is_estimate,
        )

    return explain


class ExplainedRow(Struct, frozen=True, kw_only=True):
    """A row of the books behind a figure."""

    table: Annotated[str, about("the table of the books that holds the row")]
    key: Annotated[str, about("the history or customer that it is a row of")]
    date: Annotated[
        Day | None,
        or_null(day("the day of the row; of a contract, of its next bill"), "for a contract without one"),
    ]
    processor: Processor
    account: Account
    customer_id: CustomerId
    contract_id: Annotated[
        str | None,
        about("the id of the subscription or contract at the processor; null for a row of no contract"),
    ]
    source_id: Annotated[
        str | None,
        about("the id of the invoice, payment, refund or dispute at the processor; null for a row of none"),
    ]
    kind: Annotated[
        str | None, about("what moved, or the status of the bill; null where the table implies it")
    ]
    contributes: Annotated[int, about("what the row adds to `sum`; 0 in all rows where none adds anything")]
    trust: Annotated[
        TrustLevel | None,
        about("how the events behind it were proved; null for a failed payment, whose event tells"),
    ]
    causes: Causes


class Page(Struct, frozen=True, kw_only=True):
    """A page of the rows; `count`, `total` and `inferred`, what inferred rows add to it, cover all pages."""

    rows: list[ExplainedRow]
    count: int
    total: int
    inferred: int

    @property
    def inferred_share(self) -> float:
        """The part of the total that is inferred, or of both parts where they have different signs."""
        inferred, told = abs(self.inferred), abs(self.total - self.inferred)
        return round(inferred / (inferred + told), SHARE_DIGITS) if inferred else 0.0


class _SelectedRows(Struct, frozen=True, kw_only=True):
    """The rows of one source. `fetch` takes an offset and a limit, and returns (row, contribution) pairs."""

    count: int
    total: int
    inferred: int
    fetch: Callable[[int, int | None], list[tuple[Any, int]]]


def page(view: View, sources: Sequence[RowSource], offset: int, limit: int | None) -> Page:
    """The rows with a contribution, from `offset` on; if no row has one, all rows of the sources."""
    selections = [_select_rows(view, source, only_contributing=True) for source in sources]
    if not any(selection.count for selection in selections):
        selections = [_select_rows(view, source, only_contributing=False) for source in sources]
    listed: list[ExplainedRow] = []
    count = 0
    for source, selection in zip(sources, selections, strict=True):
        room = None if limit is None else limit - len(listed)
        skip = max(offset - count, 0)
        if skip < selection.count and room != 0:
            listed += [
                _explained(source.table, row, contribution)
                for row, contribution in selection.fetch(skip, room)
            ]
        count += selection.count
    return Page(
        rows=listed,
        count=count,
        total=sum(selection.total for selection in selections),
        inferred=sum(selection.inferred for selection in selections),
    )


def matches_row(table: Table, row: dict[str, Any], names: str) -> list[ColumnElement[bool]]:
    """The conditions that select the row of a document again, by the named columns."""
    stored = row | {"causes": json.encode(row["causes"]).decode()}
    return [table.c[name] == stored[name] for name in names.split()]


def _select_rows(view: View, source: RowSource, *, only_contributing: bool) -> _SelectedRows:
    query = select(source.table).where(*source.where)
    if source.joined is not None:
        query = query.select_from(source.joined)
    order = _ORDER_COLUMNS[source.table.name]
    if isinstance(source.contribution, ColumnElement):
        with_contribution = query.add_columns(source.contribution.label("contributes")).subquery()
        return _select_in_sql(
            view,
            with_contribution,
            [with_contribution.c[name].nulls_first() for name in order],
            only_contributing=only_contributing,
        )
    rows = view.all(query.order_by(*(source.table.c[name] for name in order)))
    contributions = [
        (row, contribution)
        for row in rows
        if (contribution := source.contribution(row)) or not only_contributing
    ]
    return _SelectedRows(
        count=len(contributions),
        total=sum(contribution for _, contribution in contributions),
        inferred=sum(
            contribution
            for row, contribution in contributions
            if row._mapping.get("trust") == INFERRED  # noqa: SLF001
        ),
        fetch=lambda offset, limit: contributions[offset:][:limit],
    )


def _select_in_sql(
    view: View, rows: FromClause, order: Sequence[Any], *, only_contributing: bool
) -> _SelectedRows:
    conditions = [rows.c.contributes != 0] if only_contributing else []
    is_inferred = rows.c.trust == INFERRED if "trust" in rows.c else false()
    inferred = case((is_inferred, rows.c.contributes), else_=0)
    # PostgreSQL sums to a numeric.
    sums = [cast(func.coalesce(func.sum(each), 0), BigInteger) for each in (rows.c.contributes, inferred)]
    aggregates: list[ColumnElement[Any]] = [func.count(), *sums]
    count, total, inferred_total = view.one(select(*aggregates).select_from(rows).where(*conditions))

    def fetch(offset: int, limit: int | None) -> list[tuple[Any, int]]:
        query = select(rows).where(*conditions).order_by(*order).offset(offset).limit(limit)
        return [(row, row.contributes) for row in view.all(query)]

    return _SelectedRows(count=count, total=total, inferred=inferred_total, fetch=fetch)


def _explained(table: Table, row: Any, contribution: int) -> ExplainedRow:
    columns = row._mapping  # noqa: SLF001
    causes = json.decode(row.causes)
    return ExplainedRow(
        table=str(table.name),  # SQLAlchemy has a type of its own for it
        key=row.key,
        date=columns.get("date") or columns.get("next_bill_date"),
        processor=columns.get("processor") or row.parent_key.partition("|")[0] or causes[0].partition(":")[0],
        account=row.account,
        customer_id=row.customer_id,
        contract_id=columns.get("contract_id"),
        source_id=columns.get("source_id") or columns.get("invoice_id"),
        kind=columns.get("kind") or columns.get("status"),
        contributes=contribution,
        trust=columns.get("trust"),
        causes=causes,
    )

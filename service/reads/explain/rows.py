"""The rows behind a figure: which they are, what each of them adds to it, and a page of them."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, json
from sqlalchemy import BigInteger, ColumnElement, FromClause, Table, cast, func, select

from service.books.view import View

# By what the rows say, not by when they were written.
_ORDERS = {
    "bills": ("date", "key", "invoice_id"),
    "cash": ("date", "key", "kind", "source_id", "part"),
    "mrr_steps": ("date", "key", "customer_id", "currency", "interval", "every"),
    "mrr_movements": ("date", "key"),
    "orders": ("date", "source_id", "key"),
    "reversals": ("date", "key", "kind", "source_id", "part"),
}


class Rows(Struct, frozen=True, kw_only=True):
    """Rows of one table, and what each contributes: in SQL, or where these are few by a function.

    `source` holds the table where it is joined to others.
    """

    table: Table
    where: Sequence[ColumnElement[bool]]
    contributes: ColumnElement[Any] | Callable[[Any], int]
    source: FromClause | None = None


class Asked(Struct, frozen=True, kw_only=True):
    """A figure: where it stands in a read's document. `name` is its own, `row` the object that holds it.

    `args` are the read's, and `view` is under its policy.
    """

    view: View
    args: dict[str, Any]
    document: dict[str, Any]
    row: dict[str, Any]
    name: str


class Explained(Struct, frozen=True, kw_only=True):
    """What a figure is made of: the sum of what rows contribute or, by `formula`, something made of it.

    `counting` says how rows count, where their sum needs words. `terms` are the other figures in the formula.
    """

    rows: Sequence[Rows]
    counting: str | None = None
    formula: str | None = None
    terms: dict[str, Any] = {}


Explain = Callable[[Asked], Explained]


class Page(Struct, frozen=True, kw_only=True):
    """Some of the rows as they are shown; `count` and `total` are of all of them."""

    rows: list[dict[str, Any]]
    count: int
    total: int


class _Found(Struct, frozen=True, kw_only=True):
    """The rows of one source; `some` takes an offset and a limit, and gives (row, what it contributes)."""

    count: int
    total: int
    some: Callable[[int, int | None], list[tuple[Any, int]]]


def page(view: View, sources: Sequence[Rows], offset: int, limit: int | None) -> Page:
    """The rows that add something, from `offset` on; where none does, those that were looked at."""
    found = [_find(view, source, adding=True) for source in sources]
    if not any(each.count for each in found):
        found = [_find(view, source, adding=False) for source in sources]
    shown: list[dict[str, Any]] = []
    before = 0
    for source, each in zip(sources, found, strict=True):
        left = None if limit is None else limit - len(shown)
        skipped = max(offset - before, 0)
        if skipped < each.count and left != 0:
            shown += [_shown(source.table, row, adds) for row, adds in each.some(skipped, left)]
        before += each.count
    return Page(rows=shown, count=before, total=sum(each.total for each in found))


def same(table: Table, row: dict[str, Any], names: str) -> list[ColumnElement[bool]]:
    """The conditions that find again a row that a read has shown, by these of its columns."""
    shown = row | {"causes": json.encode(row["causes"]).decode()}
    return [table.c[name] == shown[name] for name in names.split()]


def _find(view: View, source: Rows, *, adding: bool) -> _Found:
    query = select(source.table).where(*source.where)
    if source.source is not None:
        query = query.select_from(source.source)
    order = _ORDERS[source.table.name]
    if isinstance(source.contributes, ColumnElement):
        each = query.add_columns(source.contributes.label("contributes")).subquery()
        return _in_sql(view, each, [each.c[name].nulls_first() for name in order], adding=adding)
    rows = view.all(query.order_by(*(source.table.c[name] for name in order)))
    told = [(row, adds) for row in rows if (adds := source.contributes(row)) or not adding]
    return _Found(
        count=len(told),
        total=sum(adds for _, adds in told),
        some=lambda offset, limit: told[offset:][:limit],
    )


def _in_sql(view: View, each: FromClause, order: Sequence[Any], *, adding: bool) -> _Found:
    of = [each.c.contributes != 0] if adding else []
    total = cast(func.coalesce(func.sum(each.c.contributes), 0), BigInteger)  # as PostgreSQL's is not
    tally: list[ColumnElement[Any]] = [func.count(), total]
    count, cents = view.one(select(*tally).select_from(each).where(*of))

    def some(offset: int, limit: int | None) -> list[tuple[Any, int]]:
        query = select(each).where(*of).order_by(*order).offset(offset).limit(limit)
        return [(row, row.contributes) for row in view.all(query)]

    return _Found(count=count, total=cents, some=some)


def _shown(table: Table, row: Any, contributes: int) -> dict[str, Any]:
    columns = row._mapping  # noqa: SLF001
    return {
        "table": str(table.name),  # SQLAlchemy has a type of its own for it
        "key": row.key,
        "date": row.date,
        "processor": columns.get("processor") or row.parent_key.partition("|")[0],
        "account": row.account,
        "customer_id": row.customer_id,
        "contract_id": columns.get("contract_id"),
        "source_id": columns.get("source_id") or columns.get("invoice_id"),
        "kind": columns.get("kind") or columns.get("status"),
        "contributes": contributes,
        "trust": row.trust,
        "causes": json.decode(row.causes),
    }

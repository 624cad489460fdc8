"""Restatements: the changes that late events made to figures of past days. They have a file of their own."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, fields
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, insert, select, tuple_

from service.books.view import View
from service.core.errors import ParameterError
from service.core.moments import from_us, rfc3339
from service.reads.parameters import cursor, day, integer, to_cursor
from service.reads.read import Read

MRR_FIGURE = "mrr"

_DAYS = 30


class Restatement(Struct, frozen=True, kw_only=True):
    """The change that one event made to one figure, from the day `date` to `until`.

    `before_cents` and `after_cents` are the account's figure, `all_…` that of all accounts.
    """

    position: int
    part: int
    recorded_at_us: int
    cause: str
    type: str
    figure: str
    date: str
    until: str
    currency: str
    account: str
    customer_id: str
    change_cents: int
    before_cents: int
    after_cents: int
    all_before_cents: int
    all_after_cents: int


_metadata = MetaData()
_restatements = Table(
    "restatements",
    _metadata,
    *(
        Column(f.name, BigInteger if f.type is int else Text, primary_key=f.name in ("position", "part"))
        for f in fields(Restatement)
    ),
    sqlite_with_rowid=False,
)


def save_restatements(connection: Connection, rows: Sequence[Restatement]) -> None:
    """Add rows to the file's table, which is created if there is none."""
    _metadata.create_all(connection)
    if rows:
        connection.execute(insert(_restatements), [asdict(row) for row in rows])


def _answer(view: View, args: dict[str, Any]) -> dict[str, Any]:
    rows = _page(view, args["limit"], args["cursor"])
    page = rows[: args["limit"]]
    more = len(rows) > len(page)
    return {
        "currency": view.scope.currency,
        "from": args["from"].isoformat(),
        "to": args["to"].isoformat(),
        "restatements": [_row(row, of_all=view.scope.account is None) for row in page],
        "next_cursor": to_cursor(f"{page[-1].position}|{page[-1].part}") if more else None,
    }


def _page(view: View, limit: int | None, after: str | None) -> list[Any]:
    """The rows of a page and one more; without a `limit`, all remaining ones."""
    table = _restatements.c
    query = select(_restatements).where(table.currency == view.scope.currency)
    if view.scope.account is not None:
        query = query.where(table.account == view.scope.account)
    if after is not None:
        query = query.where(tuple_(table.position, table.part) > tuple_(*_parse_cursor(after)))
    query = query.order_by(table.position, table.part)
    return view.all(query.limit(None if limit is None else limit + 1))


def _parse_cursor(cursor: str) -> tuple[int, int]:
    position, _, part = cursor.partition("|")
    if not all(number.isascii() and number.isdigit() and len(number) < 19 for number in (position, part)):
        raise ParameterError("cursor: the `next_cursor` of the page before")
    return int(position), int(part)


def _row(row: Any, *, of_all: bool) -> dict[str, Any]:
    return {
        "recorded_at": rfc3339(from_us(row.recorded_at_us)),
        "position": row.position,
        "cause": row.cause,
        "type": row.type,
        "figure": row.figure,
        "date": row.date,
        "until": row.until,
        "month": row.date[:7],
        "currency": row.currency,
        "account": row.account,
        "customer_id": row.customer_id,
        "change_cents": row.change_cents,
        "before_cents": row.all_before_cents if of_all else row.before_cents,
        "after_cents": row.all_after_cents if of_all else row.after_cents,
    }


RESTATEMENTS = Read(
    path="/api/v1/restatements",
    summary="What late events changed of figures of days already gone",
    answer=_answer,
    shape="Restatements",
    rows="restatements",
    parameters=(
        day(
            "from",
            lambda today: today - timedelta(days=_DAYS),
            f"the first day on which the events were recorded, by default {_DAYS} days ago",
        ),
        day("to", lambda today: today, "the last day on which they were recorded, by default today"),
        integer("limit", lambda _: 100, 1, 1000, "restatements a page"),
        cursor(),
    ),
)

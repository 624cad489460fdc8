"""Restatements: the changes that late events made to figures of past days. They have a file of their own."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

from msgspec import Struct, field
from msgspec.structs import asdict, fields
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, insert, select, tuple_

from service.books.view import View
from service.core.errors import ParameterError
from service.core.moments import from_us, rfc3339
from service.reads.answers import Account, Currency, Day, Moment, NextCursor, about, cents, moment
from service.reads.answers import day as on_day
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


class ListedRestatement(Struct, frozen=True, kw_only=True):
    """What a late event changed of a figure of days already gone."""

    recorded_at: Annotated[Moment, moment("when the event was recorded")]
    position: Annotated[int, about("the event's position in the ledger")]
    cause: Annotated[str, about('the event\'s name in `causes`, such as "stripe:evt_1"')]
    type: Annotated[str, about("the event's type in the ledger's words")]
    figure: Annotated[
        Literal["mrr", "billed_cents", "collected_cents", "refunded_cents", "disputed_cents"],
        about("what changed: MRR, or what `monthly-totals` shows under this name"),
    ]
    date: Annotated[
        Day, on_day("the day, gone when the event was recorded, that it changed; of several the first")
    ]
    until: Annotated[
        Day,
        on_day(
            "the last day of the change; of MRR, which holds until it moves again, at most the last past day"
        ),
    ]
    month: Annotated[str, about("the month of `date`")]
    currency: Currency
    account: Account
    customer_id: Annotated[
        str, about("whose figure it is; of several the first by id, empty where none is named")
    ]
    change_cents: Annotated[int, cents("what the event changed, on each of these days")]
    before_cents: Annotated[
        int, cents("before the event: MRR at the end of `date`, any other figure of its month")
    ]
    after_cents: Annotated[int, cents("the same after the event")]


class Restatements(Struct, frozen=True, kw_only=True):
    """What late events changed of figures of days already gone."""

    currency: Currency
    from_: Annotated[Day, on_day("the first day on which the events were recorded")] = field(name="from")
    to: Annotated[Day, on_day("the last day on which they were recorded")]
    restatements: Annotated[list[ListedRestatement], about("one page, by the events' positions")]
    next_cursor: NextCursor


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


def restatements(view: View, args: dict[str, Any]) -> Restatements:
    """A page of the file's restatements."""
    rows = _page(view, args["limit"], args["cursor"])
    page = rows[: args["limit"]]
    more = len(rows) > len(page)
    return Restatements(
        currency=view.scope.currency,
        from_=args["from"].isoformat(),
        to=args["to"].isoformat(),
        restatements=[_listed(row, of_all=view.scope.account is None) for row in page],
        next_cursor=to_cursor(f"{page[-1].position}|{page[-1].part}") if more else None,
    )


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


def _listed(row: Any, *, of_all: bool) -> ListedRestatement:
    return ListedRestatement(
        recorded_at=rfc3339(from_us(row.recorded_at_us)),
        position=row.position,
        cause=row.cause,
        type=row.type,
        figure=row.figure,
        date=row.date,
        until=row.until,
        month=row.date[:7],
        currency=row.currency,
        account=row.account,
        customer_id=row.customer_id,
        change_cents=row.change_cents,
        before_cents=row.all_before_cents if of_all else row.before_cents,
        after_cents=row.all_after_cents if of_all else row.after_cents,
    )


RESTATEMENTS = Read(
    path="/api/v1/restatements",
    summary="What late events changed of figures of days already gone",
    shape=Restatements,
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

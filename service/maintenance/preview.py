"""A preview of figures: how they would change if events were appended, by the books' own fold."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, timedelta
from functools import partial

from msgspec import Struct
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from projections.bills import BILLS
from projections.book import Book, Rules, Total
from projections.collections import COLLECTIONS
from projections.fold import HistoryRows, MemoryRows, Sums, fold, sum_changes
from projections.mrr import MRR
from service.books.rows import stored_rows
from service.books.store import BookStore
from service.books.tables import TOTALS
from service.books.view import sum_columns
from service.core.events import Event, subjects
from service.core.order import canonical
from service.intake.retranslate import MAX_PREVIEW_EVENTS, Impact
from service.ledger.append import read_head
from service.ledger.history import read_histories, read_limits
from service.ledger.store import Ledger
from service.reads.parameters import last_of_month


class Figure(Struct, frozen=True, kw_only=True):
    """A previewed figure: the sum of a total's columns, each over a span of days, as (column, span)."""

    name: str
    table: str
    parts: tuple[tuple[str, str], ...]


# As the reads tell them: MRR at the end of today, and the amounts of this month.
_FIGURES: dict[Book, tuple[Figure, ...]] = {
    MRR: (Figure(name="mrr_cents", table="mrr_days", parts=(("mrr_cents", "to_date"),)),),
    BILLS: (
        Figure(name="billed_cents", table="bill_days", parts=(("billed_cents", "month"),)),
        Figure(name="overdue_cents", table="bill_days", parts=(("stated_cents", "past"),)),
        Figure(
            name="upcoming_cents",
            table="bill_days",
            parts=(("drafted_cents", "month"), ("stated_cents", "to_come")),
        ),
    ),
    COLLECTIONS: tuple(
        Figure(name=name, table="cash_days", parts=((name, "month"),))
        for name in ("collected_cents", "disputed_cents", "refunded_cents")
    ),
}


async def preview(
    ledger: Ledger, store: BookStore, events: Sequence[Event], today: date
) -> list[Impact] | None:
    """Every figure that these events would change.

    None where that is not known: the events are too many, or the books are away or not at the ledger's end.
    """
    if len(events) > MAX_PREVIEW_EVENTS:
        return None
    position = (await ledger.read(read_head)).position
    histories = await ledger.read(partial(_histories, ledger=ledger, events=events, position=position))

    def find(connection: Connection) -> list[Impact] | None:
        ids = store.positions(connection).books
        ids = {book.name: ids[book.name] for book in _FIGURES if book.name in ids}
        if len(ids) < len(_FIGURES) or set(store.checkpoints(connection, ids).values()) != {position}:
            return None
        history_rows = HistoryRows(histories)
        return [
            impact
            for book in _FIGURES
            for impact in _impacts(connection, book, ids[book.name], history_rows, store.rules, today)
        ]

    with suppress(SQLAlchemyError, OSError):  # the books may not be laid out
        return await store.read(find)
    return None


def _histories(
    connection: Connection, ledger: Ledger, events: Sequence[Event], position: int
) -> dict[str, list[Event]]:
    """The histories to which the events belong, as they would be with them."""
    new_events: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        for name in subjects(event):
            new_events[name].append(event)
    histories = read_histories(connection, new_events, position, ledger.vault)
    for name in read_limits(connection, new_events):  # the books read no further event of these
        del histories[name]
    return {name: canonical([*history, *new_events[name]]) for name, history in histories.items()}


def _impacts(
    connection: Connection,
    book: Book,
    book_id: int,
    history_rows: HistoryRows,
    rules: Rules,
    today: date,
) -> Iterator[Impact]:
    rules = rules.with_policy(book.policy)
    rows = MemoryRows(stored_rows(connection, book_id))
    row_changes = fold(book.stages, history_rows.of(book.stages, rules), rows, rules)
    totals = {total.table: total for total in book.totals}
    spans = _spans(today)
    for figure in _FIGURES[book]:
        total = totals[figure.table]
        sums = sum_changes(total, row_changes)
        before: Counter[str] = Counter()
        changes: Counter[str] = Counter()
        for column, span in figure.parts:
            before.update(_current_sums(connection, total, book_id, column, spans[span]))
            changes.update(_changed_sums(sums, total, column, spans[span]))
        for currency, change in sorted(changes.items()):
            if change:
                cents = before[currency]
                yield Impact(
                    figure=figure.name, currency=currency, before_cents=cents, after_cents=cents + change
                )


def _spans(today: date) -> dict[str, tuple[str, str]]:
    """The first and last day of each span."""
    day, first, last = today.isoformat(), today.replace(day=1).isoformat(), last_of_month(today).isoformat()
    yesterday = (today - timedelta(days=1)).isoformat()
    return {"to_date": ("", day), "month": (first, last), "past": (first, yesterday), "to_come": (day, last)}


def _current_sums(
    connection: Connection, total: Total, book_id: int, column: str, days: tuple[str, str]
) -> dict[str, int]:
    """The sums of a total's column from one day to another, by currency."""
    table = TOTALS[total.table]
    query = select(table.c.currency, *sum_columns(table, (column,))).where(
        table.c.book == book_id, table.c.date.between(*days)
    )
    return {row[0]: row[1] for row in connection.execute(query.group_by(table.c.currency))}


def _changed_sums(sums: Sums, total: Total, column: str, days: tuple[str, str]) -> Counter[str]:
    """What is added to those sums, by currency."""
    index = total.sums.index(column)
    changes: Counter[str] = Counter()
    for group, values in sums.items():
        columns = dict(zip(total.group_by, group, strict=True))
        if days[0] <= columns["date"] <= days[1]:
            changes[columns["currency"]] += values[index]
    return changes

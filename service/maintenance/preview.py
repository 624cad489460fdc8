"""A preview of figures: how they would change if events were appended, by the books' own folds."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from projections.bills import BILLS
from projections.book import Book, Row, Rules, Stage, Total
from projections.collections import COLLECTIONS
from projections.mrr import MRR
from service.books.store import BookStore
from service.books.tables import STATEMENTS, TOTALS
from service.books.view import sum_columns
from service.core.events import Event, subjects
from service.core.order import canonical
from service.intake.retranslate import MAX_PREVIEW_EVENTS, Impact
from service.ledger.append import read_head
from service.ledger.history import read_histories
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


class HistoryPair(Struct, frozen=True, kw_only=True):
    """The histories to which events belong, in canonical order: without the events, and with them."""

    before: dict[str, list[Event]]
    after: dict[str, list[Event]]


async def preview(
    ledger: Ledger, store: BookStore, events: Sequence[Event], today: date
) -> list[Impact] | None:
    """Every figure that these events would change.

    None where that is not known: the events are too many, or the books are away or behind the ledger.
    """
    if len(events) > MAX_PREVIEW_EVENTS:
        return None
    position = (await ledger.read(read_head)).position
    histories = await ledger.read(partial(_histories, ledger=ledger, events=events, position=position))

    def find(connection: Connection) -> list[Impact] | None:
        positions = store.positions(connection)
        if positions.position != position or not {book.name for book in _FIGURES} <= positions.books.keys():
            return None
        return [
            impact
            for book in _FIGURES
            for impact in _impacts(
                connection, book, positions.books[book.name], histories, store.rules, today
            )
        ]

    with suppress(SQLAlchemyError, OSError):  # the books may not be laid out
        return await store.read(find)
    return None


def _histories(connection: Connection, ledger: Ledger, events: Sequence[Event], position: int) -> HistoryPair:
    new_events: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        for name in subjects(event):
            new_events[name].append(event)
    histories = read_histories(connection, new_events, position, ledger.vault)
    return HistoryPair(
        before={name: canonical(history) for name, history in histories.items()},
        after={name: canonical([*history, *new_events[name]]) for name, history in histories.items()},
    )


def _impacts(
    connection: Connection, book: Book, book_id: int, histories: HistoryPair, rules: Rules, today: date
) -> Iterator[Impact]:
    changed_rows = _changed_rows(connection, book, book_id, histories, rules.with_policy(book.policy))
    totals = {total.table: total for total in book.totals}
    spans = _spans(today)
    for figure in _FIGURES[book]:
        total = totals[figure.table]
        rows = [(row, count) for row, count in changed_rows.items() if isinstance(row, total.row_type)]
        before: Counter[str] = Counter()
        changes: Counter[str] = Counter()
        for column, span in figure.parts:
            before.update(_current_sums(connection, total, book_id, column, spans[span]))
            changes.update(_changed_sums(rows, total, column, spans[span]))
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


def _changed_sums(
    rows: Sequence[tuple[Any, int]], total: Total, column: str, days: tuple[str, str]
) -> Counter[str]:
    """What changed rows, each with how many more there are of it, add to those sums."""
    index = total.sums.index(column)
    changes: Counter[str] = Counter()
    for row, count in rows:
        if days[0] <= row.date <= days[1]:
            changes[row.currency] += count * total.measure(row)[index]
    return changes


def _changed_rows(
    connection: Connection, book: Book, book_id: int, histories: HistoryPair, rules: Rules
) -> Counter[Row]:
    """By row, how many more of it the book would have; negative for fewer."""
    changed: Counter[Row] = Counter()
    for stage in book.stages:
        changed.update(_changes_of_histories(stage, histories, rules) if isinstance(stage.reads, str) else {})
        if not isinstance(stage.reads, str):
            changed.update(_changes_of_parents(connection, stage, book_id, changed, rules))
    return Counter({row: count for row, count in changed.items() if count})


def _changes_of_histories(stage: Stage, histories: HistoryPair, rules: Rules) -> Counter[Row]:
    changes: Counter[Row] = Counter()
    for name, history in histories.after.items():
        if name.startswith(f"{stage.reads}|"):
            changes.update(stage.contribute(history, rules))
            changes.subtract(stage.contribute(histories.before[name], rules))
    return changes


def _changes_of_parents(
    connection: Connection, stage: Stage, book_id: int, changed: Counter[Row], rules: Rules
) -> Counter[Row]:
    """The changes in a later stage's rows, from the parent keys whose child rows changed."""
    assert isinstance(stage.reads, tuple)  # noqa: S101 - the others read histories
    changed_children: dict[str, dict[Row, int]] = defaultdict(dict)
    for row, count in changed.items():
        if count and row.parent_key and isinstance(row, stage.reads):
            changed_children[row.parent_key][row] = count
    rows: dict[str, Counter[Row]] = {key: Counter() for key in changed_children}
    for row_type in stage.reads:
        statements = STATEMENTS[row_type]
        for _id, _key, *values in statements.by_parent_key.run(connection, book_id, sorted(rows)):
            row = statements.to_row(values)
            rows[row.parent_key][row] += 1
    changes: Counter[Row] = Counter()
    for key, current in rows.items():
        new = Counter(current)
        new.update(changed_children[key])
        changes.update(stage.contribute(list(new.elements()), rules))
        changes.subtract(stage.contribute(list(current.elements()), rules))
    return changes

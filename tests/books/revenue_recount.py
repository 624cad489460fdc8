"""The revenue book recounted: from what really happened, and from its own orders, reversals and failures."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from msgspec import json
from sqlalchemy import select

from projections.revenue import CustomerMonth, CustomerRevenue, Failure, Order, Reversal
from service.books.store import BookStore
from service.books.tables import ROWS, TOTALS
from tests.support.expected_books import ExpectedBooks

Buyer = tuple[str, str, str, str]  # processor, account, currency, customer id


async def same_revenue(store: BookStore, expected: ExpectedBooks) -> None:
    """The book's orders, reversals and failures are what happened; the rest adds up from them."""
    kinds = (Order, Reversal, Failure, CustomerMonth, CustomerRevenue)
    found = {kind: await rows(store, ROWS[kind], "revenue") for kind in kinds}
    assert (
        Counter(
            ((row.processor, row.account, row.customer_id), row.currency, row.date, row.amount_cents)
            for row in found[Order]
        )
        == expected.orders()
    )
    assert (
        Counter((row.account, row.currency, row.date, bool(row.recovered)) for row in found[Failure])
        == expected.failed()
    )
    _same_reversals(expected, found[Reversal])
    _same_customers(found)
    await _same_totals(store, found)


async def rows(store: BookStore, table: Any, book_name: str) -> list:
    """Every row of a book's table."""

    def read(connection):
        book = store.positions(connection).books[book_name]
        return list(connection.execute(select(table).where(table.c.book == book)))

    return await store.read(read)


async def _totals(store: BookStore, name: str, *columns: str) -> dict:
    table = TOTALS[name]
    found: dict[tuple, tuple] = {}
    for row in await rows(store, table, "revenue"):
        key = tuple(getattr(row, column) for column in columns)
        sums = [column.name for column in table.c if column.name not in ("book", "partition", *columns)]
        values = tuple(getattr(row, column) for column in sums)
        found[key] = tuple(a + b for a, b in zip(found.get(key, (0,) * len(values)), values, strict=True))
    return {key: values for key, values in found.items() if any(values)}


def _who(row) -> Buyer:
    return row.processor, row.account, row.currency, row.customer_id


def _same_reversals(expected: ExpectedBooks, reversals: list) -> None:
    """What went back is what happened, by currency, kind and day."""
    wanted: Counter[tuple[str, str, str]] = Counter()
    for money in expected.all_money():
        if money.kind != "collected":
            wanted[money.currency, money.kind, expected.day(money.at).isoformat()] += money.cents
    found: Counter[tuple[str, str, str]] = Counter()
    for row in reversals:
        found[row.currency, row.kind, row.date] += row.amount_cents
    assert +found == +wanted


def _same_customers(found: dict[type, list]) -> None:
    """Months and customers add up from the orders and reversals, and nobody is left out or left over."""
    parts = [row for row in (*found[Order], *found[Reversal]) if row.customer_id]
    _same_groups(parts, found[CustomerMonth], lambda row: (*_who(row), _month(row)))
    _same_groups(parts, found[CustomerRevenue], _who)
    for row in found[CustomerRevenue]:
        mine = [o for o in found[Order] if _who(o) == _who(row)]
        months: dict[str, list[int]] = {}
        for order in sorted(mine, key=lambda o: o.date):
            months.setdefault(order.date[:7], []).append(order.amount_cents)
        assert json.decode(row.months) == [[m, len(cents), sum(cents)] for m, cents in months.items()]
        dates = sorted(date.fromisoformat(order.date) for order in mine)
        assert row.lifespan_days == ((dates[-1] - dates[0]).days if dates else 0)


def _month(row) -> str:
    return row.month if hasattr(row, "month") else row.date[:7]


def _same_groups(parts: Iterable, rows: list, key: Callable) -> None:
    groups: dict[tuple, list] = defaultdict(list)
    for part in parts:
        groups[key(part)].append(part)
    assert sorted(map(key, rows)) == sorted(groups)
    for row in rows:
        of = groups[key(row)]
        bought = [part for part in of if not hasattr(part, "kind")]
        days = sorted(part.date for part in bought)
        assert (row.orders, row.revenue_cents) == (len(bought), sum(o.amount_cents for o in bought))
        assert (row.first_date, row.last_date) == ((days[0], days[-1]) if days else (None, None))
        assert row.changed_date == max(part.date for part in of)
        for kind in ("refunded", "disputed"):
            back = sum(part.amount_cents for part in of if getattr(part, "kind", None) == kind)
            assert getattr(row, f"{kind}_cents") == back


async def _same_totals(store: BookStore, found: dict[type, list]) -> None:
    days: dict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in found[Order]:  # of everybody, also of nobody known
        of = days[row.currency, row.account, row.date]
        of[0] += 1
        of[1] += row.amount_cents
        of[2] += row.paid_first_try
    by_day = ("currency", "account", "date")
    assert await _totals(store, "order_days", *by_day) == {key: tuple(of) for key, of in days.items()}

    failed: dict[tuple, list[int]] = defaultdict(lambda: [0, 0])
    for row in found[Failure]:
        failed[row.currency, row.account, row.date][0] += 1
        failed[row.currency, row.account, row.date][1] += row.recovered
    assert await _totals(store, "failure_days", *by_day) == {key: tuple(of) for key, of in failed.items()}

    often: dict[tuple, list[int]] = defaultdict(lambda: [0, 0])
    for row in found[CustomerRevenue]:
        if row.orders:
            days, gaps = row.lifespan_days, row.orders - 1
            bounds = (("Monthly", 31), ("Quarterly", 92), ("Bi-Annual", 184), ("Annual+", 10**6))
            name = next((name for name, bound in bounds if days <= gaps * bound), "") if gaps else ""
            often[row.currency, row.account, name][0] += 1
            often[row.currency, row.account, name][1] += row.revenue_cents
    by_frequency = ("currency", "account", "frequency")
    known = await _totals(store, "customer_frequencies", *by_frequency)
    assert known == {key: tuple(of) for key, of in often.items()}

    first: dict[Buyer, str] = {}
    for row in sorted(found[Order], key=lambda order: order.date):
        first.setdefault(_who(row), row.date[:7])
    cohorts: dict[tuple, tuple[set, list[int]]] = defaultdict(lambda: (set(), []))
    for row in found[Order]:
        if row.customer_id:
            who, cents = cohorts[row.currency, row.account, first[_who(row)], row.date[:7]]
            who.add(_who(row))
            cents.append(row.amount_cents)
    names = ("currency", "account", "cohort", "month")
    assert await _totals(store, "cohort_months", *names) == {
        key: (len(who), len(cents), sum(cents)) for key, (who, cents) in cohorts.items()
    }

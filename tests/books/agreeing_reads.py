"""Reads of bills that must agree: months in detail, forecasts, monthly totals, and upcoming bills."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from msgspec.structs import replace

from service.books.store import BookStore
from service.books.view import Scope
from tests.support.temporary_books import document

AHEAD = ("upcoming", "forecast", "draft")
SUMS = ("billed_cents", "upcoming_cents", "overdue_cents", "total_cents", "bills", "customers")
Asked = dict[str, Any]


async def reads_agree(
    store: BookStore, span: tuple[date, date], scope: Scope
) -> dict[tuple[int, int], Asked]:
    """Each month of a span, and of the year after it, is the same in all reads, of one account or of all.

    The months in detail.
    """
    details = {}
    first, last = (day.year * 12 + day.month - 1 for day in span)
    months = [(number // 12, number % 12 + 1) for number in range(first, last + 13)]
    by_year = await _annual(store, scope, sorted({year for year, _ in months}))
    by_quarter = await _quarterly(store, scope)
    totals = await _totals(store, scope, months)
    coming = await _coming(store, scope, months[-1])
    for year, month in months:
        name = f"{year:04d}-{month:02d}"
        detail = await _read(store, "revenue-month-detail", scope, year=str(year), month=str(month))
        summary, details[year, month] = detail["summary"], detail
        _adds_up(detail)
        forecast = by_year[name]
        assert forecast["total_cents"] == summary["schedule_total_cents"], name
        assert forecast["upcoming_cents"] == summary["upcoming_cents"] + summary["later_cents"], name
        for key in ("billed_cents", "overdue_cents", "customers"):
            assert forecast[key] == summary[key], f"{key} of {name}"
        assert name not in by_quarter or _sums(by_quarter[name]) == _sums(forecast), name
        for key in ("billed_cents", "collected_cents", "open_cents"):
            assert totals[name][key] == summary[key], f"{key} of {name}"
        _comes(detail, [row for row in coming if row["next_bill_date"][:7] == name], scope.today)
    await _accounts_add_up(store, scope)
    return details


def _adds_up(detail: Asked) -> None:
    """A month's sums are those of its listed bills."""
    summary, listed = detail["summary"], detail["payments"]
    counted = [row for row in listed if row["status"] != "uncollectible"]
    ahead = [row for row in counted if row["status"] in AHEAD]
    overdue = [row for row in counted if row["status"] == "overdue"]
    issued = [row for row in counted if row not in ahead and row not in overdue]
    assert summary["payments"] == len(counted)
    assert summary["customers"] == len({_customer(row) for row in counted})
    for name, rows in (("total", counted), ("upcoming", ahead), ("overdue", overdue), ("billed", issued)):
        assert summary[f"{name}_cents"] == sum(row["amount_cents"] for row in rows), name
    assert summary["open_cents"] == sum(row["open_cents"] for row in issued)
    for parts in ("days", "weeks"):
        assert sum(part["total_cents"] for part in detail[parts]) == summary["total_cents"], parts
        assert sum(part["payments"] for part in detail[parts]) == summary["payments"], parts


def _comes(detail: Asked, coming: Sequence[Asked], today: date) -> None:
    """What a month's detail shows from today on is what the list of upcoming bills shows of the month."""
    ahead = [row for row in detail["payments"] if row["date"] >= today.isoformat()]
    stated = Counter(_bill(row, "date") for row in ahead if row["status"] in ("upcoming", "draft"))
    rolled = sum(row["amount_cents"] for row in ahead if row["status"] == "forecast")
    listed = [row for row in coming if row["status"] != "forecast"]
    assert Counter(_bill(row, "next_bill_date") for row in listed) == stated
    rolled_on = sum(row["amount_cents"] for row in coming if row["status"] == "forecast")
    assert rolled_on == rolled + detail["summary"]["later_cents"]


async def _annual(store: BookStore, scope: Scope, years: Sequence[int]) -> dict[str, Asked]:
    """The months of some years by name; each year is the sum of its own."""
    found: dict[str, Asked] = {}
    for year in years:
        answer = await _read(store, "revenue-annual-forecast", scope, year=str(year))
        _is_sum(answer)
        found |= {row["month"]: row for row in answer["months"]}
    return found


async def _quarterly(store: BookStore, scope: Scope) -> dict[str, Asked]:
    """The months of the quarters to come by name; each quarter is the sum of its own."""
    answer = await _read(store, "revenue-quarterly-forecast", scope, quarters="8")
    for quarter in answer["quarters"]:
        _is_sum(quarter)
    return {row["month"]: row for quarter in answer["quarters"] for row in quarter["months"]}


def _is_sum(whole: Asked) -> None:
    for name in SUMS[:-1]:
        assert whole[name] == sum(row[name] for row in whole["months"]), name


async def _totals(store: BookStore, scope: Scope, months: Sequence[tuple[int, int]]) -> dict[str, Asked]:
    first, last = (f"{year:04d}-{month:02d}" for year, month in (months[0], months[-1]))
    answer = await _read(store, "revenue-monthly-totals", scope, from_=first, to=last)
    return {row["month"]: row for row in answer["months"]}


async def _coming(store: BookStore, scope: Scope, month: tuple[int, int]) -> list[Asked]:
    """The bills from today until a month's end, those that are only forecast, too."""
    end = date(month[0], month[1], 28) + timedelta(days=4)
    asked = {"from_": scope.today.isoformat(), "to": (end - timedelta(days=end.day)).isoformat()}
    answer = await _read(store, "upcoming", scope, forecast="true", **asked)
    return answer["payments"]


async def _accounts_add_up(store: BookStore, scope: Scope) -> None:
    """All accounts together are the whole."""
    whole, *parts = [
        await _annual(store, replace(scope, account=each), [scope.today.year])
        for each in (None, "", "acct_b")
    ]
    for name, row in whole.items():
        for key in SUMS:
            assert row[key] == sum(part[name][key] for part in parts), f"{key} of {name}"


async def _read(store: BookStore, name: str, scope: Scope, **query: str) -> Asked:
    return await document(store, name, scope.currency, scope.today, scope.account, **query)


def _sums(row: Asked) -> Asked:
    return {name: row[name] for name in SUMS}


def _customer(row: Asked) -> tuple[str, ...]:
    return row["processor"], row["account"], row["customer_id"]


def _bill(row: Asked, day: str) -> tuple[Any, ...]:
    return row[day], row["customer_id"], row["contract_id"], row["invoice_id"], row["amount_cents"]

"""Lists of upcoming bills and of contracts."""

from collections.abc import Sequence
from datetime import date
from itertools import groupby
from typing import Any, cast

from msgspec import Struct, json
from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_

from projections.bills import Bill, Contract, mrr_on
from projections.customers import CustomerName
from service.books.overdue import makes_contract_overdue
from service.books.tables import ROWS
from service.books.view import View
from service.core import cadence
from service.core.errors import ParameterError
from service.reads.bill_rows import bill_rows, forecast_row, position
from service.reads.coming import rolled_schedules

_contracts = ROWS[Contract]
_bills = ROWS[Bill]
_names = ROWS[CustomerName]


def upcoming(view: View, first: date, last: date, *, with_forecast: bool = False) -> dict[str, Any]:
    """Stated next bills and drafts between two days, overdue ones too, and their sums by day.

    Beside them is the sum of what rolling on adds; `with_forecast` lists these bills, too.
    """
    start, end = first.isoformat(), last.isoformat()
    rows = bill_rows(view, start, end, upcoming_only=True)
    forecast = [bill for each in rolled_schedules(view, start, end) for bill in each.bills()]
    listed = sorted([*rows, *map(forecast_row, forecast if with_forecast else ())], key=position)
    days = {day: list(bills) for day, bills in groupby(rows, key=lambda row: row["date"])}
    return {
        "currency": view.scope.currency,
        "from": start,
        "to": end,
        "total_cents": sum(row["amount_cents"] for row in rows),
        "payments_count": len(rows),
        "customers_count": len(_customers(rows)),
        "forecast_cents": sum(bill.amount_cents for bill in forecast),
        "forecast_count": len(forecast),
        "days": [
            {
                "billing_date": day,
                "payment_count": len(bills),
                "daily_revenue_cents": sum(row["amount_cents"] for row in bills),
                "customers": sorted({row["customer_name"] or row["customer_id"] for row in bills}),
            }
            for day, bills in days.items()
        ],
        "payments": [_upcoming_payment(row, view.scope.today) for row in listed],
    }


def _upcoming_payment(row: dict[str, Any], today: date) -> dict[str, Any]:
    return {
        "next_bill_date": row["date"],
        "customer_id": row["customer_id"],
        "customer_name": row["customer_name"],
        "contract_id": row["contract_id"],
        "amount_cents": row["amount_cents"],
        "interval": row["interval"],
        "every": row["every"],
        "billing_schedule": row["schedule"],
        "days_until_payment": (date.fromisoformat(row["date"]) - today).days,
        "declined": row["declined"],
        "processor": row["processor"],
        "status": row["status"],
        "invoice_id": row["invoice_id"],
        "trust": row["trust"],
        "causes": row["causes"],
    }


def _customers(rows: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(row["processor"], row["account"], row["customer_id"]) for row in rows}


class ContractPage(Struct, frozen=True, kw_only=True):
    """Which contracts to list. `after` is the `next_cursor` of the page before; without a limit, all."""

    status: str | None
    overdue: bool
    limit: int | None
    after: str | None


def contracts(view: View, asked: ContractPage) -> dict[str, Any]:
    """One page of contracts by the customer's name, else id; `next_cursor` is None on the last page.

    A cursor names a contract and no customer: addresses are logged. Raises ParameterError for another one.
    """
    # The columns' own collation: by bytes, on every database.
    order = (
        func.coalesce(func.nullif(_names.c.name, ""), _contracts.c.customer_id),
        *(_contracts.c[name] for name in ("contract_id", "account", "processor")),
    )
    query = view.with_names(select(_contracts), _contracts).where(*view.filters(_contracts, "bills"))
    if asked.status:
        query = query.where(_contracts.c.status == asked.status.lower())
    if asked.overdue:
        late = select(_bills.c.key).where(
            *view.filters(_bills, "bills"), makes_contract_overdue(view.scope.today)
        )
        query = query.where(_contracts.c.parent_key.in_(late))
    if asked.after:
        query = query.where(tuple_(*order) > _place(view, order, asked.after))
    rows = view.all(query.order_by(*order).limit(None if asked.limit is None else asked.limit + 1))
    page = rows[: asked.limit]
    return {
        "currency": view.scope.currency,
        "contracts": [_contract(row, view.scope.today.isoformat()) for row in page],
        "next_cursor": page[-1].parent_key if len(rows) > len(page) else None,
    }


def _place(view: View, order: Sequence[ColumnElement[str]], key: str) -> ColumnElement[Any]:
    """Where a contract stands in the list now. Raises ParameterError if there is none with this key."""
    names = view.with_names(cast(Select[Any], select(*order)), _contracts)
    row = view.connection.execute(
        names.where(*view.filters(_contracts, "bills"), _contracts.c.parent_key == key)
    ).first()
    if row is None:
        raise ParameterError("cursor: the `next_cursor` of the page before")
    return tuple_(*map(literal, row[: len(order)]))


def _contract(row: Any, today: str) -> dict[str, Any]:
    past_once = row.interval == cadence.ONCE and (row.next_bill_date or "") < today
    return {
        "contract_id": row.contract_id,
        "customer_id": row.customer_id,
        "customer_name": row.customer_name,
        "status": row.status,
        "schedule": cadence.schedule_label(row.interval, row.every),
        "cadence": cadence.cadence_label(row.interval, row.every),
        "interval": row.interval,
        "every": row.every,
        "amount_cents": row.amount_cents,
        "currency": row.currency,
        "mrr_cents": mrr_on(row.terms, today),
        "next_bill_date": None if past_once else row.next_bill_date,
        "ends_date": row.ends_date,
        "declined": row.declined,
        "unpriced": row.unpriced,
        "unknown_status": row.unknown_status,
        "tied": row.tied,
        "processor": row.processor,
        "account": row.account,
        "trust": row.trust,
        "causes": json.decode(row.causes),
    }

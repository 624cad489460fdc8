"""Lists of upcoming bills and of contracts."""

from datetime import date
from itertools import groupby
from typing import Any

from msgspec import json
from sqlalchemy import select

from projections.bills import Contract, mrr_on
from service.books.tables import ROWS
from service.books.view import View
from service.core import cadence
from service.reads.bill_rows import bill_rows, forecast_row, position
from service.reads.coming import rolled_schedules

_contracts = ROWS[Contract]


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


def contracts(view: View, status: str | None, limit: int | None, after: str | None) -> dict[str, Any]:
    """One page of contracts in the order of their keys; `next_cursor` is None on the last page.

    Without a `limit` the page holds all that are left.
    """
    query = view.with_names(select(_contracts), _contracts).where(*view.filters(_contracts, "bills"))
    if status:
        query = query.where(_contracts.c.status == status)
    if after:
        query = query.where(_contracts.c.parent_key > after)
    rows = view.all(query.order_by(_contracts.c.parent_key).limit(None if limit is None else limit + 1))
    page = rows[:limit]
    return {
        "currency": view.scope.currency,
        "contracts": [_contract(row, view.scope.today.isoformat()) for row in page],
        "next_cursor": page[-1].parent_key if len(rows) > len(page) else None,
    }


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

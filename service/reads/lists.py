"""Lists of upcoming bills and of contracts."""

from datetime import date
from typing import Any

from msgspec import json
from sqlalchemy import select

from projections.bills import Contract, mrr_on
from service.books.tables import ROWS
from service.books.view import View
from service.core import cadence
from service.reads.months import bill_rows

_contracts = ROWS[Contract]


def upcoming(view: View, first: date, last: date) -> dict[str, Any]:
    """Next bills and drafts between two days, one for each contract, and their sums by day."""
    rows = bill_rows(view, first.isoformat(), last.isoformat(), upcoming_only=True)
    payments = [
        {
            "next_bill_date": row["date"],
            "customer_id": row["customer_id"],
            "customer_name": row["customer_name"],
            "contract_id": row["contract_id"],
            "amount_cents": row["amount_cents"],
            "billing_schedule": row["schedule"],
            "days_until_payment": (date.fromisoformat(row["date"]) - view.scope.today).days,
            "declined": row["declined"],
            "processor": row["processor"],
            "status": row["status"],
            "invoice_id": row["invoice_id"],
            "trust": row["trust"],
            "causes": row["causes"],
        }
        for row in rows
    ]
    days: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        days.setdefault(row["date"], []).append(row)
    return {
        "currency": view.scope.currency,
        "from": first.isoformat(),
        "to": last.isoformat(),
        "total_cents": sum(row["amount_cents"] for row in rows),
        "payments_count": len(rows),
        "customers_count": len(_customers(rows)),
        "days": [
            {
                "billing_date": day,
                "payment_count": len(bills),
                "daily_revenue_cents": sum(row["amount_cents"] for row in bills),
                "customers": sorted({row["customer_name"] or row["customer_id"] for row in bills}),
            }
            for day, bills in days.items()
        ],
        "payments": payments,
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
        query = query.where(_contracts.c.key > after)
    rows = view.all(query.order_by(_contracts.c.key).limit(None if limit is None else limit + 1))
    page = rows[:limit]
    return {
        "currency": view.scope.currency,
        "contracts": [_contract(row, view.scope.today.isoformat()) for row in page],
        "next_cursor": page[-1].key if len(rows) > len(page) else None,
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
        "tied": row.tied,
        "processor": row.processor,
        "account": row.account,
        "trust": row.trust,
        "causes": json.decode(row.causes),
    }

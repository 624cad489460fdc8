"""The demo's report: tables made from the API's answers."""

from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from service.core.errors import DaybookError
from service.core.money import format_minor
from service.demo.posts import STRIPE_ACCOUNT

_MXMERCHANT_ACCOUNT = "1000000001"
_TODAY = "2025-11-30"
_URLS = (
    f"/api/v1/revenue/month-detail?year=2025&month=11&account={STRIPE_ACCOUNT}",
    f"/api/v1/mrr?today={_TODAY}",
    "/api/v1/mrr/movements?from=2025-10&to=2025-12",
    "/api/v1/upcoming?from=2025-11-13&to=2025-12-13&format=csv",
    "/api/v1/ledger/causes/stripe:evt_demo0041",
    "/docs",
)


def print_november(client: httpx.Client, position: int, console: Console) -> None:
    """Print the weeks, the ten largest bills, and MRR and upcoming bills of both processors."""
    query = {"at_least": position, "timeout_ms": 20_000, "today": _TODAY}
    detail = {"year": 2025, "month": 11, **query}
    stripe = _get(client, "/api/v1/revenue/month-detail", {**detail, "account": STRIPE_ACCOUNT})
    console.print(_weeks(stripe))
    console.print(_top(stripe))
    console.print(_mrr(client, query))
    console.print(_upcoming(client, query))


def print_urls(client: httpx.Client, console: Console) -> None:
    """Print URLs to try while the service stays up."""
    console.print("\nIt stays up; try these, and stop it with Ctrl-C:")
    for url in _URLS:
        console.print(f"  {str(client.base_url).rstrip('/')}{url}", highlight=False, soft_wrap=True)


def _get(client: httpx.Client, path: str, query: dict[str, Any]) -> dict[str, Any]:
    answer = client.get(path, params=query, timeout=30)
    if answer.status_code != httpx.codes.OK:
        raise DaybookError(f"{path} answered {answer.status_code}: {answer.text}")
    document: dict[str, Any] = answer.json()
    return document


def _money(cents: int) -> str:
    return f"${format_minor(cents, 'usd')}"


def _weeks(month: dict[str, Any]) -> Table:
    summary = month["summary"]
    table = Table(title="November 2025 (Stripe)", title_justify="left", show_footer=True)
    table.add_column("Week", "All")
    table.add_column("From")
    table.add_column("To")
    table.add_column("Customers", str(summary["customers"]), justify="right")
    table.add_column("Payments", str(summary["payments"]), justify="right")
    table.add_column("Total", _money(summary["total_cents"]), justify="right")
    for week in month["weeks"]:
        counts = (str(week["customers"]), str(week["payments"]), _money(week["total_cents"]))
        table.add_row(str(week["week"]), week["from"], week["to"], *counts)
    return table


def _top(month: dict[str, Any]) -> Table:
    share_text = f"{month['top_share']:.2%} of the month"
    table = Table(title=f"The ten largest bills ({share_text})", title_justify="left")
    for name in ("Rank", "Customer", "Date", "Cadence"):
        table.add_column(name)
    table.add_column("Amount", justify="right")
    for bill in month["top"]:
        amount = _money(bill["amount_cents"])
        table.add_row(str(bill["rank"]), bill["customer_id"], bill["date"], bill["cadence"], amount)
    return table


def _mrr(client: httpx.Client, query: dict[str, Any]) -> Table:
    table = Table(title="MRR at the end of the month", title_justify="left")
    table.add_column("Processor")
    for name in ("Contracts", "Customers", "MRR"):
        table.add_column(name, justify="right")
    scopes = (("Stripe", STRIPE_ACCOUNT), ("MX Merchant", _MXMERCHANT_ACCOUNT), ("Both", None))
    for label, account in scopes:
        scope = {"account": account} if account else {}
        mrr = _get(client, "/api/v1/mrr", {**query, **scope})
        table.add_row(label, str(mrr["active_contracts"]), str(mrr["customers"]), _money(mrr["mrr_cents"]))
    return table


def _upcoming(client: httpx.Client, query: dict[str, Any]) -> Table:
    table = Table(title="Coming, 13 November to 13 December 2025", title_justify="left")
    table.add_column("Processor")
    table.add_column("Payments", justify="right")
    table.add_column("Total", justify="right")
    days = {"from": "2025-11-13", "to": "2025-12-13"}
    for label, account in (("Stripe", STRIPE_ACCOUNT), ("MX Merchant", _MXMERCHANT_ACCOUNT)):
        upcoming = _get(client, "/api/v1/upcoming", {**query, **days, "account": account})
        table.add_row(label, str(upcoming["payments_count"]), _money(upcoming["total_cents"]))
    return table

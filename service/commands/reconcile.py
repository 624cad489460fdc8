"""`daybook reconcile`: what processors' APIs say, beside the ledger and the books."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from service import bootstrap
from service.clock import utc_now
from service.commands.shell import EXIT_FAULT, Json, command, progress, show
from service.core.errors import ParameterError
from service.sync.reconcile import run as reconciling

if TYPE_CHECKING:
    from service.settings import Settings
    from service.sync.reconcile.report import ReconciliationReport
    from service.sync.reconcile.run import Reconciliation

app = typer.Typer(no_args_is_help=True, help="Compare processors' APIs with the ledger and the books.")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what is missing and differs; write nothing.")]
Since = Annotated[str, typer.Option(help="How far back to list events: 30d, 12h. Stripe keeps 30 days.")]


@app.command()
def stripe(*, since: Since = "30d", dry_run: DryRun = False, json: Json = False) -> None:
    """Append the events that Stripe lists and the ledger lacks; compare live subscriptions, open invoices.

    One that differs is recorded as Stripe shows it. Exits 0 if nothing differs any more, 1 if something does
    (or a dry run found events missing), 2 if a setting or an argument is wrong, 3 if Stripe or a store can't
    be used or the books don't catch up.

    For example:

        daybook reconcile stripe --since 12h
        daybook reconcile stripe --dry-run
    """
    with command() as settings:
        back = _span(since)
        _reconcile(settings, lambda run, now: run.stripe(now - back, dry_run=dry_run), as_json=json)


@app.command()
def mxmerchant(*, dry_run: DryRun = False, json: Json = False) -> None:
    """Append the payments and contracts that MX Merchant lists and the ledger lacks; compare all of them.

    One that differs is recorded as MX Merchant shows it, and a contract that is not listed has ended.
    Exits as `reconcile stripe` does.

    For example:

        daybook reconcile mxmerchant
        daybook reconcile mxmerchant --json
    """
    with command() as settings:
        _reconcile(settings, lambda run, _: run.mxmerchant(dry_run=dry_run), as_json=json)


def _span(text: str) -> timedelta:
    stated = re.fullmatch("([1-9][0-9]{0,3})([dh])", text)
    if stated is None:
        raise ParameterError("--since: a number of days or hours, such as 30d or 12h")
    return timedelta(**{{"d": "days", "h": "hours"}[stated[2]]: int(stated[1])})


def _reconcile(
    settings: "Settings",
    work: "Callable[[Reconciliation, datetime], Awaitable[ReconciliationReport]]",
    *,
    as_json: bool,
) -> None:
    async def reconcile() -> "ReconciliationReport":
        ledger, store = bootstrap.open_ledger(settings), bootstrap.open_books(settings)
        try:
            with progress("listed and compared") as advance:
                run = reconciling.Reconciliation(settings, ledger, store, utc_now, advance)
                return await work(run, utc_now())
        finally:
            await store.close()
            await ledger.close()

    bootstrap.prepare(settings)
    report = asyncio.run(reconcile())
    show(report.document(), lambda: _render(report), as_json=as_json)
    if not report.is_clean:
        raise typer.Exit(EXIT_FAULT)


def _render(report: "ReconciliationReport") -> RenderableType:
    """The report as tables for people."""
    how = "would be appended" if report.dry_run else "appended"
    missed, mended = _counted(report.missed), _counted(report.mended)
    seen = ", ".join(f"{kind}s {count}" for kind, count in report.compared.items())
    message = (
        f"{report.processor}: {report.listed} listed; {how}: {missed}. "
        f"Compared: {seen}; mended: {mended}; {report.differing} differ."
    )
    table = Table("kind", "id", "account", "field", report.processor, "books", "mended")
    for difference in report.differences:
        values = ("" if value is None else str(value) for value in (difference.stated, difference.books))
        table.add_row(
            difference.kind,
            difference.id,
            difference.account,
            difference.field,
            *values,
            "yes" if difference.mended else "no",
        )
    return Group(message, *([table] if report.differences else []))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing"

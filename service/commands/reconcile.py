"""`daybook reconcile`: what processors' APIs say, beside the ledger and the books."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.shell import EXIT_FAULT, Json, command, progress, show
from service.core.errors import ParameterError
from service.settings import Settings

if TYPE_CHECKING:
    from service.sync.reconcile.report import ReconciliationReport
    from service.sync.reconcile.run import Reconciliation

app = typer.Typer(no_args_is_help=True, help="Compare processors' APIs with the ledger and the books.")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what is missing and differs; write nothing.")]
Since = Annotated[str, typer.Option(help="How far back to list events: 30d, 12h. Stripe keeps 30 days.")]


@app.command()
def stripe(*, since: Since = "30d", dry_run: DryRun = False, json: Json = False) -> None:
    """Append the events that Stripe lists and the ledger lacks; compare live subscriptions, open invoices.

    Exits 0 if nothing differs, 1 if something does (or a dry run found events missing), 2 if a setting or
    an argument is wrong, 3 if Stripe or a store can't be used or the books don't catch up.
    """
    with command() as settings:
        back = _span(since)
        _reconcile(settings, lambda run, now: run.stripe(now - back, dry_run=dry_run), as_json=json)


@app.command()
def mxmerchant(*, dry_run: DryRun = False, json: Json = False) -> None:
    """Append the payments and contracts that MX Merchant lists and the ledger lacks; compare all of them.

    Exits as `reconcile stripe` does.
    """
    with command() as settings:
        _reconcile(settings, lambda run, _: run.mxmerchant(dry_run=dry_run), as_json=json)


def _span(text: str) -> timedelta:
    stated = re.fullmatch("([1-9][0-9]{0,3})([dh])", text)
    if stated is None:
        raise ParameterError("--since: a number of days or hours, such as 30d or 12h")
    return timedelta(**{{"d": "days", "h": "hours"}[stated[2]]: int(stated[1])})


def _reconcile(
    settings: Settings,
    work: "Callable[[Reconciliation, datetime], Awaitable[ReconciliationReport]]",
    *,
    as_json: bool,
) -> None:
    from service.bootstrap import open_books, open_ledger, prepare  # noqa: PLC0415
    from service.clock import utc_now  # noqa: PLC0415
    from service.sync.reconcile.report import to_tables  # noqa: PLC0415
    from service.sync.reconcile.run import Reconciliation  # noqa: PLC0415

    async def run() -> "ReconciliationReport":
        ledger, store = open_ledger(settings), open_books(settings)
        try:
            with progress("listed and compared") as done:
                return await work(Reconciliation(settings, ledger, store, utc_now, done), utc_now())
        finally:
            await store.close()
            await ledger.close()

    prepare(settings)
    report = asyncio.run(run())
    show(report.document(), lambda: to_tables(report), as_json=as_json)
    if not report.is_clean:
        raise typer.Exit(EXIT_FAULT)

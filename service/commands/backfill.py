"""`daybook backfill`: the history from before the first webhook."""

import asyncio
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from service import bootstrap
from service.clock import utc_now
from service.commands.shell import EXIT_FAULT, Json, command, progress, show
from service.core.errors import ParameterError
from service.queue import nudge
from service.sync.backfill import run as backfilling
from service.sync.reconcile import run as reconciling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.core.delivery import Processor
    from service.settings import Settings
    from service.sync.backfill.report import BackfillReport


def _names() -> list[str]:
    return list(reconciling.processors_with_api())


Name = Annotated[
    str | None,
    typer.Argument(metavar="PROCESSOR", autocompletion=_names, help="By default each whose API is set up."),
]
Accounts = Annotated[
    list[str] | None, typer.Option("--account", help="A connected account, in place of the key's own.")
]
Since = Annotated[
    str | None, typer.Option(metavar="DATE", help="Leave out what was created before this day: 2024-01-01.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count what would be recorded; write nothing.")]


def backfill(
    processor: Name = None,
    *,
    account: Accounts = None,
    since: Since = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Read what a processor's API holds into the ledger: the history from before the first webhook.

    Each object is recorded as observed now, unless it was last observed like that. A run that was stopped
    continues where it was; one that has finished begins anew. Exits 0; 1 if the API refused a list, or an
    object can't be read; 2 if a setting or an argument is wrong; 3 if the API or a store can't be used.

    For example:

        daybook backfill
        daybook backfill stripe --since 2024-01-01 --dry-run
        daybook backfill stripe --account acct_1 --account acct_2
    """
    with command() as settings:
        asked = _processors(settings, processor)
        began = _start_of_day(since, settings)
        for each in asked:
            backfilling.check_arguments(each, account or (), began)
        bootstrap.prepare(settings)
        reports = asyncio.run(_backfill(settings, asked, account or (), began, dry_run=dry_run))
        show(reports, lambda: Group(*map(_render, reports)), as_json=json)
        if not all(report.is_whole for report in reports):
            raise typer.Exit(EXIT_FAULT)


def _processors(settings: "Settings", name: str | None) -> "list[Processor]":
    """The processor of this name, or all whose API is set up. Raises ParameterError, NotConfigured."""
    if name is None:
        return backfilling.configured_processors(settings)
    found = reconciling.processors_with_api()
    if name not in found:
        raise ParameterError(f"PROCESSOR: {' or '.join(found)}")
    return [found[name]]


def _start_of_day(text: str | None, settings: "Settings") -> datetime | None:
    """The moment at which a day begins in the reporting zone. Raises ParameterError."""
    if text is None:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time(), ZoneInfo(settings.reporting_tz))
    except ValueError:
        raise ParameterError("--since: a day such as 2024-01-01") from None


async def _backfill(
    settings: "Settings",
    processors: "Sequence[Processor]",
    accounts: "Sequence[str]",
    since: datetime | None,
    *,
    dry_run: bool,
) -> "list[BackfillReport]":
    ledger = bootstrap.open_ledger(settings)
    try:
        reports = []
        for processor in processors:
            reports += await backfilling.backfill(
                settings,
                processor,
                ledger,
                utc_now,
                accounts=accounts,
                since=since,
                dry_run=dry_run,
                progress=progress,
            )
    finally:
        await ledger.close()
    if settings.redis_url and not dry_run:
        await nudge.nudge_once(settings.redis_url, settings.redis_prefix)
    return reports


def _render(report: "BackfillReport") -> RenderableType:
    """The report as a table for people, and what is missing."""
    name = f"{report.processor} {report.account}".strip()
    table = Table(name, "listed", "would be recorded" if report.dry_run else "recorded", "quarantined")
    for each in report.lists:
        if not each.refused:
            table.add_row(each.name, *map(str, (each.listed, each.recorded, each.quarantined)))
    left_out = [
        f"{name}: the API refused {each.name} ({each.refused}). Without them: {each.figures}."
        for each in report.lists
        if each.refused
    ]
    return Group(table, *left_out)

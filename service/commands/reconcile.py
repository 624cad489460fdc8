"""`daybook reconcile`: what a processor's API says, beside the ledger and the books."""

import asyncio
import re
from datetime import timedelta
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
    from service.core.delivery import Processor
    from service.settings import Settings
    from service.sync.reconcile.report import ReconciliationReport


def _names() -> list[str]:
    return list(reconciling.processors_with_api())


Name = Annotated[str, typer.Argument(metavar="PROCESSOR", autocompletion=_names, help="Such as stripe.")]
Since = Annotated[
    str | None,
    typer.Option(help="How far back to list events: 30d, 12h. By default as far as they are listed."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what is missing and differs; write nothing.")]


def reconcile(processor: Name, *, since: Since = None, dry_run: DryRun = False, json: Json = False) -> None:
    """Compare a processor's API with the ledger and the books.

    Appends the events, payments and contracts that the API lists and the ledger lacks. Of contracts, open
    invoices and payments, one that differs is recorded as the API shows it; a contract that a whole list no
    longer has has ended. Exits 0 if nothing differs any more, 1 if something does (or a dry run found events
    missing), 2 if a setting or an argument is wrong, 3 if the API or a store can't be used or the books don't
    catch up.

    For example:

        daybook reconcile stripe --since 12h
        daybook reconcile stripe --dry-run
        daybook reconcile mxmerchant --json
    """
    with command() as settings:
        asked = _processor(processor)
        back = _span(since, asked)
        bootstrap.prepare(settings)
        report = asyncio.run(_reconcile(settings, asked, back, dry_run=dry_run))
        show(report.document(), lambda: _render(report), as_json=json)
        if not report.is_clean:
            raise typer.Exit(EXIT_FAULT)


def _processor(name: str) -> "Processor":
    """The processor of this name. Raises ParameterError if there is none with an API."""
    found = reconciling.processors_with_api()
    if name not in found:
        raise ParameterError(f"PROCESSOR: {' or '.join(found)}")
    return found[name]


def _span(text: str | None, processor: "Processor") -> timedelta | None:
    """How far back to list events; None where the API lists none. Raises ParameterError."""
    log = processor.api and processor.api.events
    if text is None:
        return timedelta(days=log.days) if log else None
    if log is None:
        raise ParameterError(f"--since: the API of {processor.name} lists no events")
    stated = re.fullmatch("([1-9][0-9]{0,3})([dh])", text)
    if stated is None:
        raise ParameterError("--since: a number of days or hours, such as 30d or 12h")
    return timedelta(**{{"d": "days", "h": "hours"}[stated[2]]: int(stated[1])})


async def _reconcile(
    settings: "Settings", processor: "Processor", back: timedelta | None, *, dry_run: bool
) -> "ReconciliationReport":
    ledger, store = bootstrap.open_ledger(settings), bootstrap.open_books(settings)
    try:
        with progress("listed and compared") as advance:
            run = reconciling.Reconciliation(settings, ledger, store, utc_now, advance)
            return await run.run(processor, utc_now() - back if back else None, dry_run=dry_run)
    finally:
        await store.close()
        await ledger.close()


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

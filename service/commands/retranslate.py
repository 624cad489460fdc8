"""`daybook retranslate`: today's translators over what came before them."""

import asyncio
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from service import bootstrap
from service.clock import utc_now
from service.commands.shell import EXIT_FAULT, ByChain, Json, command, progress, show
from service.intake import quarantine
from service.intake import retranslate as retranslation
from service.maintenance import preview

if TYPE_CHECKING:
    from service.intake.retranslate import RetranslationReport
    from service.settings import Settings


def retranslate(
    *,
    processor: Annotated[
        str | None, typer.Option(help="Only what this processor sent; standard: all in-house billers.")
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Only deliveries after this ledger position.")] = 0,
    apply: Annotated[bool, typer.Option("--apply", help="Append what sets the differences right.")] = False,
    by_chain: ByChain = False,
    limit: Annotated[int, typer.Option(min=0, help="So many differences are listed; all are counted.")] = 100,
    json: Json = False,
) -> None:
    """Read all raw deliveries, and quarantine, with today's translators; show the differences.

    Nothing is written without --apply. Exits 0 if nothing differs or it was applied, 1 if something
    differs, 2 if a setting is wrong or there is no ledger, 3 if the ledger can't be used.

    For example:

        daybook retranslate --processor stripe
        daybook retranslate --apply
    """

    async def run(settings: "Settings") -> "RetranslationReport":
        async with bootstrap.existing_ledger(settings) as ledger:
            if apply:
                bootstrap.prepare(settings, books=False)
            retranslator = retranslation.Retranslator(
                ledger,
                utc_now,
                settings,
                processor=processor,
                apply=apply,
                by_chain=by_chain,
                max_changes=limit,
            )
            async with ledger.reading() as reader:
                head = (await reader.head()).position
            waiting = len(await quarantine.retryable_entries(ledger))
            with progress("retranslate", max(head - after, 0) + waiting) as advance:
                report = await retranslator.run(after, advance)
            if report.differs and not apply:
                today = utc_now().astimezone(ZoneInfo(settings.reporting_tz)).date()
                store = bootstrap.open_books(settings)
                try:
                    report.figures = await preview.preview(ledger, store, retranslator.events, today)
                finally:
                    await store.close()
            return report

    with command() as settings:
        report = asyncio.run(run(settings))
    show(report, lambda: _render(report), as_json=json)
    if report.differs and not apply:
        raise typer.Exit(EXIT_FAULT)


def _render(report: "RetranslationReport") -> RenderableType:
    table = Table("event", "position", "type", "field", "before", "after", box=None)
    for change in report.changes:
        columns = (change.cause, str(change.position or "quarantine"), change.type)
        for difference in change.differences:
            values = (repr(difference.before), repr(difference.after))
            table.add_row(*columns, difference.field, *values)
        if not change.differences:
            table.add_row(*columns, change.kind, "", "")
    listed = [table] if report.changes else []
    return Group(*listed, "\n".join(_summary(report)))


def _summary(report: "RetranslationReport") -> list[str]:
    left_out = ", ".join(f"{count} {why}" for why, count in sorted(report.left_out.items())) or "none"
    lines = [
        f"deliveries read again: {report.deliveries}; left out: {left_out}",
        f"can't be read any more, and stay as they are: {report.refused}",
        f"in quarantine, can be read now: {report.released}",
        f"events changed: {report.changed}, added: {report.added}, dropped: {report.dropped}",
    ]
    omitted = report.changed + report.added + report.dropped - len(report.changes)
    if omitted:
        lines.append(f"not listed: {omitted} more")
    lines += [
        f"{impact.figure}: {impact.before_cents} → {impact.after_cents} ({impact.currency})"
        for impact in report.figures or ()
    ]
    if report.differs:
        lines.append("applied" if report.applied else "nothing was written; --apply appends it")
    return lines

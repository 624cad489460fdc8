"""`daybook import`: files into the ledger."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service import bootstrap
from service.clock import utc_now
from service.commands.shell import EXIT_FAULT, Json, command, progress, show
from service.core.errors import ParameterError
from service.ledger import master_key
from service.queue import nudge
from service.transfer import contract_table, importer, mxmerchant, observations, sources, stripe
from service.transfer import ledger_import as ledgers

if TYPE_CHECKING:
    from service.core.delivery import ModeOf
    from service.settings import Settings
    from service.transfer.importer import ImportItem, ImportSummary, LineFault, SkipKnown
    from service.transfer.observations import Observation
    from service.transfer.sources import ImportSource

    Read = Callable[[ImportSource, ModeOf], Iterator[ImportItem | LineFault]]

app = typer.Typer(no_args_is_help=True, help="Take a file into the ledger. Repeating it changes nothing.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="Compressed if its name ends in .gz.")]
FileOrDash = Annotated[
    Path, typer.Argument(metavar="FILE|-", help="Standard input for -; compressed if its name ends in .gz.")
]
Account = Annotated[str, typer.Option(help="The account of all events that name none.")]
ObservedAt = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="The time of its content, in RFC 3339; by default its last change."),
]


@app.command("stripe")
def import_stripe(file: FileOrDash, *, account: Account = "", json: Json = False) -> None:
    """Events as Stripe exports them: one on each line, or pages of `stripe events list`.

    Exits 0, 1 if a line could not be read or is in quarantine, 2 if an argument is wrong, 3 if a store
    can't be used.

    For example:

        daybook import stripe events.jsonl.gz
        daybook import stripe - --account acct_1
    """
    _import(
        file,
        lambda source, mode_of: stripe.read_events(source, utc_now(), account, mode_of),
        importer.skip_none,
        as_json=json,
    )


@app.command("mxmerchant")
def import_mxmerchant(file: File, *, observed_at: ObservedAt = None, json: Json = False) -> None:
    """Contract records of MX Merchant, as its API lists them, and notifications.

    Exits 0, 1 if a record could not be read or is in quarantine, 2 if an argument is wrong, 3 if a store
    can't be used.

    For example:

        daybook import mxmerchant contracts.json
        daybook import mxmerchant contracts.json --observed-at 2025-11-05T12:00:00Z
    """
    with command() as settings:
        observation = _observation(settings, file, observed_at)
    _import(
        file,
        lambda source, _mode_of: mxmerchant.read_records(source, observation),
        observations.skip_known,
        as_json=json,
    )


@app.command("csv")
def import_csv(
    file: File,
    *,
    observed_at: ObservedAt = None,
    account: Account = "",
    biller: Annotated[str, typer.Option(help="Whose contracts: the in-house biller's name.")] = "csv",
    json: Json = False,
) -> None:
    """A table of contracts with their next bills.

    Columns: customer_id, next_bill_date, amount_cents, interval, every; and, if you like, subscription_id,
    customer_name, currency, status, start_date. Exits 0, 1 if a row could not be read or is in
    quarantine, 2 if an argument or the first line is wrong, 3 if a store can't be used.

    For example:

        daybook import csv contracts.csv
        daybook import csv contracts.csv --biller acme --observed-at 2025-11-05T12:00:00Z
    """
    with command() as settings:
        observation = _observation(settings, file, observed_at)
    _import(
        file,
        lambda source, _mode_of: contract_table.read_contracts(source, observation, biller, account),
        observations.skip_known,
        as_json=json,
    )


@app.command("ledger")
def import_ledger(file: FileOrDash, *, json: Json = False) -> None:
    """What `daybook export ledger` wrote, here or elsewhere. Take it from nobody whom you don't trust.

    Exits 0, 1 if the file was cut or changed, or holds what this version can't read, 2 if an argument is
    wrong, 3 if a store can't be used.

    For example:

        daybook import ledger ledger.ndjson.gz
        daybook import ledger -
    """
    _import(file, ledgers.read_ledger, ledgers.skip_known, as_json=json, holds_quarantine=True)


def _observation(settings: "Settings", file: Path, stated: str | None) -> "Observation":
    """The time for which a file's contracts hold. Raises ParameterError if it is none, or in the future."""
    sources.check_readable(file)
    try:
        at = datetime.fromisoformat(stated) if stated else sources.last_modified(file)
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ParameterError("--observed-at: a time such as 2025-11-30T12:00:00Z") from None
    if at > utc_now():
        raise ParameterError("--observed-at: it is to come" if stated else f"{file} is of a day to come")
    bootstrap.prepare(settings)
    return observations.Observation(
        observed_at=at, is_stated=stated is not None, keyed_digest=master_key.open_vault(settings).digest
    )


def _import(
    file: Path, read: "Read", skip_known: "SkipKnown", *, as_json: bool, holds_quarantine: bool = False
) -> None:
    with command() as settings:
        summary = asyncio.run(_import_file(settings, file, read, skip_known))
        show(summary, lambda: _summary_text(summary), as_json=as_json)
        stopped = 0 if holds_quarantine else summary.quarantined + summary.conflicts
        if summary.unreadable_lines or stopped:
            raise typer.Exit(EXIT_FAULT)


def _summary_text(summary: "ImportSummary") -> str:
    counts = [
        f"{count:>10} {name}"
        for name, count in (
            ("deliveries", summary.deliveries),
            ("recorded", summary.recorded),
            ("duplicates", summary.duplicates),
            ("conflicts", summary.conflicts),
            ("quarantined", summary.quarantined),
            ("unreadable lines", summary.unreadable_lines),
            ("translated otherwise", summary.differences),
        )
        if count or name in ("deliveries", "recorded", "duplicates")
    ]
    notes = [f"line {note.line}: {note.detail}" for note in summary.notes]
    return "\n".join([*notes, *counts, f"The ledger is at position {summary.position}."])


async def _import_file(
    settings: "Settings", file: Path, read: "Read", skip_known: "SkipKnown"
) -> "ImportSummary":
    if file != sources.STANDARD_STREAM:
        sources.check_readable(file)
    bootstrap.prepare(settings)
    ledger = bootstrap.open_ledger(settings)
    try:
        with sources.open_source(file) as source, progress("bytes", source.size) as advance:
            summary = await importer.import_items(
                ledger,
                read(source, settings.mode_of),
                skip_known,
                utc_now,
                _byte_counter(source, advance),
            )
    finally:
        await ledger.close()
    if settings.redis_url and summary.recorded:
        await nudge.nudge_once(settings.redis_url, settings.redis_prefix, summary.position)
    return summary


def _byte_counter(source: "ImportSource", advance: Callable[[int], None]) -> Callable[[], None]:
    """Calls `advance` with the number of bytes that were read since its last call."""
    before = 0

    def count_bytes() -> None:
        nonlocal before
        advance(source.bytes_read - before)
        before = source.bytes_read

    return count_bytes

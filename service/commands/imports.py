"""`daybook import`: files into the ledger."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import handlers
from service import bootstrap
from service.clock import utc_now
from service.commands.shell import EXIT_FAULT, Json, command, progress, show
from service.core.errors import ParameterError
from service.ledger import master_key
from service.queue import nudge
from service.transfer import contract_table, export_files, importer, observations, sources
from service.transfer import ledger_import as ledgers

if TYPE_CHECKING:
    from service.core.delivery import ModeOf, Processor
    from service.settings import Settings
    from service.transfer.importer import ImportItem, ImportSummary, LineFault, SkipKnown
    from service.transfer.observations import Observation
    from service.transfer.sources import ImportSource

    Read = Callable[[ImportSource, ModeOf], Iterator[ImportItem | LineFault]]

_CSV, _LEDGER = "csv", "ledger"


def _sources() -> list[str]:
    return [*_processors(), _CSV, _LEDGER]


def _processors() -> "dict[str, Processor]":
    """The processors whose files can be imported, by name."""
    return {processor.name: processor for processor in handlers.PROCESSORS if processor.export_file}


Source = Annotated[
    str, typer.Argument(metavar="SOURCE", autocompletion=_sources, help="A processor, csv or ledger.")
]
File = Annotated[
    Path, typer.Argument(metavar="FILE|-", help="Standard input for -; compressed if its name ends in .gz.")
]
Account = Annotated[str | None, typer.Option(help="The account of all events that name none.")]
ObservedAt = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="The time of its content, in RFC 3339; by default its last change."),
]
Biller = Annotated[str | None, typer.Option(help="Whose contracts of a csv: the in-house biller's name.")]


def import_file(
    source: Source,
    file: File,
    *,
    account: Account = None,
    observed_at: ObservedAt = None,
    biller: Biller = None,
    json: Json = False,
) -> None:
    """Take a file into the ledger. Repeating it changes nothing.

    Of a processor: its events (one on each line, or pages of its list), or its contract records and
    notifications. A csv has contracts with their next bills, in the columns customer_id, next_bill_date,
    amount_cents, interval, every; and, if you like, subscription_id, customer_name, currency, status,
    start_date. A ledger is what `daybook export ledger` wrote; take it from nobody whom you don't trust.
    Exits 0, 1 if a line could not be read or is in quarantine, 2 if an argument is wrong, 3 if a store can't
    be used.

    For example:

        daybook import stripe events.jsonl.gz
        daybook import stripe - --account acct_1
        daybook import mxmerchant contracts.json --observed-at 2025-11-05T12:00:00Z
        daybook import csv contracts.csv --biller acme
        daybook import ledger ledger.ndjson.gz
    """
    options = {"account": account, "observed-at": observed_at, "biller": biller}
    with command() as settings:
        read, skip_known = _reader(settings, source, file, options)
    _import(file, read, skip_known, as_json=json, holds_quarantine=source == _LEDGER)


def _reader(
    settings: "Settings", source: str, file: Path, options: dict[str, str | None]
) -> "tuple[Read, SkipKnown]":
    """How a file is read, and which of its items are known already. Raises ParameterError."""
    processor = _processors().get(source)
    if source not in _sources():
        raise ParameterError(f"SOURCE: one of {', '.join(_sources())}")
    if source == _LEDGER:
        _refuse_options(source, options, ())
        return ledgers.read_ledger, ledgers.skip_known
    account = options["account"] or ""
    if processor and processor.export_file and not processor.export_file.are_observed:
        _refuse_options(source, options, ("account",) if processor.export_file.with_account else ())
        return (
            lambda stream, mode_of: export_files.read_events(processor, stream, utc_now(), account, mode_of),
            importer.skip_none,
        )
    _refuse_options(source, options, ("observed-at",) if processor else tuple(options))
    observation = _observation(settings, file, options["observed-at"])
    if processor:
        return (
            lambda stream, mode_of: export_files.read_observed(processor, stream, observation, mode_of),
            observations.skip_known,
        )
    biller = options["biller"] or _CSV
    return (
        lambda stream, _mode_of: contract_table.read_contracts(stream, observation, biller, account),
        observations.skip_known,
    )


def _refuse_options(source: str, options: dict[str, str | None], taken: Collection[str]) -> None:
    """Raise ParameterError for an option that is given and that this source does not take."""
    for name, value in options.items():
        if value is not None and name not in taken:
            raise ParameterError(f"--{name}: {source} takes none")


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
        await nudge.nudge_once(settings.redis_url, settings.redis_prefix)
    return summary


def _byte_counter(source: "ImportSource", advance: Callable[[int], None]) -> Callable[[], None]:
    """Calls `advance` with the number of bytes that were read since its last call."""
    before = 0

    def count_bytes() -> None:
        nonlocal before
        advance(source.bytes_read - before)
        before = source.bytes_read

    return count_bytes

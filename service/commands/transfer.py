"""`daybook import` and `daybook export`: files into the ledger, the ledger and the books into files."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.commands.shell import EXIT_FAULT, Json, command, progress, show
from service.core.errors import ParameterError, SettingsError

if TYPE_CHECKING:
    from service.settings import Settings
    from service.transfer.importer import Fault, SkipKnown, Summary, Told
    from service.transfer.ledger_format import End
    from service.transfer.observed import Observation
    from service.transfer.row_export import Exported, Format
    from service.transfer.sources import Source

    Read = Callable[[Source], Iterator[Told | Fault]]

imports = typer.Typer(no_args_is_help=True, help="Take a file into the ledger. Repeating it changes nothing.")
exports = typer.Typer(no_args_is_help=True, help="Write the ledger, or the books' rows, to files.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="Compressed if its name ends in .gz.")]
FileOrDash = Annotated[
    Path, typer.Argument(metavar="FILE|-", help="- for standard input; compressed if its name ends in .gz.")
]
Account = Annotated[str, typer.Option(help="The account that it is all of, where the file names none.")]
ObservedAt = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="When it stood so, in RFC 3339; by default the file's last change."),
]


@imports.command("stripe")
def import_stripe(file: FileOrDash, *, account: Account = "", json: Json = False) -> None:
    """Events as Stripe exports them: one on each line, or pages of `stripe events list`.

    Exits 0, 1 if a line could not be read or is in quarantine, 2 if an argument is wrong, 3 if a store
    can't be used.
    """
    from service.clock import utc_now  # noqa: PLC0415
    from service.transfer import stripe  # noqa: PLC0415

    _import(
        file, lambda source: stripe.read_events(source, utc_now(), account), stripe.skip_known, as_json=json
    )


@imports.command("mxmerchant")
def import_mxmerchant(file: File, *, observed_at: ObservedAt = None, json: Json = False) -> None:
    """Contract records of MX Merchant, as its API lists them, and notifications.

    Exits 0, 1 if a record could not be read or is in quarantine, 2 if an argument is wrong, 3 if a store
    can't be used.
    """
    from service.transfer import mxmerchant, observed  # noqa: PLC0415

    with command() as settings:
        observation = _observation(settings, file, observed_at)
    _import(
        file, lambda source: mxmerchant.read_records(source, observation), observed.skip_known, as_json=json
    )


@imports.command("csv")
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
    """
    from service.transfer import observed, schedule  # noqa: PLC0415

    with command() as settings:
        observation = _observation(settings, file, observed_at)
    _import(
        file,
        lambda source: schedule.read_contracts(source, observation, biller, account),
        observed.skip_known,
        as_json=json,
    )


@imports.command("ledger")
def import_ledger(file: FileOrDash, *, json: Json = False) -> None:
    """What `daybook export ledger` wrote, here or elsewhere. Take it from nobody whom you don't trust.

    Exits 0, 1 if the file was cut or changed, or holds what this version can't read, 2 if an argument is
    wrong, 3 if a store can't be used.
    """
    from service.transfer import ledger_import as ledger  # noqa: PLC0415

    _import(file, ledger.read_ledger, ledger.skip_known, as_json=json, holds_quarantine=True)


@exports.command("ledger")
def export_ledger(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", dir_okay=False, allow_dash=True, help="Compressed as .gz.")
    ] = Path("-"),
    json: Json = False,
) -> None:
    """Write the whole ledger as NDJSON: each delivery with its bytes, its proof and its events.

    Names and e-mail addresses are in it in the clear. Exits 0, 1 if positions are missing, 2 if an
    argument or a setting is wrong, 3 if a store can't be read.
    """
    from service.transfer.sources import STANDARD  # noqa: PLC0415

    with command() as settings:
        end = asyncio.run(_export_ledger(settings, output))
        if output != STANDARD:
            said = (
                f"{end.deliveries} deliveries, {end.events} events, {end.quarantined} in quarantine: {output}"
            )
            show(end, lambda: said, as_json=json)


@exports.command("rows")
def export_rows(
    book: Annotated[str | None, typer.Argument(help="A book; by default all.")] = None,
    *,
    table: Annotated[str | None, typer.Option(help="One table, into the file of --output.")] = None,
    form: Annotated[Literal["csv", "parquet"], typer.Option("--format")] = "csv",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The directory for BOOK.TABLE.csv of each, or the file.")
    ],
    json: Json = False,
) -> None:
    """Write the rows and totals of the books, all as they are at one position.

    Exits 0, 2 if an argument or a setting is wrong, 3 if a store can't be used.
    """
    with command() as settings:
        if output.is_dir() == bool(table) and output.exists():
            raise ParameterError(f"--output: {output} is {'a' if table else 'no'} directory")
        written = asyncio.run(_export_rows(settings, book, table, form, output))
        lines = [f"{each.rows:>10} {each.file}" for each in written.tables]
        show(written, lambda: "\n".join([*lines, f"at position {written.position}"]), as_json=json)


def _observation(settings: "Settings", file: Path, stated: str | None) -> "Observation":
    """When what a file says was so. Raises ParameterError if that is no time, or is to come."""
    from service.bootstrap import prepare  # noqa: PLC0415
    from service.clock import utc_now  # noqa: PLC0415
    from service.ledger.master_key import open_vault  # noqa: PLC0415
    from service.transfer.observed import Observation  # noqa: PLC0415
    from service.transfer.sources import check_readable, last_changed  # noqa: PLC0415

    check_readable(file)
    try:
        at = datetime.fromisoformat(stated) if stated else last_changed(file)
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ParameterError("--observed-at: a time such as 2025-11-30T12:00:00Z") from None
    if at > utc_now():
        raise ParameterError("--observed-at: it is to come" if stated else f"{file} is of a day to come")
    prepare(settings)
    return Observation(at=at, stated=stated is not None, keyed=open_vault(settings).digest)


def _import(
    file: Path, read: "Read", skip_known: "SkipKnown", *, as_json: bool, holds_quarantine: bool = False
) -> None:
    with command() as settings:
        summary = asyncio.run(_take(settings, file, read, skip_known))
        show(summary, lambda: _said(summary), as_json=as_json)
        stopped = 0 if holds_quarantine else summary.quarantined + summary.conflicts
        if summary.unreadable_lines or stopped:
            raise typer.Exit(EXIT_FAULT)


def _said(summary: "Summary") -> str:
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


async def _take(settings: "Settings", file: Path, read: "Read", skip_known: "SkipKnown") -> "Summary":
    from service.bootstrap import open_ledger, prepare  # noqa: PLC0415
    from service.clock import utc_now  # noqa: PLC0415
    from service.queue.nudge import nudge_once  # noqa: PLC0415
    from service.transfer.importer import take  # noqa: PLC0415
    from service.transfer.sources import STANDARD, check_readable, opened  # noqa: PLC0415

    if file != STANDARD:
        check_readable(file)
    prepare(settings)
    ledger = open_ledger(settings)
    try:
        with opened(file) as source, progress("bytes", source.size) as done:
            summary = await take(ledger, read(source), skip_known, utc_now, _advance(source, done))
    finally:
        await ledger.close()
    if settings.redis_url and summary.recorded:
        await nudge_once(settings.redis_url, settings.redis_prefix, summary.position)
    return summary


def _advance(source: "Source", done: Callable[[int], None]) -> Callable[[], None]:
    """Tell how many bytes were read since the last time."""
    before = 0

    def advance() -> None:
        nonlocal before
        done(source.read - before)
        before = source.read

    return advance


async def _export_ledger(settings: "Settings", output: Path) -> "End":
    from service.bootstrap import kept_ledger  # noqa: PLC0415
    from service.ledger.append import read_head  # noqa: PLC0415
    from service.transfer.ledger_format import export  # noqa: PLC0415
    from service.transfer.sources import created  # noqa: PLC0415

    async with kept_ledger(settings) as ledger:
        events = (await ledger.read(read_head)).position
        with created(output) as out, progress("events", events) as done:
            return await export(ledger, out, done)


async def _export_rows(
    settings: "Settings", book: str | None, table: str | None, form: "Format", output: Path
) -> "Exported":
    from service.bootstrap import open_books  # noqa: PLC0415
    from service.storage.database import books_path  # noqa: PLC0415
    from service.transfer.row_export import export_rows as write  # noqa: PLC0415

    if not settings.database_url and not books_path(settings.data_dir).exists():
        raise SettingsError(f"there are no books in {settings.data_dir} (DAYBOOK_DATA_DIR)")
    store = open_books(settings)
    try:
        with progress("rows") as done:
            return await write(store, book, table, output, form, done)
    finally:
        await store.close()

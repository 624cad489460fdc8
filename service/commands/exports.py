"""`daybook export`: the ledger and the books' rows into files."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service import bootstrap
from service.commands.shell import Json, command, progress, show
from service.core.errors import ParameterError, SettingsError
from service.ledger import append
from service.storage import database
from service.transfer import ledger_format, row_export, sources

if TYPE_CHECKING:
    from service.settings import Settings
    from service.transfer.ledger_format import ExportEnd
    from service.transfer.row_export import FileFormat, RowExport

app = typer.Typer(no_args_is_help=True, help="Write the ledger, or the books' rows, to files.")


@app.command("ledger")
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

    For example:

        daybook export ledger --output ledger.ndjson.gz
        daybook export ledger -o ledger.ndjson --json
    """
    with command() as settings:
        end = asyncio.run(_export_ledger(settings, output))
        if output != sources.STANDARD_STREAM:
            message = (
                f"{end.deliveries} deliveries, {end.events} events, {end.quarantined} in quarantine: {output}"
            )
            show(end, lambda: message, as_json=json)


@app.command("rows")
def export_rows(
    book: Annotated[str | None, typer.Argument(help="A book; by default all.")] = None,
    *,
    table: Annotated[str | None, typer.Option(help="One table, into the file of --output.")] = None,
    form: Annotated[Literal["csv", "parquet"], typer.Option("--format")] = "csv",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The directory to write files to; with --table, the file.")
    ],
    json: Json = False,
) -> None:
    """Write the rows and totals of the books, all as they are at one position.

    Exits 0, 2 if an argument or a setting is wrong, 3 if a store can't be used.

    For example:

        daybook export rows --output rows
        daybook export rows mrr --table mrr_steps --format parquet -o steps.parquet
    """
    with command() as settings:
        if output.is_dir() == bool(table) and output.exists():
            raise ParameterError(f"--output: {output} is {'a' if table else 'no'} directory")
        written = asyncio.run(_export_rows(settings, book, table, form, output))
        lines = [f"{each.rows:>10} {each.file}" for each in written.tables]
        show(written, lambda: "\n".join([*lines, f"at position {written.position}"]), as_json=json)


async def _export_ledger(settings: "Settings", output: Path) -> "ExportEnd":
    async with bootstrap.existing_ledger(settings) as ledger:
        events = (await ledger.read(append.read_head)).position
        with sources.open_output(output) as out, progress("events", events) as advance:
            return await ledger_format.export_ledger(ledger, out, advance)


async def _export_rows(
    settings: "Settings", book: str | None, table: str | None, form: "FileFormat", output: Path
) -> "RowExport":
    if not settings.database_url and not database.books_path(settings.data_dir).exists():
        raise SettingsError(f"there are no books in {settings.data_dir} (DAYBOOK_DATA_DIR)")
    store = bootstrap.open_books(settings)
    try:
        with progress("rows") as advance:
            return await row_export.export_rows(store, book, table, output, form, advance)
    finally:
        await store.close()

"""`daybook backup` and `daybook restore`."""

from pathlib import Path
from typing import Annotated

import typer

from service.commands.shell import EXIT_REFUSED, Json, command, ended, progress, show


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where backups are kept.")],
    *,
    json: Json = False,
) -> None:
    """Copy ledger, books and master key into a new directory inside DIR, while Daybook runs.

    Exits 0, 1 if the copy is not sound, 2 if a setting is wrong or the ledger is in PostgreSQL, 3 if a file
    can't be read or written, 4 if another backup is being written there.
    """
    from msgspec import to_builtins  # noqa: PLC0415

    from service.clock import utc_now  # noqa: PLC0415
    from service.maintenance.backup import Refused, back_up  # noqa: PLC0415

    with command() as settings:
        try:
            where, made = back_up(settings, directory, utc_now(), progress)
        except Refused as error:
            raise ended(EXIT_REFUSED, str(error)) from None
        said = f"{where}: the ledger up to position {made.position}, {made.digest}"
        show({"directory": str(where), **to_builtins(made)}, lambda: said, as_json=json)


def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A backup, or where they are: the last.")],
    *,
    force: Annotated[bool, typer.Option(help="Move the ledger aside that is there.")] = False,
    json: Json = False,
) -> None:
    """Put a backup into the data directory, where no Daybook runs.

    Exits 0, 1 if the backup is damaged, 2 if there is none, a setting is wrong or the ledger is in
    PostgreSQL, 3 if a file can't be read or written, 4 if a ledger is there already or a Daybook runs; but
    for 0 nothing was changed.
    """
    from msgspec import to_builtins  # noqa: PLC0415

    from service.clock import utc_now  # noqa: PLC0415
    from service.maintenance.backup import Refused, restore  # noqa: PLC0415

    with command() as settings:
        try:
            where, held, aside = restore(settings, directory, utc_now(), force=force)
        except Refused as error:
            raise ended(EXIT_REFUSED, str(error)) from None
        said = f"{where}: restored up to position {held.position}, {held.digest}"
        moved = f"\nwhat was there is in {aside}" if aside else ""
        document = {"directory": str(where), "aside": aside and str(aside), **to_builtins(held)}
        show(document, lambda: said + moved, as_json=json)

"""`daybook backup`."""

from pathlib import Path
from typing import Annotated

import typer
from msgspec import to_builtins

from service.clock import utc_now
from service.commands.shell import EXIT_REFUSED, Json, command, failure, progress, show
from service.maintenance import backup as backups


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where backups are kept.")],
    *,
    json: Json = False,
) -> None:
    """Copy ledger, books and master key into a new directory inside DIR, while Daybook runs.

    Exits 0, 1 if the copy is not sound, 2 if a setting is wrong or the ledger is in PostgreSQL, 3 if a file
    can't be read or written, 4 if another backup is being written there.

    For example:

        daybook backup /backup
        daybook backup /backup --json
    """
    with command() as settings:
        try:
            where, made = backups.back_up(settings, directory, utc_now(), progress)
        except backups.Refused as error:
            raise failure(EXIT_REFUSED, str(error)) from None
        message = f"{where}: the ledger up to position {made.position}, {made.digest}"
        show({"directory": str(where), **to_builtins(made)}, lambda: message, as_json=json)

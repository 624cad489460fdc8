"""`daybook restore`."""

from pathlib import Path
from typing import Annotated

import typer
from msgspec import to_builtins

from service import bootstrap
from service.clock import utc_now
from service.commands.shell import EXIT_REFUSED, Json, command, failure, show
from service.maintenance import backup as backups


def restore(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A backup, or the directory of several: the newest."),
    ],
    *,
    force: Annotated[bool, typer.Option(help="Move an existing ledger aside.")] = False,
    json: Json = False,
) -> None:
    """Put a backup into the data directory, where no Daybook runs.

    Exits 0, 1 if the backup is damaged, 2 if there is none, a setting is wrong or the ledger is in
    PostgreSQL, 3 if a file can't be read or written, 4 if a ledger is there already or a Daybook runs.
    Except with 0 nothing was changed. If the backup lacks later events, it says how to start without them.

    For example:

        daybook restore /backup
        daybook restore /backup/20261121T221924Z --force
    """
    with command() as settings:
        try:
            where, restored, aside = backups.restore(settings, directory, utc_now(), force=force)
        except backups.Refused as error:
            raise failure(EXIT_REFUSED, str(error)) from None
        loss = bootstrap.find_ledger_loss(settings)
        lines = [f"{where}: restored up to position {restored.position}, {restored.digest}"]
        lines += [f"what was there is in {aside}"] if aside else []
        lines += [f"{loss}. Start it with: daybook run --accept-loss {loss.position}"] if loss else []
        document = {
            "directory": str(where),
            "aside": aside and str(aside),
            "accept_loss": loss and loss.position,
            **to_builtins(restored),
        }
        show(document, lambda: "\n".join(lines), as_json=json)

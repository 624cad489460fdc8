"""`daybook demo`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service import demo as november
from service import logs
from service.commands.shell import EXIT_FAULT, EXIT_UNAVAILABLE, failure
from service.core.errors import DaybookError


def demo(
    *,
    once: Annotated[bool, typer.Option(help="Stop after the table instead of staying up.")] = False,
    data_dir: Annotated[Path, typer.Option(help="The demo's own data directory.")] = Path("var/demo"),
    port: Annotated[
        int,
        typer.Option(
            envvar="DAYBOOK_PORT", min=0, max=65535, help="Where it listens; any free port if it is taken."
        ),
    ] = 8000,
) -> None:
    """Start on a data directory of its own, post November 2025 as a processor would, show its books.

    Exits 0, 1 if the service does not start or refuses a webhook, 3 if the directory can't be used.

    For example:

        daybook demo
        daybook demo --once --data-dir /tmp/demo
    """
    logs.configure()
    try:
        november.show(data_dir, port, stay=not once, console=Console())
    except DaybookError as error:
        raise failure(EXIT_FAULT, str(error)) from None
    except OSError as error:
        raise failure(EXIT_UNAVAILABLE, f"{data_dir} can't be used: {error}") from None

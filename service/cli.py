"""The `daybook` command."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service import logs
from service.commands import quarantine, reconcile, transfer
from service.commands.backup import backup, restore
from service.commands.erase import erase
from service.commands.explain import explain
from service.commands.rebuild import rebuild
from service.commands.retranslate import retranslate
from service.commands.shell import EXIT_FAULT, Json, command, ended, show
from service.commands.verify import verify
from service.core.errors import DaybookError, SettingsError
from service.processes import lifeline

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # a docstring's lines are folded anew
    help="Billing webhooks to a ledger to books that replay.",
)


@app.callback()
def _start() -> None:
    """What the ledger holds is nobody else's on this machine."""
    os.umask(0o077)


@app.command()
def run() -> None:
    """Start everything: the embedded Valkey, the web process and the worker. Ctrl-C stops it all."""
    from service.processes.supervisor import supervise  # noqa: PLC0415 - each command imports only what it runs

    with command() as settings:
        raise typer.Exit(supervise(settings))


@app.command()
def web(*, workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1) -> None:
    """Receive webhooks and serve reads."""
    from service.bootstrap import prepare  # noqa: PLC0415

    with command() as settings:
        lifeline.follow_lifeline()
        prepare(settings)
        if workers > 1:
            from service.web.multiprocess import serve_many  # noqa: PLC0415

            raise typer.Exit(serve_many(settings, workers))
        from service.web.server import serve  # noqa: PLC0415

        serve(settings)


@app.command()
def worker() -> None:
    """Keep the books in step with the ledger."""
    from service.bootstrap import prepare  # noqa: PLC0415
    from service.clock import utc_now  # noqa: PLC0415
    from service.worker.main import work  # noqa: PLC0415

    with command() as settings:
        if not settings.redis_url:
            raise SettingsError(
                "DAYBOOK_REDIS_URL is unset; `daybook run` brings a server, a worker alone needs one"
            )
        lifeline.follow_lifeline()
        prepare(settings)
        asyncio.run(work(settings, utc_now))


@app.command(hidden=True)
def valkey() -> None:
    """Serve the embedded Valkey of this data directory (started by `run`)."""
    from service.queue import valkey as embedded  # noqa: PLC0415

    with command() as settings:
        lifeline.follow_lifeline()
        embedded.serve(settings.data_dir)


@app.command()
def demo(
    *,
    once: Annotated[bool, typer.Option(help="Stop after the table instead of staying up.")] = False,
    data_dir: Annotated[Path, typer.Option(help="The demo's own data directory.")] = Path("var/demo"),
) -> None:
    """Start on a data directory of its own, post November 2025 like a processor would, show its books."""
    from service.demo import show  # noqa: PLC0415

    logs.configure()
    try:
        show(data_dir, stay=not once, console=Console())
    except DaybookError as error:
        raise ended(EXIT_FAULT, str(error)) from None


@app.command()
def status(*, json: Json = False) -> None:
    """Show the ledger's end, which worker holds what, and how far each book is behind.

    Exits 0, 2 if a setting is wrong, 3 if a store can't be read.
    """
    from service.maintenance.status import find_status, shown  # noqa: PLC0415

    with command() as settings:
        found = asyncio.run(find_status(settings))
        show(found, lambda: shown(found), as_json=json)


app.command()(rebuild)
app.command()(verify)
app.command()(backup)
app.command()(restore)
app.command()(erase)
app.command()(explain)
app.add_typer(reconcile.app, name="reconcile")
app.add_typer(transfer.imports, name="import")
app.add_typer(transfer.exports, name="export")
app.add_typer(quarantine.app, name="quarantine")
app.command()(retranslate)


if __name__ == "__main__":
    app()

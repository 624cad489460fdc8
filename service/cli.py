"""The `daybook` command."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service import logs, processes
from service.core.errors import DaybookError, Integrity, SettingsError
from service.settings import Settings, load

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Billing webhooks to a ledger to books that replay."
)

EXIT_FAULT = 1  # verify found a fault
EXIT_SETTINGS = 2  # a setting holds what it may not
EXIT_UNAVAILABLE = 3  # a store can't be reached


@app.callback()
def _start() -> None:
    """What the ledger holds is nobody else's on this machine."""
    os.umask(0o077)


@contextmanager
def _settings() -> Iterator[Settings]:
    """The settings; what is wrong with them, or a store that can't be used, ends the command in one line."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError  # noqa: PLC0415 - `--help` needs none of it

    logs.configure()
    try:
        yield load()
    except SettingsError as error:
        raise _ended(EXIT_SETTINGS, str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        raise _ended(EXIT_UNAVAILABLE, f"a store can't be used: {reason or type(error).__name__}") from None


def _ended(code: int, said: str) -> typer.Exit:
    print(f"daybook: {said.splitlines()[0]}", file=sys.stderr)  # noqa: T201 - for people, not the log
    return typer.Exit(code)


@app.command()
def run() -> None:
    """Start everything: the embedded Valkey, the web process and the worker. Ctrl-C stops it all."""
    from service.supervisor import supervise  # noqa: PLC0415 - each command imports only what it runs

    with _settings() as settings:
        raise typer.Exit(supervise(settings))


@app.command()
def web(*, workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1) -> None:
    """Receive webhooks and serve reads."""
    from service.stores import prepare  # noqa: PLC0415

    with _settings() as settings:
        processes.follow_lifeline()
        prepare(settings)
        if workers > 1:
            from service.web.processes import serve_many  # noqa: PLC0415

            raise typer.Exit(serve_many(settings, workers))
        from service.web.server import serve  # noqa: PLC0415

        serve(settings)


@app.command()
def worker() -> None:
    """Keep the books in step with the ledger."""
    from service.clock import utc_now  # noqa: PLC0415
    from service.stores import prepare  # noqa: PLC0415
    from service.worker import work  # noqa: PLC0415

    with _settings() as settings:
        if not settings.redis_url:
            raise SettingsError(
                "DAYBOOK_REDIS_URL is unset; `daybook run` brings a server, a worker alone needs one"
            )
        processes.follow_lifeline()
        prepare(settings)
        asyncio.run(work(settings, utc_now))


@app.command(hidden=True)
def valkey() -> None:
    """Serve the embedded Valkey of this data directory (started by `run`)."""
    from service import valkey as embedded  # noqa: PLC0415

    with _settings() as settings:
        processes.follow_lifeline()
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
        raise _ended(EXIT_FAULT, str(error)) from None


@app.command()
def status(*, json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show the ledger's end, which worker holds what, and how far each book is behind.

    Exits 0, 2 if a setting is wrong, 3 if a store can't be read.
    """
    import msgspec  # noqa: PLC0415

    from service.status import find_status, shown  # noqa: PLC0415

    with _settings() as settings:
        found = asyncio.run(find_status(settings))
        if json:
            print(msgspec.json.encode(found).decode())  # noqa: T201
        else:
            Console().print(shown(found))


@app.command()
def verify() -> None:
    """Check the ledger's chain, the books' totals against their rows, and the books against a replay.

    Exits 0 if all holds, 1 naming the first fault, 2 if a setting is wrong, 3 if a store can't be read.
    """
    from service.verify import verify_all  # noqa: PLC0415

    with _settings() as settings:
        console = Console()
        try:
            for line in asyncio.run(verify_all(settings)):
                console.print(line, highlight=False, soft_wrap=True)
        except Integrity as error:
            console.print(f"fault: {error}", highlight=False, soft_wrap=True)
            raise typer.Exit(EXIT_FAULT) from None


if __name__ == "__main__":
    app()

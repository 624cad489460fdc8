"""What all commands have in common: settings, errors in one line, exit codes, progress, JSON."""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import json
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service import logs, settings
from service.core.errors import (
    DaybookError,
    Integrity,
    NotConfigured,
    NotFound,
    ParameterError,
    SettingsError,
    Unavailable,
)
from service.core.progress import Advance

if TYPE_CHECKING:
    from service.settings import Settings

EXIT_FAULT = 1  # something is wrong: a fault, a difference
EXIT_SETTINGS = 2  # a setting or an argument holds what it may not
EXIT_UNAVAILABLE = 3  # a store or a processor's API can't be used
EXIT_REFUSED = 4  # not done without a flag that says that it is meant

Json = Annotated[bool, typer.Option("--json", help="For scripts: one JSON document.")]
Host = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Listen here, not at DAYBOOK_HOST.")]
Port = Annotated[str | None, typer.Option(metavar="PORT", help="Listen here, not at DAYBOOK_PORT.")]
AcceptLoss = Annotated[
    int | None,
    typer.Option(min=0, metavar="POSITION", help="Go on without the events after it, which the ledger lost."),
]
ByChain = Annotated[
    bool,
    typer.Option(
        "--by-chain", help="Take quarantine's digest chain as proof where the secret is not set any more."
    ),
]

_CODES: dict[type[DaybookError], int] = {
    SettingsError: EXIT_SETTINGS,
    ParameterError: EXIT_SETTINGS,
    NotFound: EXIT_SETTINGS,
    NotConfigured: EXIT_SETTINGS,
    Unavailable: EXIT_UNAVAILABLE,
    Integrity: EXIT_FAULT,
}


@contextmanager
def command(**options: str | None) -> Iterator["Settings"]:
    """The settings. A wrong setting, or a store that can't be used, ends the command with one line.

    `options` are those of the command line that take the place of settings of their names, unless None.
    """
    logs.configure()
    try:
        given = settings.load({name: value for name, value in options.items() if value is not None})
        logs.configure(given.log_level)
        yield given
    except DaybookError as error:
        code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), EXIT_FAULT)
        raise failure(code, str(error)) from None
    except BrokenPipeError:
        raise failure(EXIT_UNAVAILABLE, "whoever read standard output left before its end") from None
    except _store_errors() as error:
        reason = str(getattr(error, "orig", error))  # the driver's own words
        raise failure(EXIT_UNAVAILABLE, f"a store can't be used: {reason or type(error).__name__}") from None


def _store_errors() -> tuple[type[Exception], ...]:
    """The errors of a store that can't be used. SQLAlchemy's are imported where there is an error only."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    return SQLAlchemyError, sqlite3.Error, OSError


def failure(code: int, message: str) -> typer.Exit:
    """Print one line for people; returns the end of the command, to be raised."""
    print(f"daybook: {message.splitlines()[0]}", file=sys.stderr)  # noqa: T201 - for people, not the log
    return typer.Exit(code)


def show(document: Any, render: Callable[[], RenderableType], *, as_json: bool) -> None:
    """Print a command's result: as one JSON document for scripts, or as `render` makes it for people."""
    if as_json:
        print(json.encode(document).decode())  # noqa: T201
    else:
        # without markup: text in brackets is printed as it is
        Console(markup=False, emoji=False, highlight=False).print(render(), soft_wrap=True)


@contextmanager
def progress(work: str, size: int | None = None) -> Iterator[Advance]:
    """A bar with rate and time left, on a terminal's standard error; see `service.core.progress`."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(work, total=size, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            bar.update(task, rate=f"{speed:,.0f}/s" if speed else "")

        yield advance

"""What all commands have in common: settings, errors in one line, exit codes, progress, JSON."""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import sqlalchemy
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

if TYPE_CHECKING:
    from service.settings import Settings

EXIT_FAULT = 1  # something is wrong: a fault, a difference
EXIT_SETTINGS = 2  # a setting or an argument holds what it may not
EXIT_UNAVAILABLE = 3  # a store or a processor's API can't be used
EXIT_REFUSED = 4  # not done without a flag that says that it is meant

Json = Annotated[bool, typer.Option("--json", help="For scripts: one JSON document.")]
Host = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Listen here, not at DAYBOOK_HOST.")]
Port = Annotated[str | None, typer.Option(metavar="PORT", help="Listen here, not at DAYBOOK_PORT.")]

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
    """The settings; what is wrong with them, or a store that can't be used, ends the command in one line.

    `options` are those of the command line that take the place of settings of their names, unless None.
    """
    logs.configure()
    try:
        yield settings.load({name: value for name, value in options.items() if value is not None})
    except DaybookError as error:
        code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), EXIT_FAULT)
        raise ended(code, str(error)) from None
    except BrokenPipeError:
        raise ended(EXIT_UNAVAILABLE, "whoever read standard output left before its end") from None
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        reason = str(error.orig) if isinstance(error, sqlalchemy.exc.DBAPIError) else str(error)
        raise ended(EXIT_UNAVAILABLE, f"a store can't be used: {reason or type(error).__name__}") from None


def ended(code: int, said: str) -> typer.Exit:
    """The end of a command that could not do its work, said in one line to people."""
    print(f"daybook: {said.splitlines()[0]}", file=sys.stderr)  # noqa: T201 - for people, not the log
    return typer.Exit(code)


def show(document: Any, shown: Callable[[], RenderableType], *, as_json: bool) -> None:
    """A command's result: as one JSON document for scripts, or as `shown` makes it for people."""
    if as_json:
        print(json.encode(document).decode())  # noqa: T201
    else:
        # as it is: what stands in brackets is no markup
        Console(markup=False, emoji=False, highlight=False).print(shown(), soft_wrap=True)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on a terminal's standard error; call it with what is done."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, rate="")

        def done(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            bar.update(task, rate=f"{speed:,.0f}/s" if speed else "")

        yield done

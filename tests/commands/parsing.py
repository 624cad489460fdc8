"""The commands of `daybook` as Typer has them, without running any."""

import re
import shlex
from typing import Any

import typer

from service.cli import COMMANDS, app

NAMES = [name for group in COMMANDS.values() for name in group]


def parse(words: list[str]) -> Any:
    """The command that `daybook` with these words runs; fails where one is no command, option or value."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("daybook", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        assert command is not None, name
        context = command.make_context(name, words, parent=context)
        words = [*context._protected_args, *context.args]
    return command


def find_command(name: str) -> Any:
    """A command, or a group of commands, of the table."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("daybook", [], resilient_parsing=True)
    return group.resolve_command(context, [name])[1]


def each_command() -> dict[str, Any]:
    """Every command by what is typed for it, as "import csv"."""
    found = {name: find_command(name) for name in NAMES}
    return {
        f"{name} {inner}".strip(): nested
        for name, command in found.items()
        for inner, nested in getattr(command, "commands", {"": command}).items()
    }


def examples(command: Any) -> list[list[str]]:
    """The words of each example in a command's help."""
    lines = re.findall(r"^ {4}daybook (.+)$", command.help, re.MULTILINE)
    return [shlex.split(line) for line in lines]

"""The `daybook` command: a table of its commands, each loaded from its module when it is asked for."""

import os
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from service.commands.loader import load
from service.processes.garbage import collect_rarely

collect_rarely()  # before a command is loaded, whose modules are many objects

_MARKUP: Any = "markdown"  # a docstring's lines are folded anew
_HIDDEN = ""  # the group of commands that people don't type

# As `daybook --help` shows them: group, name, where the command is, and the first line of its own help.
COMMANDS = {
    "Run": {
        "run": (
            "service.commands.run:run",
            "Start everything: the embedded Valkey, the web process and the worker. Ctrl-C stops it all.",
        ),
        "web": ("service.commands.web:web", "Receive webhooks and serve reads."),
        "worker": ("service.commands.worker:worker", "Keep the books in step with the ledger."),
        "demo": (
            "service.commands.demo:demo",
            "Start on a data directory of its own, post November 2025 as a processor would, show its books.",
        ),
    },
    "Look": {
        "status": (
            "service.commands.status:status",
            "Show the ledger's end, which worker holds what, and how far each book is behind.",
        ),
        "explain": (
            "service.commands.explain:explain",
            "Take a figure apart: its rows, their events, and the signatures over their bytes, checked anew.",
        ),
        "verify": (
            "service.commands.verify:verify",
            "Check the ledger's chain, the books against a replay, and the books' totals against their rows.",
        ),
    },
    "Exchange": {
        "import": (
            "service.commands.imports:import_file",
            "Take a file into the ledger. Repeating it changes nothing.",
        ),
        "export": ("service.commands.exports:app", "Write the ledger, or the books' rows, to files."),
        "backfill": (
            "service.commands.backfill:backfill",
            "Read what a processor's API holds into the ledger: the history from before the first webhook.",
        ),
        "reconcile": (
            "service.commands.reconcile:reconcile",
            "Compare a processor's API with the ledger and the books.",
        ),
    },
    "Correct": {
        "quarantine": (
            "service.commands.quarantine:app",
            "Show and settle deliveries that could not be recorded.",
        ),
        "retranslate": (
            "service.commands.retranslate:retranslate",
            "Read all raw deliveries, and quarantine, with today's translators; show the differences.",
        ),
        "rebuild": (
            "service.commands.rebuild:rebuild",
            "Build books anew beside the live ones, compare them, and let them take their place in one step.",
        ),
    },
    "Keep and forget": {
        "backup": (
            "service.commands.backup:backup",
            "Copy ledger, books and master key into a new directory inside DIR, while Daybook runs.",
        ),
        "restore": (
            "service.commands.restore:restore",
            "Put a backup into the data directory, where no Daybook runs.",
        ),
        "erase": (
            "service.commands.erase:erase",
            "Forget a customer: raw bodies, names and e-mail addresses, for ever. No figure moves.",
        ),
    },
    _HIDDEN: {
        "valkey": (
            "service.commands.valkey:valkey",
            "Serve the embedded Valkey of this data directory, which run starts.",
        ),
    },
}
_TARGETS = {name: target for group in COMMANDS.values() for name, (target, _) in group.items()}


class _Commands(TyperGroup):
    """Lists the table's commands without importing them, and loads the one that is asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None:
            return name, listed, rest
        to_run = not (ctx.resilient_parsing or "--help" in rest)  # a shell that completes parses resiliently
        return name, load(name, _TARGETS[name], _MARKUP, to_run=to_run), rest


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=_MARKUP,
    help="Keeps a ledger of billing webhooks, and revenue books that can be replayed from it.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"daybook {version('daybook')}")  # noqa: T201 - the result
        raise typer.Exit


@app.callback()
def _start(
    *,
    version: Annotated[  # noqa: ARG001 - its callback has done the work
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What the ledger holds is nobody else's on this machine."""
    os.umask(0o077)


def _listed() -> None:
    """What the list of commands has in place of each: `_Commands` loads the command itself."""


for _group, _rows in COMMANDS.items():
    for _name, (_, _help) in _rows.items():
        app.command(_name, help=_help, rich_help_panel=_group or None, hidden=_group == _HIDDEN)(_listed)


if __name__ == "__main__":
    app()

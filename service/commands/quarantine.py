"""`daybook quarantine`: look at what could not be recorded, read it again, or dismiss it."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from msgspec import DecodeError
from msgspec import json as encoded
from rich.console import Group, RenderableType
from rich.table import Column, Table

from service import bootstrap
from service.clock import utc_now
from service.commands.shell import EXIT_FAULT, EXIT_SETTINGS, ByChain, Json, command, failure, progress, show
from service.intake import quarantine

if TYPE_CHECKING:
    from service.intake.quarantine import RetryResult
    from service.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Show and settle deliveries that could not be recorded.")

Id = Annotated[int, typer.Argument(metavar="ID", help="A number that `quarantine list` shows.", min=1)]
Processor = Annotated[str | None, typer.Option(help="Only of this processor.")]
Reason = Annotated[
    Literal["unreadable", "conflict", "malformed"] | None, typer.Option(help="Only for this reason.")
]


@app.command("list")
def list_waiting(
    *,
    every: Annotated[bool, typer.Option("--all", help="Those that were settled, too.")] = False,
    processor: Processor = None,
    reason: Reason = None,
    json: Json = False,
) -> None:
    """List what waits in quarantine and which histories are set aside, and why.

    Exits 0, 2 if a setting is wrong or there is no ledger, 3 if the ledger can't be read.

    For example:

        daybook quarantine list
        daybook quarantine list --processor stripe --reason unreadable
    """

    async def find(settings: "Settings") -> dict[str, list[dict[str, Any]]]:
        async with bootstrap.existing_ledger(settings) as ledger, ledger.reading() as reader:
            rows = quarantine.read_rows(reader, settled=every, processor=processor, reason=reason)
            return {
                "quarantine": [quarantine.list_entry(row) async for row in rows],
                "set_aside": list(map(quarantine.set_aside_entry, await reader.set_aside_subjects())),
            }

    with command() as settings:
        found = asyncio.run(find(settings))
        show(found, lambda: _tables(**found), as_json=json)


@app.command("show")
def show_one(waiting: Id, *, json: Json = False) -> None:
    """Show one delivery: why it waits, how it was verified, its body, and what it contradicts.

    Exits 0, 2 if there is no such one, 3 if the ledger can't be read.

    For example:

        daybook quarantine show 12
        daybook quarantine show 12 --json
    """

    async def find(settings: "Settings") -> dict[str, Any]:
        async with bootstrap.existing_ledger(settings) as ledger, ledger.reading() as reader:
            return await quarantine.read_document(reader, waiting)

    with command() as settings:
        found = asyncio.run(find(settings))
        show(found, lambda: _page(found), as_json=json)


@app.command()
def retry(
    waiting: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID|HISTORY", help="Numbers or histories that `quarantine list` shows."),
    ] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="All that are open, but for conflicts that stay conflicts.")
    ] = False,
    by_chain: ByChain = False,
    json: Json = False,
) -> None:
    """Read deliveries again with today's translators, and histories to their ends. Repeating it is safe.

    A history from which a book still can't be made is set aside again by the worker.

    Each signature is checked again. One that is not what was put into quarantine is refused.

    Exits 0 if all are settled, 1 if one still can't be recorded, 2 if there is no such one, 3 if the ledger
    can't be used.

    For example:

        daybook quarantine retry 12 13
        daybook quarantine retry "subscription|stripe||sub_1"
        daybook quarantine retry --all
    """
    if bool(waiting) == every:
        raise failure(EXIT_SETTINGS, "name deliveries by their numbers, or all of them by --all")
    numbers = [int(name) for name in waiting or () if name.isdecimal()]
    histories = [name for name in waiting or () if not name.isdecimal()]

    async def lifted(settings: "Settings") -> list[str]:
        async with bootstrap.existing_ledger(settings) as ledger:
            names = histories
            if every:
                async with ledger.reading() as reader:
                    names = [found.subject for found in await reader.set_aside_subjects()]
            return await quarantine.lift(ledger, names, utc_now())

    async def read_again(settings: "Settings") -> "list[RetryResult]":
        async with bootstrap.existing_ledger(settings) as ledger:
            entries = await quarantine.retryable_entries(ledger) if every else dict.fromkeys(numbers, "")
            found = []
            with progress("retry", len(entries)) as advance:
                for number, reason in entries.items():
                    result = await quarantine.retry(ledger, number, utc_now(), settings, by_chain=by_chain)
                    if (reason, result.outcome) != (quarantine.CONFLICT, quarantine.CONFLICT):
                        found.append(result)
                    advance(1)
            return found

    with command() as settings:
        names = asyncio.run(lifted(settings))
        found = asyncio.run(read_again(settings))
    show({"retried": found, "lifted": names}, lambda: _retried(found, names), as_json=json)
    if not all(result.settled for result in found):
        raise typer.Exit(EXIT_FAULT)


@app.command()
def dismiss(
    waiting: Annotated[list[int], typer.Argument(metavar="ID", help="Numbers that `quarantine list` shows.")],
    *,
    because: Annotated[str, typer.Option(help="Why; it is kept with them.")],
    json: Json = False,
) -> None:
    """Settle deliveries that will not be recorded. They are kept, with the reason.

    Exits 0, also for those settled before; 2 if there is no such one or no reason, 3 if the ledger can't be
    used.

    For example:

        daybook quarantine dismiss 12 --because "a test of the processor's"
    """
    if not because.strip():
        raise failure(EXIT_SETTINGS, "--because needs a reason")

    async def dismissed(settings: "Settings") -> list[int]:
        async with bootstrap.existing_ledger(settings) as ledger:
            return sorted(await quarantine.dismiss(ledger, waiting, because, utc_now()))

    with command() as settings:
        found = asyncio.run(dismissed(settings))
        text = f"dismissed: {', '.join(map(str, found)) or 'none; they were settled before'}"
        show({"dismissed": found}, lambda: text, as_json=json)


def _tables(quarantine: list[dict[str, Any]], set_aside: list[dict[str, Any]]) -> RenderableType:
    return Group(_table(quarantine), *([_set_aside(set_aside)] if set_aside else []))


def _set_aside(found: list[dict[str, Any]]) -> RenderableType:
    table = Table("history set aside", "since", "book", "error", "read up to", box=None)
    for row in found:
        since = f"{row['set_aside_at'][:19]}Z"
        table.add_row(row["history"], since, row["book"], row["error"], str(row["up_to"]))
    return table


def _table(found: list[dict[str, Any]]) -> RenderableType:
    if not found:
        return "nothing waits in quarantine"
    whole = (Column(name, no_wrap=True) for name in ("id", "received", "processor", "reason", "status"))
    table = Table(*whole, "detail", box=None)
    for row in found:
        received = f"{row['received_at'][:19]}Z"  # to the second
        columns = (row[name] for name in ("processor", "reason", "status"))
        table.add_row(str(row["id"]), received, *columns, row["settled_because"] or row["detail"])
    return table


def _page(found: dict[str, Any]) -> RenderableType:
    verified = _decoded(found["verification"])
    lines = [f"{name}: {found[name]}" for name in ("id", "received_at", "processor", "reason", "detail")]
    lines.append(f"status: {found['status']}")
    if found["settled_because"]:
        lines.append(f"because: {found['settled_because']}")
    if found["conflicts_with"]:
        lines.append(f"conflicts with: position {found['conflicts_with']}")
    lines += [f"verified: {name} {value}" for name, value in verified.items() if value is not None]
    lines += [f"header: {name}: {value}" for name, value in _decoded(found["headers"]).items()]
    for difference in found["differences"] or ():
        values = f"recorded {difference.before!r}, here {difference.after!r}"
        lines.append(f"differs: {difference.field}: {values}")
    return "\n".join([*lines, _pretty(found["raw_body"])])


def _pretty(body: str | None) -> str:
    if body is None:
        return "the body told of a customer who was erased"
    try:
        return encoded.format(body, indent=2)
    except DecodeError:
        return body


def _decoded(raw: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = encoded.decode(raw)
    return decoded


def _retried(found: "list[RetryResult]", lifted: list[str]) -> RenderableType:
    if not (found or lifted):
        return "nothing is there to be read again"
    table = Table("id", "outcome", "position", "detail", box=None)
    for result in found:
        table.add_row(str(result.id), result.outcome, str(result.position or ""), result.detail)
    return Group(*([table] if found else []), *(f"read to its end again: {name}" for name in lifted))

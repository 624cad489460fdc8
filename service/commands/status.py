"""`daybook status`."""

import asyncio
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from service.commands.shell import Json, command, show
from service.intake import versions
from service.maintenance import status as stores_status

if TYPE_CHECKING:
    from service.maintenance.status import Status


def status(*, json: Json = False) -> None:
    """Show the ledger's end, which worker holds what, and how far each book is behind.

    It also says if events that an older version translated are to be translated again.

    Exits 0, 1 if what a store holds can't be read, 2 if a setting is wrong, 3 if a store can't.

    For example:

        daybook status
        daybook status --json
    """
    with command() as settings:
        found = asyncio.run(stores_status.find_status(settings))
        show(found, lambda: _render(found), as_json=json)


def _render(status: "Status") -> RenderableType:
    """The status as tables for people."""
    partitions = Table("partition", "held by", "events that books lack")
    for part in status.partitions:
        holder = part.worker or ("nobody" if status.leased else "the one worker")
        lacking = ", ".join(f"{book} {count:,}" for book, count in part.lag_events.items() if count)
        partitions.add_row(str(part.partition), holder, lacking or "none")
    living = Table("worker", "last seen")
    for name, at in status.workers.items():
        living.add_row(name, at)
    lines = [f"The ledger is at position {status.position}."]
    if not status.worker_runs:
        lines.append("No worker runs: the books stand still. `daybook run` or `daybook worker` starts one.")
    if status.retranslation_due:
        due = ", ".join(status.retranslation_due)
        lines.append(f"An older version translated what is held of {due}: run {versions.COMMAND}")
    for processor, count in status.pending_fetches.items():
        lines.append(f"{count:,} thin events of {processor} wait for what they name.")
    if count := status.set_aside_histories:
        lines.append(f"{count:,} histories are set aside: see `daybook quarantine list`.")
    return Group(*lines, partitions, *([living] if status.leased else []))

"""`daybook rebuild`."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from service import bootstrap
from service.clock import utc_now
from service.commands import shell
from service.commands.shell import EXIT_FAULT, Json, command, failure, show
from service.rebuild import builds
from service.rebuild import cutover as rebuilding

if TYPE_CHECKING:
    from service.rebuild.builds import RemovedBuild
    from service.rebuild.cutover import RebuildResult

STALLED_SECONDS = 300.0


def rebuild(
    books: Annotated[list[str] | None, typer.Argument(help="Such as mrr; by default all.")] = None,
    *,
    processes: Annotated[int | None, typer.Option(min=1, help="By default one for each CPU.")] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Switch even if the books differ.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Build nothing; remove what is not live.")] = False,
    json: Json = False,
) -> None:
    """Build books anew beside the live ones, compare them, and let them take their place in one step.

    Reads and webhooks go on throughout. Exits 0 if the new books are live, 1 if they differ and are not (the
    keys are listed) or no progress was made for five minutes, 2 if a setting or the name of a book is wrong,
    3 if a store can't be used or another rebuild is under way.

    For example:

        daybook rebuild
        daybook rebuild customers --processes 2
    """
    with command() as settings:
        moved = _watch(STALLED_SECONDS)

        @contextmanager
        def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
            moved(0)
            with shell.progress(what, total) as advance:
                yield lambda count: (moved(count), advance(count))[1]

        async def run() -> "RebuildResult | list[RemovedBuild]":
            async with bootstrap.books_for_rebuild(settings, books or ()) as (ledger, store):
                if prune:
                    return await builds.prune(store, progress)
                return await rebuilding.rebuild(
                    settings, ledger, store, utc_now, processes=processes, accept=accept, progress=progress
                )

        found = asyncio.run(run())
        if isinstance(found, list):
            show({"removed": found}, lambda: _render_removed(found), as_json=json)
            return
        show(found, lambda: _render(found), as_json=json)
        if not found.live:
            raise typer.Exit(EXIT_FAULT)


def _watch(seconds: float) -> Callable[[int], None]:
    """Call what is returned at each progress: without any for so long, this process says so and ends.

    From a thread: whatever hangs may keep everything else waiting.
    """
    last = [time.monotonic()]

    def moved(_count: int) -> None:
        last[0] = time.monotonic()

    def look() -> None:
        while (left := last[0] + seconds - time.monotonic()) > 0:
            time.sleep(left)
        failure(EXIT_FAULT, f"no progress for {seconds:.0f} s; the live books are as they were")
        os._exit(EXIT_FAULT)

    threading.Thread(target=look, daemon=True, name="watchdog").start()
    return moved


def _render_removed(found: "list[RemovedBuild]") -> RenderableType:
    table = Table("book", "version", "build", "rows removed")
    for build in found:
        table.add_row(build.name, str(build.version), str(build.build), f"{build.rows:,}")
    return table if found else "There is nothing that is not live."


def _render(found: "RebuildResult") -> RenderableType:
    books = Table("book", "version", "build", "live before", "digest", "")
    keys = []
    for book in found.books:
        same = {None: "nothing to compare with", book.digest: "equal"}.get(book.live_digest, "differs")
        names = (book.name, str(book.version), str(book.build), str(book.live or ""), book.digest[:16])
        books.add_row(*names, same)
        for unlike in book.differences:
            sides = f"{len(unlike.left)} in the live book only, {len(unlike.right)} in the new one only"
            keys.append(f"{book.name}: {unlike.table} {unlike.key}: {sides}")
    message = (
        "The new books are live." if found.live else "The live books stay; --accept switches all the same."
    )
    return Group(f"Compared at position {found.position}.", books, *keys, message)

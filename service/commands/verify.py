"""`daybook verify`."""

import asyncio
from pathlib import Path
from secrets import randbits
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import to_builtins

from service import verify as verification
from service.clock import utc_now
from service.commands.shell import EXIT_FAULT, Json, command, progress, show
from service.core.errors import Integrity, ParameterError
from service.ledger import anchors, master_key

if TYPE_CHECKING:
    from service.ledger.anchors import Anchors
    from service.settings import Settings


def verify(
    *,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="N histories of each kind, not a whole replay.")
    ] = None,
    whole: Annotated[bool, typer.Option("--all", help="A whole replay, as without --sample.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**64 - 1, help="Take the sample that had this seed.")
    ] = None,
    anchor: Annotated[
        Path | None, typer.Option(help="Check the signed heads in this file, then add the present one.")
    ] = None,
    json: Json = False,
) -> None:
    """Check the ledger's chain, the books against a replay, and the books' totals against their rows.

    Exits 0 if all holds, 1 naming the first fault and where it is, 2 if a setting is wrong, 3 if a store
    can't be read.

    For example:

        daybook verify
        daybook verify --sample 200
        daybook verify --anchor /mnt/elsewhere/anchors.ndjson
    """
    with command() as settings:
        if whole and sample:
            raise ParameterError("--all or --sample, not both")
        if seed is not None and not sample:
            raise ParameterError("--seed says which sample: it goes with --sample")
        chosen = verification.Sample(sample, randbits(32) if seed is None else seed) if sample else None
        heads = _heads(settings, anchor) if anchor else None
        try:
            found = asyncio.run(
                verification.verify_all(settings, sample=chosen, anchors=heads, progress=progress)
            )
        except Integrity as error:
            where = to_builtins(error.where) if isinstance(error, verification.Fault) else None
            message = str(error)
            show(
                {"holds": False, "fault": message, "where": where}, lambda: f"fault: {message}", as_json=json
            )
            raise typer.Exit(EXIT_FAULT) from None
        document = {"holds": True, **to_builtins(found)}
        show(document, lambda: "\n".join(found.lines()), as_json=json)


def _heads(settings: "Settings", file: Path) -> "Anchors":
    """The signed heads in a file, under the key that is made from the master key."""
    return anchors.Anchors(file, master_key.open_vault(settings).derive(b"daybook anchor"), utc_now)

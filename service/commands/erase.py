"""`daybook erase`: forget a customer, for ever."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from service import bootstrap
from service.clock import utc_now
from service.commands.shell import EXIT_REFUSED, Json, command, failure, show
from service.maintenance import erasure

if TYPE_CHECKING:
    from service.maintenance.erasure import Erasure
    from service.settings import Settings


def erase(
    customer: Annotated[str, typer.Argument(help="The customer's id.")],
    *,
    processor: Annotated[str | None, typer.Option(help="Whose id it is, where several know it.")] = None,
    account: Annotated[str | None, typer.Option(help="In which of the processor's accounts.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking. This can't be undone.")] = False,
    json: Json = False,
) -> None:
    """Forget a customer: raw bodies, names and e-mail addresses, for ever. No figure moves.

    Exits 0, 2 if there is no such customer or there are several, 3 if a store can't be used or others keep it
    from being done (run it again), 4 if it is not confirmed.

    For example:

        daybook erase cus_1
        daybook erase cus_1 --processor stripe --account acct_1 --yes
    """

    async def run(settings: "Settings") -> "Erasure":
        async with bootstrap.existing_ledger(settings) as ledger:
            event = await erasure.make_erasure_event(ledger, customer, processor, account, utc_now())
            whose = f"{event.processor} {event.account}".strip()
            if not yes and not (
                sys.stdin.isatty() and typer.confirm(f"Forget {customer} of {whose} for ever?")
            ):
                raise failure(EXIT_REFUSED, "nothing was erased: add --yes to confirm")
            return await erasure.erase(settings, ledger, event, utc_now)

    with command() as settings:
        erased = asyncio.run(run(settings))
        show(erased, lambda: f"{customer} is forgotten: position {erased.position}", as_json=json)

"""Running a backfill with the API keys of the settings."""

from collections.abc import Callable, Sequence
from datetime import datetime

from handlers import PROCESSORS
from service.core.delivery import Processor
from service.core.errors import NotConfigured, ParameterError
from service.core.progress import Progress, no_progress
from service.ledger.store import Ledger
from service.settings import Settings
from service.sync.backfill.reader import AccountReader
from service.sync.backfill.report import BackfillReport
from service.sync.backfill.session import Session
from service.sync.client import open_client


def configured_processors(settings: Settings) -> list[Processor]:
    """The processors whose API is set up. Raises NotConfigured if there is none."""
    found = [processor for processor in PROCESSORS if settings.has_api(processor)]
    if not found:
        unset = [processor.api for processor in PROCESSORS if processor.api]
        names = "; ".join(", ".join(settings.unset_of(api)) for api in unset)
        raise NotConfigured(f"no processor's API is set up: {names}")
    return found


def check_arguments(processor: Processor, accounts: Sequence[str], since: datetime | None) -> None:
    """Raise ParameterError if the processor's API can't be asked for these accounts, or since a moment."""
    api = processor.api
    if accounts and not (api and api.connects):
        raise ParameterError(f"--account: the API of {processor.name} has no connected accounts")
    if since and not (api and api.lists_by_creation):
        raise ParameterError(f"--since: the API of {processor.name} lists nothing by when it was created")


async def backfill(
    settings: Settings,
    processor: Processor,
    ledger: Ledger,
    clock: Callable[[], datetime],
    *,
    accounts: Sequence[str] = (),
    since: datetime | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> list[BackfillReport]:
    """Read what a processor's API holds into the ledger, account by account; by default the key's own.

    `since` leaves out what was created before. Raises NotConfigured without the credentials, Unavailable if
    a list can't be read to its end: the next run continues from there.
    """
    client = open_client(settings, processor)
    sessions = [
        Session(
            processor=processor,
            client=client,
            account=account,
            ledger=ledger,
            clock=clock,
            mode_of=settings.mode_of,
            show_progress=progress,
            dry_run=dry_run,
        )
        for account in accounts or (client.own_account,)
    ]
    try:
        return [await _read_account(session, since) for session in sessions]
    finally:
        await client.close()


async def _read_account(session: Session, since: datetime | None) -> BackfillReport:
    return BackfillReport(
        processor=session.processor.name,
        account=session.account,
        dry_run=session.dry_run,
        lists=await AccountReader(session).read(int(since.timestamp()) if since else None),
    )

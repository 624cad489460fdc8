"""What the parts of a backfill of one account share."""

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from service.core.delivery import ModeOf, Processor
from service.core.progress import Progress
from service.ledger.store import Ledger
from service.sync.client import ApiClient


class Session(Struct, frozen=True, kw_only=True):
    """The backfill of an account of a processor; a dry run writes nothing at all.

    `show_progress` shows that of each list.
    """

    processor: Processor
    client: ApiClient
    account: str
    ledger: Ledger
    clock: Callable[[], datetime]
    mode_of: ModeOf
    show_progress: Progress
    dry_run: bool

"""The result of a backfill: how much each list held, and which lists could not be read."""

from msgspec import Struct


class ListResult(Struct, frozen=True, kw_only=True):
    """What was read of one list. `recorded` objects were not in the ledger as they are now.

    Those that can't be read are in quarantine. `refused` is the status with which the API refused the whole
    list; the `figures` lack it then.
    """

    name: str
    figures: str
    listed: int = 0
    recorded: int = 0
    quarantined: int = 0
    refused: int | None = None


class BackfillReport(Struct, frozen=True, kw_only=True):
    """The lists of one account of a processor; a dry run recorded nothing."""

    processor: str
    account: str
    dry_run: bool
    lists: tuple[ListResult, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every list was read, and every object in it."""
        return not any(each.refused or each.quarantined for each in self.lists)

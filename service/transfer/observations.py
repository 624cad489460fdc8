"""The observation of contracts: a file contains their state, but not since when, so they get a moment.

It is the moment of the file's last change unless the operator states one. Since a copied file has another
time, an observation without a stated moment is identified by its content alone, and recorded once.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from service.core.changes import changed_events
from service.core.delivery import Proof
from service.core.events import Data, Event, subjects
from service.core.moments import rfc3339
from service.core.order import canonical
from service.ledger.history import read_histories
from service.ledger.store import Ledger
from service.transfer.importer import ImportItem

_ALL_POSITIONS = 2**62
_CHANGED_SINCE = "imported before, and the ledger has heard otherwise; say --observed-at if it is so again"


class Observation(Struct, frozen=True, kw_only=True):
    """The moment for the contracts of a file; `is_stated` unless it is only the file's last change.

    `keyed_digest` makes digests that can't be guessed: they stay in event ids after names are erased.
    """

    observed_at: datetime
    is_stated: bool
    keyed_digest: Callable[[bytes], bytes]

    def proof(self, processor: str, content: bytes) -> Proof:
        """The proof of one record, which is unsigned. `received_at` is the moment of the observation."""
        digest = self.keyed_digest(content).hex()[:32]
        return Proof(
            processor=processor,
            method="import",
            received_at=self.observed_at,
            trust="unsigned",
            message_id=f"import-{digest}@{rfc3339(self.observed_at)}"
            if self.is_stated
            else f"import-{digest}",
        )


async def skip_known(ledger: Ledger, batch: Sequence[ImportItem]) -> list[ImportItem]:
    """Mark the observations that equal the ledger's state at their moment, or were imported before."""
    events = [event for item in batch if item.is_observation for event in item.incoming.events]
    last_known = await _read_last_known(ledger, events)
    async with ledger.reading() as reader:
        recorded_ids = {row[0] for row in await reader.known_ids(event.event_id for event in events)}
    changed = changed_events(events, last_known)
    return [_mark_known(item, changed, recorded_ids, last_known) for item in batch]


def _mark_known(
    item: ImportItem, changed: Sequence[Event], recorded_ids: set[str], last_known: Mapping[str, Data]
) -> ImportItem:
    ids = {event.event_id for event in item.incoming.events}
    if not item.is_observation or not ids:
        return item
    changed_here = [event for event in changed if event.event_id in ids]
    if not ids <= recorded_ids:
        return replace(item, is_known=not changed_here)
    is_outdated = any(subject in last_known for event in changed_here for subject in subjects(event))
    return replace(item, is_known=True, notes=(_CHANGED_SINCE,) if is_outdated else ())


async def _read_last_known(ledger: Ledger, events: Sequence[Event]) -> dict[str, Data]:
    """The data that the ledger had of each subject at the moment of its event."""
    moments = {subject: event.occurred_at for event in events for subject in subjects(event)}
    histories_by_subject = await ledger.read(
        lambda connection: read_histories(connection, moments, _ALL_POSITIONS, ledger.vault, whole=True)
    )
    data_by_subject = {
        subject: [event.data for event in canonical(history) if event.occurred_at <= moments[subject]]
        for subject, history in histories_by_subject.items()
    }
    return {subject: data[-1] for subject, data in data_by_subject.items() if data}

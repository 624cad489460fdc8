"""Contracts in a file say how they stand, and not since when: they were observed at some moment.

It is the moment of the file's last change, unless one is stated. A file that was copied has another, so
an observation whose moment nobody stated is known by what it says: the ledger takes it once.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from handlers.mxmerchant import changed
from service.core.delivery import Proof
from service.core.events import Data, Event, subjects
from service.core.moments import rfc3339
from service.core.order import canonical
from service.ledger.history import read_histories
from service.ledger.store import Ledger
from service.transfer.importer import Told

_ALL = 2**62
_HEARD_SINCE = "imported before, and the ledger has heard otherwise; say --observed-at if it is so again"


class Observation(Struct, frozen=True, kw_only=True):
    """When what a file says was so; whether somebody stated that, or it is only the file's own time.

    `keyed` makes digests that can't be guessed: they stay in ids when the names that they are of are erased.
    """

    at: datetime
    stated: bool
    keyed: Callable[[bytes], bytes]

    def proof(self, processor: str, content: bytes) -> Proof:
        """Nothing proves a file. `received_at` is when whoever made it was told."""
        digest = self.keyed(content).hex()[:32]
        return Proof(
            processor=processor,
            method="import",
            received_at=self.at,
            trust="unsigned",
            message_id=f"import-{digest}@{rfc3339(self.at)}" if self.stated else f"import-{digest}",
        )


async def skip_known(ledger: Ledger, batch: Sequence[Told]) -> list[Told]:
    """Mark what was observed and is what the ledger knew of that moment, or has been told before."""
    stated = [event for told in batch if told.observed for event in told.incoming.events]
    last = await _last(ledger, stated)
    async with ledger.reading() as reader:
        held = {row[0] for row in await reader.known_ids(event.event_id for event in stated)}
    news = changed(stated, last)
    return [_marked(told, news, held, last) for told in batch]


def _marked(told: Told, news: Sequence[Event], held: set[str], last: Mapping[str, Data]) -> Told:
    ids = {event.event_id for event in told.incoming.events}
    if not told.observed or not ids:
        return told
    new = [event for event in news if event.event_id in ids]
    if not ids <= held:
        return replace(told, known=not new)
    heard_since = any(name in last for event in new for name in subjects(event))
    return replace(told, known=True, notes=(_HEARD_SINCE,) if heard_since else ())


async def _last(ledger: Ledger, stated: Sequence[Event]) -> dict[str, Data]:
    """What the ledger knew of each subject at the moment of its event."""
    moments = {name: event.occurred_at for event in stated for name in subjects(event)}
    found = await ledger.read(lambda connection: read_histories(connection, moments, _ALL, ledger.vault))
    until = {
        name: [event.data for event in canonical(events) if event.occurred_at <= moments[name]]
        for name, events in found.items()
    }
    return {name: data[-1] for name, data in until.items() if data}

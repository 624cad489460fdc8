"""Recording objects as observed, a page at a time."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from service.core.events import Event, subjects
from service.intake.translation import read_delivery
from service.ledger.append import read_head
from service.ledger.draft import Incoming
from service.ledger.history import read_histories
from service.sync.backfill.session import Session
from service.sync.observations import observation_proof


class Recorder:
    """Makes the deliveries by which objects of one account are recorded as observed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def new_deliveries(self, bodies: Mapping[str, bytes]) -> list[Incoming]:
        """The deliveries of those objects that were not last observed like that, by their observed ids.

        One that can't be read is among them, for quarantine; one of which the processor says that nothing
        has happened yet is not.
        """
        now = self._session.clock()
        firsts = {object_id: self._observe(object_id, body, (), now) for object_id, body in bodies.items()}
        names = {object_id: _history_names(first) for object_id, first in firsts.items()}
        histories = await self._read_histories({name for each in names.values() for name in each})
        deliveries = []
        for object_id, first in firsts.items():
            history = [event for name in names[object_id] for event in histories[name]]
            deliveries.append(self._observe(object_id, bodies[object_id], history, now) if history else first)
        return await self._unknown([each for each in deliveries if each])

    def _observe(
        self, object_id: str, body: bytes, history: Sequence[Event], now: datetime
    ) -> Incoming | None:
        """The delivery of an object with this history; None if it was last observed like that."""
        session = self._session
        name = session.processor.name
        proof = observation_proof(name, session.account, object_id, body, history, now)
        if proof is None:
            return None
        return read_delivery(session.processor, b"{}", body, proof, session.mode_of)

    async def _read_histories(self, names: set[str]) -> dict[str, list[Event]]:
        ledger = self._session.ledger

        def read(connection: Connection) -> dict[str, list[Event]]:
            return read_histories(connection, names, read_head(connection).position, ledger.vault)

        return await ledger.read(read)

    async def _unknown(self, deliveries: Sequence[Incoming]) -> list[Incoming]:
        """Those of which the ledger lacks an event: what has no history is recorded once like that."""
        async with self._session.ledger.reading() as reader:
            known = await reader.known_ids(event.event_id for each in deliveries for event in each.events)
        known_ids = {row[0] for row in known if row[1] == self._session.processor.name}
        return [
            each
            for each in deliveries
            if each.reason or any(event.event_id not in known_ids for event in each.events)
        ]


def _history_names(delivery: Incoming | None) -> set[str]:
    """The names of the histories in which observations of an object are."""
    return {name for event in (delivery.events if delivery else ()) for name in subjects(event)}

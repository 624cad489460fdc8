"""Recording objects as observed, many at a time."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256

from msgspec import Struct
from sqlalchemy import Connection

from service.core.events import Event, subjects
from service.core.rfc8259 import NOT_JSON, parse_json
from service.intake.translation import content_digest, read_delivery, read_payload
from service.ledger.append import read_head
from service.ledger.draft import Incoming
from service.ledger.history import read_histories
from service.sync.backfill.session import Session
from service.sync.observations import nth_observation, observation_proof


class _Shown(Struct, frozen=True, kw_only=True):
    """An object as the API shows it, the digest of its content, and its first observation's delivery."""

    object_id: str
    body: bytes
    digest: bytes
    first: Incoming


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
        shown = [self._read(object_id, body, now) for object_id, body in bodies.items()]
        names = [{name for event in each.first.events for name in subjects(event)} for each in shown]
        histories = await self._read_histories({name for own in names for name in own})
        known = await self._known_ids(each.first for each, own in zip(shown, names, strict=True) if not own)
        deliveries = []
        for each, own in zip(shown, names, strict=True):
            history = [event for name in own for event in histories[name]]
            delivery = self._observe(each, history, now)
            is_new = own or any(event.event_id not in known for event in each.first.events)
            if delivery and (delivery.reason or is_new):
                deliveries.append(delivery)
        return deliveries

    def _read(self, object_id: str, body: bytes, now: datetime) -> _Shown:
        """An object as if it was never observed before. It is parsed once."""
        processor, mode_of = self._session.processor, self._session.mode_of
        name, account = processor.name, self._session.account
        try:
            payload = parse_json(body)
            digest = content_digest(payload, processor)
        except NOT_JSON:  # it is nested too deep
            proof = nth_observation(name, account, object_id, sha256(body).digest(), 1, now)
            first = read_delivery(processor, b"{}", body, proof, mode_of)
        else:
            proof = nth_observation(name, account, object_id, digest, 1, now)
            first = read_payload(processor, b"{}", body, proof, mode_of, payload, digest)
        return _Shown(object_id=object_id, body=body, digest=first.content_digest, first=first)

    def _observe(self, shown: _Shown, history: Sequence[Event], now: datetime) -> Incoming | None:
        """The delivery of an object with this history; None if it was last observed like that."""
        if not history:
            return shown.first
        session = self._session
        proof = observation_proof(
            session.processor.name, session.account, shown.object_id, shown.digest, history, now
        )
        if proof is None:
            return None
        if proof == shown.first.proof:
            return shown.first
        return read_delivery(session.processor, b"{}", shown.body, proof, session.mode_of)

    async def _read_histories(self, names: set[str]) -> dict[str, list[Event]]:
        ledger = self._session.ledger

        def read(connection: Connection) -> dict[str, list[Event]]:
            return read_histories(connection, names, read_head(connection).position, ledger.vault, whole=True)

        return await ledger.read(read)

    async def _known_ids(self, deliveries: Iterable[Incoming]) -> set[str]:
        """The ids of events of these deliveries that the ledger has: what has no history is recorded once."""
        ids = [event.event_id for each in deliveries for event in each.events]
        if not ids:
            return set()
        async with self._session.ledger.reading() as reader:
            known = await reader.known_ids(ids)
        return {row[0] for row in known if row[1] == self._session.processor.name}

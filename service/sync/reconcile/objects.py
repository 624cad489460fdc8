"""Live objects compared with the books: those that a processor lists, and those that the books have.

Overdue contracts come first, since of them most is hidden by silence. An object that changed meanwhile is
compared again once its events are appended. One that differs still is recorded as the processor shows it,
and compared once more.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec import json

from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Event, Subscription
from service.core.moments import day_of
from service.core.processor_api import LiveObjects
from service.core.rfc8259 import parse_json
from service.intake.translation import content_digest, read_delivery
from service.sync.observations import observation_proof
from service.sync.reconcile.books import read_live_keys, read_overdue_keys
from service.sync.reconcile.compare import Comparer, Shown, object_id_of
from service.sync.reconcile.events import OVERLAP, EventReconciler, Window
from service.sync.reconcile.report import Differences
from service.sync.reconcile.session import Session

_SETTLE_SECONDS = 5.0  # within this time after a change its event is listed
_ROUNDS = 3
_PAGE = 100

Bodies = Mapping[
    str, bytes | None
]  # by key: the objects that the API shows; None for one that it does not have


class ObjectReconciler:
    """Compares the live objects of one account. `events` brings what changed meanwhile, if it is listed."""

    def __init__(self, session: Session, events: EventReconciler | None, account: str) -> None:
        self._session = session
        self._events = events
        self._account = account
        self._pending_keys = events.pending_keys if events else set()
        self._kinds = {
            kind: Comparer(session, account, kind.name, kind.recorded_as)
            for kind in session.client.api.objects
        }

    async def compare(self) -> Differences:
        """The differences that stay, by the key of each object."""
        session, since = self._session, self._session.clock() - OVERLAP
        await session.wait_for_books()
        await self._compare_overdue()
        differing: Differences = {}
        unlisted: set[str] = set()
        for kind, comparer in self._kinds.items():
            listed_keys: set[str] = set()
            async for page in session.client.pages(kind.listed(self._account)):
                bodies = {comparer.key(session.client.api.id_of(body)): body for body in page.objects}
                differing |= await self._differing(comparer, bodies)
                listed_keys |= bodies.keys()
                session.compared[kind.name] += len(page.objects)
                session.advance(len(page.objects))
            comparison = comparer.comparison
            async for keys in read_live_keys(
                session.store, comparison.row, comparison.book, comparer.key(""), kind.is_live
            ):
                unlisted |= set(keys) - listed_keys
        staying = await self._settle(differing, unlisted, since)
        return staying if session.dry_run else await self._record_differing(staying)

    async def _compare_overdue(self) -> None:
        """Fetch the overdue contracts one by one, and record those that differ, before all lists."""
        session = self._session
        if session.dry_run:
            return  # the lists find them, too
        today = day_of(session.clock(), session.store.rules.zone)
        for kind, comparer in self._kinds.items():
            if kind.recorded_as is not Subscription:
                continue
            keys = await read_overdue_keys(session.store, comparer.key(""), today)
            compared = await self._compare_again(set(keys) - self._pending_keys)
            await self._record_differing({key: found for key, found in compared.items() if found})

    async def _settle(self, differing: Differences, unlisted: set[str], since: datetime) -> Differences:
        """The differences that stay after all objects that changed or were not listed are compared again.

        Changes are the events created since `since`.
        """
        changed_keys, seen_event_ids = set(unlisted), set[str]()
        for _ in range(_ROUNDS):
            if not differing and not changed_keys:
                break
            await self._session.pause(_SETTLE_SECONDS)
            for key, event_id in await self._append_changes(since):
                if key in differing and event_id not in seen_event_ids:
                    changed_keys.add(key)
                    seen_event_ids.add(event_id)
            if not changed_keys:
                break
            differing |= await self._compare_again(changed_keys)
            differing = {key: differences for key, differences in differing.items() if differences}
            changed_keys = set()
        return {key: differences for key, differences in differing.items() if key not in self._pending_keys}

    async def _append_changes(self, since: datetime) -> list[tuple[str, str]]:
        """Append the events missed since then; the keys of the objects of all events since, and their ids."""
        if self._events is None:
            return []
        window = Window(int(since.timestamp()), int(self._session.clock().timestamp()))
        return [
            (self._events.object_key(event), event.event_id)
            async for page in self._events.append_missed(window)
            for event in page
        ]

    async def _compare_again(self, keys: set[str]) -> Differences:
        """The present differences of these objects, fetched one by one; an empty list for none."""
        differences_by_key: Differences = {key: [] for key in keys}
        for kind, comparer in self._kinds.items():
            for chunk in _chunks(keys, comparer):
                bodies = await self._fetch(kind, chunk)
                await self._session.wait_for_books()
                differences_by_key |= await self._differing(comparer, bodies)
                self._session.advance(len(bodies))
        return differences_by_key

    async def _record_differing(self, differing: Differences) -> Differences:
        """Record the objects that differ as the API shows them now; the differences that stay."""
        staying = dict(differing)
        for kind, comparer in self._kinds.items():
            for chunk in _chunks(differing, comparer):
                bodies = await self._fetch(kind, chunk)
                if not await self._append_observed(bodies):
                    continue
                await self._session.wait_for_books()
                still_differing = await self._differing(comparer, bodies)
                for key in bodies.keys() - still_differing.keys():
                    self._session.mended[key] = staying.pop(key)
                staying |= still_differing
        return staying

    async def _append_observed(self, bodies: Bodies) -> int:
        """Append the objects as observed that were not last observed like that; returns their number."""
        session, now = self._session, self._session.clock()
        histories = await session.read_histories(bodies)
        observed = []
        for key, body in bodies.items():
            if body is None:
                continue
            digest = content_digest(parse_json(body), session.processor)
            proof = observation_proof(
                session.processor.name, self._account, object_id_of(key), digest, histories[key], now
            )
            if proof and isinstance(self._observe(body), Event):
                observed.append(read_delivery(session.processor, b"{}", body, proof, session.mode_of))
        if observed:
            await session.ledger.append(observed, now)
        return len(observed)

    async def _fetch(self, kind: LiveObjects, keys: Iterable[str]) -> dict[str, bytes | None]:
        """These objects as the API shows them now, one by one."""
        client = self._session.client
        return {key: await client.fetch_one(kind.fetched(self._account, object_id_of(key))) for key in keys}

    async def _differing(self, comparer: Comparer, bodies: Bodies) -> Differences:
        return await comparer.differing(
            {key: self._observe(body) if body else None for key, body in bodies.items()}
        )

    def _observe(self, body: bytes) -> Shown:
        """The event that would record an object as observed now."""
        proof = Proof(
            processor=self._session.processor.name,
            method="fetch",
            received_at=self._session.clock(),
            message_id="shown",
            account=self._account,
        )
        try:
            [event] = self._session.processor.translate(json.decode(body), proof)
        except Unreadable as error:
            return error
        return event


def _chunks(keys: Iterable[str], comparer: Comparer) -> list[list[str]]:
    """Those of the keys that are of the comparer's kind, sorted, some at a time."""
    of_kind = sorted(key for key in keys if key.startswith(f"{comparer.comparison.history}|"))
    return [of_kind[start : start + _PAGE] for start in range(0, len(of_kind), _PAGE)]

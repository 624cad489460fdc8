"""The events that a processor lists and the ledger lacks: they are appended, with the trust "fetched"."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct, json
from msgspec.structs import replace

from service.core.delivery import Proof
from service.core.errors import Unavailable, Unreadable
from service.core.events import join_key
from service.core.processor_api import EventLog, ListedEvent
from service.intake.translation import is_rendered, read_delivery
from service.sync.reconcile.facts import COMPARISONS
from service.sync.reconcile.report import read_cursor
from service.sync.reconcile.session import Session

OVERLAP = timedelta(minutes=5)  # clocks differ, and an event may be listed a little after its own time
_PAGE = 100


class Window(Struct, frozen=True):
    """Events created from `since` until `until`, both included, in seconds since 1970, newest first."""

    since: int
    until: int


class Progress(Struct, frozen=True):
    """The progress of a run: when it began, in seconds since 1970, and the windows left to list."""

    began: int
    left: tuple[Window, ...]


def start_progress(saved: Progress | None, since: int, now: int) -> Progress:
    """The progress of a run that begins now: all since `since`, or the rest that a killed run saved."""
    windows = saved.left if saved else ()
    if saved is None or not windows:
        return Progress(now, (Window(since, now),))
    oldest = replace(windows[-1], since=min(since, windows[-1].since))
    overlap = int(OVERLAP.total_seconds())
    return Progress(now, (Window(saved.began - overlap, now), *windows[:-1], oldest))


def advance_progress(progress: Progress, created: int) -> Progress:
    """The progress once the first window is listed down to `created`.

    There may be more events of that second, so a run that continues from here lists it again.
    """
    return replace(progress, left=(replace(progress.left[0], until=created), *progress.left[1:]))


class EventReconciler:
    """The events of one account. `pending_keys` are those of the objects whose webhooks are still pending."""

    def __init__(self, session: Session, log: EventLog, account: str) -> None:
        self._session = session
        self._log = log
        self._account = account
        self._name = session.processor.name
        self._histories = {
            kind.name: COMPARISONS[kind.recorded_as].history for kind in session.client.api.objects
        }
        self._would_append: set[str] = set()
        self._quarantined: set[str] | None = None
        self.pending_keys: set[str] = set()

    async def catch_up(self, since: datetime) -> None:
        """Append the events of the period that the ledger lacks, and save the progress after each page."""
        session, name = self._session, f"reconcile|{self._name}|{self._account}"
        async with session.ledger.reading() as reader:
            saved = None if session.dry_run else await read_cursor(reader, name, Progress)
        progress = start_progress(saved, int(since.timestamp()), int(session.clock().timestamp()))
        while progress.left:
            async for page in self.append_missed(progress.left[0]):
                progress = advance_progress(progress, min(event.created for event in page))
                await self._save_progress(name, progress)
            progress = replace(progress, left=progress.left[1:])
            await self._save_progress(name, progress)

    async def _save_progress(self, name: str, progress: Progress) -> None:
        if not self._session.dry_run:
            await self._session.ledger.save_cursor(name, json.encode(progress), self._session.clock())

    async def append_missed(self, window: Window) -> AsyncIterator[list[ListedEvent]]:
        """Append the missed events of a window, and yield all its events, a page at a time."""
        request = self._log.listed(self._account, window.since, window.until)
        async for page in self._session.client.pages(request):
            if not page.objects:
                continue
            try:
                events = [self._log.read(body, self._account) for body in page.objects]
            except Unreadable as error:
                title = self._session.client.api.title
                raise Unavailable(f"{title} listed an event that can't be read: {error}") from None
            await self._append_page(events)
            self._session.listed += len(events)
            self._session.advance(len(events))
            yield events

    async def _append_page(self, events: Sequence[ListedEvent]) -> None:
        """Append the events of a page that the books use and the ledger lacks.

        An event of the last minutes whose webhook is still pending is left out: the webhook is signed, and
        so has a better proof than a fetched event.
        """
        used = [event for event in events if event.is_used]
        recorded_ids = await self._read_recorded_ids(used)
        now, missed = self._session.clock(), []
        for event in used:
            if event.event_id in recorded_ids | self._would_append:
                continue
            if event.is_pending and event.created >= (now - OVERLAP).timestamp():
                self.pending_keys.add(self.object_key(event))
                continue
            proof = Proof(processor=self._name, method="fetch", received_at=now, trust="fetched")
            incoming = read_delivery(self._session.processor, b"{}", event.body, proof, self._session.mode_of)
            if incoming.events or not await self._is_accounted_for(event):
                missed.append(incoming)
                self._session.missed[event.type] += 1
                if self._session.dry_run:
                    self._would_append.add(event.event_id)
        if missed and not self._session.dry_run:
            await self._session.ledger.append(missed, now)
            self._quarantined = None

    async def _read_recorded_ids(self, events: Sequence[ListedEvent]) -> set[str]:
        """The ids of those of these events that the ledger has."""
        async with self._session.ledger.reading() as reader:
            rows = await reader.known_ids(event.event_id for event in events)
        accounts = {event.account for event in events}
        is_unique = is_rendered(self._name)  # over all accounts
        return {row[0] for row in rows if row[1] == self._name and (is_unique or row[2] in accounts)}

    async def _is_accounted_for(self, event: ListedEvent) -> bool:
        """Whether an unreadable event is in quarantine already, or belongs to an erased customer."""
        if event.event_id in await self._quarantined_ids():
            return True
        ledger = self._session.ledger
        owner = join_key("customer", self._name, event.account, event.customer_id)
        keys = await ledger.read(lambda connection: ledger.vault.read_keys(connection, [owner]))
        return owner in keys and keys[owner] is None

    async def _quarantined_ids(self) -> set[str]:
        """The ids of the processor's events in quarantine: they are not missed."""
        if self._quarantined is None:
            self._quarantined, after = set(), 0
            async with self._session.ledger.reading() as reader:
                while rows := await reader.quarantined_deliveries(after, _PAGE):
                    after = rows[-1]["id"]
                    bodies = [row["body"] for row in rows if row["processor"] == self._name and row["body"]]
                    self._quarantined |= {self._session.client.api.id_of(body) for body in bodies}
        return self._quarantined

    def object_key(self, event: ListedEvent) -> str:
        """The key of the object in an event; of one that is compared that of its row in the books."""
        return join_key(
            self._histories.get(event.kind, event.kind), self._name, event.account, event.object_id
        )

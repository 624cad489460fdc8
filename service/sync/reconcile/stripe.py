"""Reconciliation with Stripe: compares its events with the ledger, then its live objects with the books.

Each event of the period that the ledger lacks is appended, with the trust "fetched". Then every live
subscription and open invoice is compared, those of Stripe and those of the books; overdue contracts come
first, since of them most is hidden by silence. An object that changed meanwhile is compared again once its
events are appended. One that differs still is recorded as Stripe shows it, and compared once more.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from urllib.parse import quote

import structlog
from msgspec import DecodeError, Raw, Struct, json
from msgspec.structs import replace
from sqlalchemy import Connection

from handlers.stripe import NAME, PROCESSOR
from handlers.stripe.envelope import translate
from handlers.stripe.translations import is_used
from projections import bills
from projections.bills import Contract
from projections.book import Row, Rules
from projections.customer_discounts import CustomerDiscounts
from projections.issued_invoices import IssuedInvoice, invoice_rows
from service.books.store import BookStore
from service.core.delivery import Proof
from service.core.errors import NotFound, Unavailable, Unreadable
from service.core.events import ENDED_STATUSES, Data, Event, Invoice, Subscription, join_key, subject
from service.core.moments import day_of, rfc3339
from service.core.order import canonical
from service.core.progress import Advance, no_advance
from service.intake.translation import read_delivery
from service.ledger.append import read_head
from service.ledger.draft import Incoming
from service.ledger.history import read_histories
from service.ledger.store import Ledger
from service.settings import Settings
from service.sync.observations import observation_proof
from service.sync.reconcile.books import (
    read_accounts,
    read_live_keys,
    read_overdue_keys,
    read_row_by_key,
    wait_for_head,
)
from service.sync.reconcile.report import (
    FactDifference,
    Facts,
    ReconciliationReport,
    compare_facts,
    contract_facts,
    invoice_facts,
    listed_differences,
    read_cursor,
    save_report,
)
from service.sync.stripe_api import StripeApiClient

_OVERLAP = timedelta(minutes=5)  # clocks differ, and an event may be listed a little after its own time
_SETTLE_SECONDS = 5.0  # within this time after a change its event is listed
_ROUNDS = 3
_PAGE = 100

log = structlog.get_logger()


class ObjectKind(Struct, frozen=True, kw_only=True):
    """A kind of object that is compared: how Stripe lists the live ones, and their row in the books.

    `contribute` makes the row of a history under rules, given the discounts of the customer; `facts` the
    compared values of a row. `recorded_as` is the type of data by which the object itself is recorded.
    """

    name: str
    path: str
    query: dict[str, str]
    row: type[Row]
    recorded_as: type[Data]
    contribute: Callable[[Sequence[Event], Rules, Sequence[CustomerDiscounts]], list[Row]]
    facts: Callable[[Any, str], Facts]
    is_live: Callable[[str], bool]


OBJECT_KINDS = (
    ObjectKind(
        name="subscription",
        path="/v1/subscriptions",
        query={},  # all that are not canceled
        row=Contract,
        recorded_as=Subscription,
        contribute=bills.observed_contract_rows,
        facts=contract_facts,
        is_live=lambda status: status not in ENDED_STATUSES,
    ),
    ObjectKind(
        name="invoice",
        path="/v1/invoices",
        query={"status": "open"},
        row=IssuedInvoice,
        recorded_as=Invoice,
        contribute=lambda history, rules, _discounts: invoice_rows(history, rules),
        facts=invoice_facts,
        is_live=lambda status: status in {"open", "failed"},
    ),
)


# The progress of listing an account's events


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
    overlap = int(_OVERLAP.total_seconds())
    return Progress(now, (Window(saved.began - overlap, now), *windows[:-1], oldest))


def advance_progress(progress: Progress, created: int) -> Progress:
    """The progress once the first window is listed down to `created`.

    There may be more events of that second, so a run that continues from here lists it again.
    """
    return replace(progress, left=(replace(progress.left[0], until=created), *progress.left[1:]))


# One run


class _EventObject(Struct, frozen=True):
    object: str | None = None
    id: str | None = None
    customer: Any = None


class _EventData(Struct, frozen=True):
    object: _EventObject


class _ListedEvent(Struct, frozen=True):
    """The fields of a listed event that decide whether it is appended."""

    id: str
    type: str
    created: int
    data: _EventData
    account: str | None = None
    pending_webhooks: int = 0


async def reconcile(
    settings: Settings,
    ledger: Ledger,
    store: BookStore,
    clock: Callable[[], datetime],
    since: datetime,
    *,
    dry_run: bool,
    advance: Advance,
) -> ReconciliationReport:
    """One run with the settings' API key; raises as `StripeReconciler.run` does."""
    api = StripeApiClient(settings.stripe_api_key or "", settings.stripe_api_url)
    try:
        reconciler = StripeReconciler(
            api, ledger, store, clock, settings.stripe_mode, dry_run=dry_run, advance=advance
        )
        return await reconciler.run(since)
    finally:
        await api.close()


class StripeReconciler:
    """One run over all accounts.

    `advance` is called with the number of objects of each page. A dry run writes nothing at all.
    """

    def __init__(
        self,
        api: StripeApiClient,
        ledger: Ledger,
        store: BookStore,
        clock: Callable[[], datetime],
        mode: str,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        dry_run: bool = False,
        advance: Advance = no_advance,
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._mode = mode
        self._pause = pause
        self._dry_run = dry_run
        self._advance = advance
        self._listed = 0
        self._missed: Counter[str] = Counter()
        self._would_append: set[str] = set()
        self._pending_keys: set[str] = set()  # of the objects whose webhooks are still pending
        self._compared: Counter[str] = Counter()
        self._mended: dict[str, list[FactDifference]] = {}  # by the key of each object
        self._quarantined: set[str] | None = None

    async def run(self, since: datetime) -> ReconciliationReport:
        """Append the events missed since a moment, compare, and store the report.

        Raises Unavailable if Stripe or the books can't be read to the end; appended events stay, and the
        next run continues from there.
        """
        began = self._clock()
        differing: dict[str, list[FactDifference]] = {}
        for account in await self._read_accounts():
            try:
                await self._catch_up(account, since)
                differing |= await self._compare(account)
            except NotFound as refusal:
                if not account:
                    raise Unavailable(str(refusal)) from None
                log.warning("account_refused", processor=NAME, account=account)
                differing[account] = compare_facts("account", account, account, None, {"status": "known"})
        report = ReconciliationReport(
            processor=NAME,
            began_at=rfc3339(began),
            finished_at=rfc3339(self._clock()),
            dry_run=self._dry_run,
            since=rfc3339(since),
            listed=self._listed,
            missed=dict(self._missed),
            compared={kind.name: self._compared[kind.name] for kind in OBJECT_KINDS},
            mended=dict(Counter(differences[0].kind for differences in self._mended.values())),
            differing=len(differing),
            differences=listed_differences(differing, self._mended),
        )
        await save_report(self._ledger, report, self._clock())
        return report

    async def _read_accounts(self) -> list[str]:
        """The API key's own account (""), and the connected accounts that are in the books."""
        accounts_by_kind = [
            await read_accounts(self._store, kind.row, "bills", f"{kind.name}|{NAME}|")
            for kind in OBJECT_KINDS
        ]
        return sorted({"", *chain.from_iterable(accounts_by_kind)})

    # Events

    async def _catch_up(self, account: str, since: datetime) -> None:
        """Append the events of the period that the ledger lacks, and save the progress after each page."""
        name = f"reconcile|{NAME}|{account}"
        async with self._ledger.reading() as reader:
            saved = None if self._dry_run else await read_cursor(reader, name, Progress)
        progress = start_progress(saved, int(since.timestamp()), int(self._clock().timestamp()))
        while progress.left:
            async for page in self._append_missed_events(account, progress.left[0]):
                progress = advance_progress(progress, min(event.created for event in page))
                await self._save_progress(name, progress)
            progress = replace(progress, left=progress.left[1:])
            await self._save_progress(name, progress)

    async def _save_progress(self, name: str, progress: Progress) -> None:
        if not self._dry_run:
            await self._ledger.save_cursor(name, json.encode(progress), self._clock())

    async def _append_missed_events(self, account: str, window: Window) -> AsyncIterator[list[_ListedEvent]]:
        """Append the missed events of a window, and yield all its events, a page at a time."""
        period = {"gte": window.since, "lte": window.until}
        async for bodies in self._api.list_pages("/v1/events", account, created=period):
            page = [_decode_event(body, account) for body in bodies]
            await self._append_page(list(zip(page, bodies, strict=True)))
            self._listed += len(page)
            self._advance(len(page))
            yield page

    async def _append_page(self, page: Sequence[tuple[_ListedEvent, bytes]]) -> None:
        """Append the events of a page that the books use and the ledger lacks.

        An event of the last minutes whose webhook is still pending is left out: the webhook is signed, and
        so has a better proof than a fetched event.
        """
        used_events = [(event, body) for event, body in page if is_used(event.type)]
        async with self._ledger.reading() as reader:
            rows = await reader.known_ids(event.id for event, _ in used_events)
        recorded_ids = {row[0] for row in rows if row[1] == NAME}  # unique over all accounts
        now, missed = self._clock(), []
        for event, body in used_events:
            if event.id in recorded_ids or event.id in self._would_append:
                continue
            if event.pending_webhooks and event.created >= (now - _OVERLAP).timestamp():
                self._pending_keys.add(_object_key(event))
                continue
            incoming = _fetched_delivery(event, body, now, self._mode)
            if incoming.events or not await self._is_accounted_for(event):
                missed.append(incoming)
                self._missed[event.type] += 1
                if self._dry_run:
                    self._would_append.add(event.id)
        if missed and not self._dry_run:
            await self._ledger.append(missed, now)
            self._quarantined = None

    async def _is_accounted_for(self, event: _ListedEvent) -> bool:
        """Whether an unreadable event is in quarantine already, or belongs to an erased customer."""
        if event.id in await self._quarantined_ids():
            return True
        payload = event.data.object
        customer = payload.customer.get("id") if isinstance(payload.customer, dict) else payload.customer
        customer_id = payload.id if payload.object == "customer" else customer
        owner = join_key(
            "customer", NAME, event.account or "", customer_id if isinstance(customer_id, str) else ""
        )
        keys = await self._ledger.read(lambda connection: self._ledger.vault.read_keys(connection, [owner]))
        return owner in keys and keys[owner] is None

    async def _quarantined_ids(self) -> set[str]:
        """The ids of Stripe's events in quarantine: they are not missed."""
        if self._quarantined is None:
            self._quarantined, after = set(), 0
            async with self._ledger.reading() as reader:
                while rows := await reader.quarantined_deliveries(after, _PAGE):
                    after = rows[-1]["id"]
                    bodies = [row["body"] for row in rows if row["processor"] == NAME and row["body"]]
                    self._quarantined |= {_object_id_in(body) for body in bodies}
        return self._quarantined

    # Objects

    async def _compare(self, account: str) -> dict[str, list[FactDifference]]:
        """The differences in an account, by the key of each object."""
        since = self._clock() - _OVERLAP
        await wait_for_head(self._ledger, self._store, self._pause)
        await self._compare_overdue(account)
        differing: dict[str, list[FactDifference]] = {}
        unlisted: set[str] = set()
        for kind in OBJECT_KINDS:
            listed_keys: set[str] = set()
            async for bodies in self._api.list_pages(kind.path, account, **kind.query):
                bodies_by_key: dict[str, bytes | None] = {
                    _row_key(kind, account, _object_id_in(body)): body for body in bodies
                }
                differing |= await self._differing_objects(kind, account, bodies_by_key)
                listed_keys |= bodies_by_key.keys()
                self._compared[kind.name] += len(bodies)
                self._advance(len(bodies))
            prefix = _row_key(kind, account, "")
            async for keys in read_live_keys(self._store, kind.row, "bills", prefix, kind.is_live):
                unlisted |= set(keys) - listed_keys
        staying = await self._settle_differences(account, differing, unlisted, since)
        return staying if self._dry_run else await self._record_differing(account, staying)

    async def _compare_overdue(self, account: str) -> None:
        """Fetch the overdue contracts one by one, and record those that differ, before all lists."""
        if self._dry_run:
            return  # the lists find them, too
        prefix = _row_key(OBJECT_KINDS[0], account, "")
        keys = await read_overdue_keys(self._store, prefix, day_of(self._clock(), self._store.rules.zone))
        compared = await self._compare_again(account, set(keys) - self._pending_keys)
        await self._record_differing(account, {key: found for key, found in compared.items() if found})

    async def _settle_differences(
        self, account: str, differing: dict[str, list[FactDifference]], unlisted: set[str], since: datetime
    ) -> dict[str, list[FactDifference]]:
        """The differences that stay after all objects that changed or were not listed are compared again.

        Changes are the events created since `since`.
        """
        changed_keys, seen_event_ids = set(unlisted), set[str]()
        for _ in range(_ROUNDS):
            if not differing and not changed_keys:
                break
            await self._pause(_SETTLE_SECONDS)
            window = Window(int(since.timestamp()), int(self._clock().timestamp()))
            async for page in self._append_missed_events(account, window):
                for event in page:
                    key = _object_key(event)
                    if key in differing and event.id not in seen_event_ids:
                        changed_keys.add(key)
                        seen_event_ids.add(event.id)
            if not changed_keys:
                break
            differing |= await self._compare_again(account, changed_keys)
            differing = {key: differences for key, differences in differing.items() if differences}
            changed_keys = set()
        return {key: differences for key, differences in differing.items() if key not in self._pending_keys}

    async def _compare_again(self, account: str, keys: set[str]) -> dict[str, list[FactDifference]]:
        """The present differences of these objects, fetched one by one; an empty list for none."""
        differences_by_key: dict[str, list[FactDifference]] = {key: [] for key in keys}
        for kind in OBJECT_KINDS:
            keys_of_kind = sorted(key for key in keys if key.startswith(f"{kind.name}|"))
            for start in range(0, len(keys_of_kind), _PAGE):
                bodies_by_key = await self._fetch_objects(kind, account, keys_of_kind[start : start + _PAGE])
                await wait_for_head(self._ledger, self._store, self._pause)
                differences_by_key |= await self._differing_objects(kind, account, bodies_by_key)
                self._advance(len(bodies_by_key))
        return differences_by_key

    async def _record_differing(
        self, account: str, differing: dict[str, list[FactDifference]]
    ) -> dict[str, list[FactDifference]]:
        """Record the objects that differ as Stripe shows them now; the differences that stay."""
        staying = dict(differing)
        for kind in OBJECT_KINDS:
            keys_of_kind = sorted(key for key in differing if key.startswith(f"{kind.name}|"))
            for start in range(0, len(keys_of_kind), _PAGE):
                bodies_by_key = await self._fetch_objects(kind, account, keys_of_kind[start : start + _PAGE])
                if not await self._append_observed(account, bodies_by_key):
                    continue
                await wait_for_head(self._ledger, self._store, self._pause)
                still_differing = await self._differing_objects(kind, account, bodies_by_key)
                for key in bodies_by_key.keys() - still_differing.keys():
                    self._mended[key] = staying.pop(key)
                staying |= still_differing
        return staying

    async def _append_observed(self, account: str, bodies_by_key: Mapping[str, bytes | None]) -> int:
        """Append the objects as observed that were not last observed like that; returns their number."""
        now = self._clock()
        histories = await self._read_histories(bodies_by_key)
        observed = []
        for key, body in bodies_by_key.items():
            history = histories[key]
            proof = body and observation_proof(NAME, account, _object_id_of(key), body, history, now)
            if body and proof and not isinstance(self._observe(account, body), Unreadable):
                observed.append(read_delivery(PROCESSOR, b"{}", body, proof, self._mode))
        if observed:
            await self._ledger.append(observed, now)
        return len(observed)

    async def _read_histories(self, keys: Iterable[str]) -> dict[str, list[Event]]:
        def read(connection: Connection) -> dict[str, list[Event]]:
            return read_histories(connection, keys, read_head(connection).position, self._ledger.vault)

        return await self._ledger.read(read)

    async def _fetch_objects(
        self, kind: ObjectKind, account: str, keys: Iterable[str]
    ) -> dict[str, bytes | None]:
        """These objects as Stripe shows them now, one by one; None for one that it does not have."""
        return {
            key: await self._api.fetch_one(f"{kind.path}/{quote(_object_id_of(key), safe='')}", account)
            for key in keys
        }

    async def _differing_objects(
        self, kind: ObjectKind, account: str, bodies_by_key: dict[str, bytes | None]
    ) -> dict[str, list[FactDifference]]:
        """The objects of a page that differ. A body is None where Stripe has no such object."""
        today = day_of(self._clock(), self._store.rules.zone).isoformat()
        rows = await read_row_by_key(self._store, kind.row, "bills", bodies_by_key)
        observed = {key: self._observe(account, body) for key, body in bodies_by_key.items() if body}
        stated = await self._stated_facts(kind, observed, today)
        differing = {}
        for key in bodies_by_key:
            book_facts = kind.facts(rows[key], today) if key in rows else None
            object_id = _object_id_of(key)
            if differences := compare_facts(kind.name, account, object_id, stated.get(key), book_facts):
                differing[key] = differences
        return differing

    def _observe(self, account: str, body: bytes) -> Event | Unreadable:
        now = self._clock()
        proof = Proof(processor=NAME, method="fetch", received_at=now, message_id="shown", account=account)
        try:
            [event] = translate(json.decode(body), proof)
        except Unreadable as error:
            return error
        return event

    async def _stated_facts(
        self, kind: ObjectKind, observed: Mapping[str, Event | Unreadable], today: str
    ) -> dict[str, Facts]:
        """The facts that the books would have of Stripe's objects; the error where one can't be read.

        An object does not tell all that they depend on: its customer's discounts, its schedule and the tax of
        its invoices are those that are known here.
        """
        events = {key: event for key, event in observed.items() if isinstance(event, Event)}
        customers = {key: _discounts_key(event) for key, event in events.items()}
        discounts = await read_row_by_key(
            self._store, CustomerDiscounts, "bills", sorted(set(customers.values()))
        )
        histories = await self._read_histories(events)
        facts: dict[str, Facts] = {
            key: {"status": "unreadable", "shape": str(error)}
            for key, error in observed.items()
            if isinstance(error, Unreadable)
        }
        for key, event in events.items():
            others = [
                other for other in histories.get(key, ()) if not isinstance(other.data, kind.recorded_as)
            ]
            theirs = [discounts[customers[key]]] if customers[key] in discounts else []
            [row] = kind.contribute(canonical([*others, event]), self._store.rules, theirs)
            facts[key] = kind.facts(row, today)
        return facts


def _decode_event(body: bytes, account: str) -> _ListedEvent:
    """An event in an account's list, which need not contain the account itself."""
    try:
        event = json.decode(body, type=_ListedEvent)
    except DecodeError:
        raise Unavailable("Stripe listed an event of no shape that is known") from None
    return event if event.account or not account else replace(event, account=account)


def _fetched_delivery(event: _ListedEvent, body: bytes, now: datetime, mode: str) -> Incoming:
    """The delivery of a listed event: its bytes, with its account added where they lack it."""
    if event.account and json.decode(body, type=_ListedEvent).account is None:
        fields = json.decode(body, type=dict[str, Raw])
        body = json.encode({**fields, "account": event.account})
    proof = Proof(processor=NAME, method="fetch", received_at=now, trust="fetched")
    return read_delivery(PROCESSOR, b"{}", body, proof, mode)


def _object_key(event: _ListedEvent) -> str:
    """The key of the object in an event; for a subscription or invoice that of its row in the books."""
    payload = event.data.object
    return join_key(payload.object or "", NAME, event.account or "", payload.id or "")


def _row_key(kind: ObjectKind, account: str, key: str) -> str:
    return join_key(kind.name, NAME, account, key)


def _discounts_key(event: Event) -> str:
    return subject("customer_discount", event, getattr(event.data, "customer_id", None) or "")


def _object_id_of(key: str) -> str:
    return key.rpartition("|")[2]


def _object_id_in(body: bytes) -> str:
    try:
        return json.decode(body, type=_EventObject).id or ""
    except DecodeError:
        return ""

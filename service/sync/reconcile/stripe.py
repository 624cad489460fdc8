"""Reconciliation with Stripe: its events beside the ledger, then its live objects beside the books.

Each event of the period that the ledger lacks is appended as fetched. Then every live subscription and
open invoice is compared, both ways. What changed while it was compared is looked at again, with the
events that tell of the change; only what differs without such an event is reported.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import structlog
from msgspec import DecodeError, Struct, json
from msgspec.structs import replace

from handlers import stripe
from projections import bills
from projections.bills import Contract, IssuedInvoice
from projections.book import Contribute, Row
from projections.contracts import TERMINAL_STATUSES
from service.books.store import BookStore
from service.core.delivery import Proof
from service.core.errors import NotFound, Unavailable, Unreadable
from service.core.events import join_key
from service.core.moments import day_of, rfc3339
from service.intake.translation import endpoint_of, read_delivery
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.sync.reconcile.books import accounts_of, live_keys, reach_head, rows_of
from service.sync.reconcile.report import (
    MOST,
    Difference,
    Facts,
    Report,
    compared,
    conclude,
    contract_facts,
    invoice_facts,
    kept_as,
)
from service.sync.stripe_api import Api

PROCESSOR = stripe.PROCESSOR
KEPT_DAYS = 30  # for as long as Stripe lists events
_OVERLAP = timedelta(minutes=5)  # clocks differ, and an event may be listed a little after its own time
_SETTLE_SECONDS = 5.0  # how long after a change its event may be listed
_ROUNDS = 3
_PAGE = 100

log = structlog.get_logger()


class Kind(Struct, frozen=True, kw_only=True):
    """What is compared: how Stripe lists those that live, and which row of the books says the same."""

    name: str
    path: str
    query: dict[str, str]
    row: type[Row]
    contribute: Contribute
    facts: Callable[[Any, str], Facts]
    is_live: Callable[[str], bool]


KINDS = (
    Kind(
        name="subscription",
        path="/v1/subscriptions",
        query={},  # all that are not canceled
        row=Contract,
        contribute=bills.contract_rows,
        facts=contract_facts,
        is_live=lambda status: status not in TERMINAL_STATUSES,
    ),
    Kind(
        name="invoice",
        path="/v1/invoices",
        query={"status": "open"},
        row=IssuedInvoice,
        contribute=bills.invoice_rows,
        facts=invoice_facts,
        is_live=lambda status: status in {"open", "failed"},
    ),
)


# What is left to list of an account's events


class Window(Struct, frozen=True):
    """Events created from `since` until `until`, both included, in seconds since 1970. Newest come first."""

    since: int
    until: int


class Progress(Struct, frozen=True):
    """Where a run stands: from when it began on, nothing is listed; of before, the windows that are left."""

    began: int
    left: tuple[Window, ...]


def begun(kept: Progress | None, since: int, now: int) -> Progress:
    """What a run has to list that begins now, and takes up what a killed one left."""
    left = kept.left if kept else ()
    if kept is None or not left:
        return Progress(now, (Window(since, now),))
    oldest = replace(left[-1], since=min(since, left[-1].since))
    overlap = int(_OVERLAP.total_seconds())
    return Progress(now, (Window(kept.began - overlap, now), *left[:-1], oldest))


def listed_until(progress: Progress, created: int) -> Progress:
    """The progress once the first window is listed down to `created`.

    Of that second there may be more, so it is listed again by whoever takes up from here.
    """
    return replace(progress, left=(replace(progress.left[0], until=created), *progress.left[1:]))


# One run


class _Object(Struct, frozen=True):
    object: str | None = None
    id: str | None = None
    customer: Any = None


class _Data(Struct, frozen=True):
    object: _Object


class _Told(Struct, frozen=True):
    """What of an event is looked at before it is known whether the ledger has it."""

    id: str
    type: str
    created: int
    data: _Data
    account: str | None = None
    pending_webhooks: int = 0


class Reconciler:
    """One run over all accounts. `done` is told of each page; a dry run writes nothing at all."""

    def __init__(
        self,
        api: Api,
        ledger: Ledger,
        store: BookStore,
        clock: Callable[[], datetime],
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        dry_run: bool = False,
        done: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._pause = pause
        self._dry_run = dry_run
        self._done = done
        self._listed = 0
        self._missed: Counter[str] = Counter()
        self._would_append: set[str] = set()
        self._under_way: set[str] = set()  # what events tell of whose webhooks are on their way
        self._compared: Counter[str] = Counter()
        self._quarantined: set[str] | None = None

    async def run(self, since: datetime) -> Report:
        """Append what is missing since then, compare, and keep the report.

        Raises Unavailable if Stripe or the books can't be asked to the end; what was appended stays, and
        the next run goes on from there.
        """
        began = self._clock()
        found: dict[str, list[Difference]] = {}
        for account in await self._accounts():
            try:
                await self._catch_up(account, since)
                found |= await self._compare(account)
            except NotFound as refusal:
                if not account:
                    raise Unavailable(str(refusal)) from None
                log.warning("account_refused", processor=PROCESSOR, account=account)
                found[account] = compared("account", account, account, None, {"status": "known"})
        report = Report(
            processor=PROCESSOR,
            began_at=rfc3339(began),
            finished_at=rfc3339(self._clock()),
            dry_run=self._dry_run,
            since=rfc3339(since),
            listed=self._listed,
            missed=dict(self._missed),
            compared={kind.name: self._compared[kind.name] for kind in KINDS},
            differing=len(found),
            differences=tuple(each for several in list(found.values())[:MOST] for each in several),
        )
        await conclude(self._ledger, report, self._clock())
        return report

    async def _accounts(self) -> list[str]:
        """The key's own account, and the connected ones that the books know."""
        known = [
            await accounts_of(self._store, kind.row, "bills", f"{kind.name}|{PROCESSOR}|") for kind in KINDS
        ]
        return sorted({"", *(account for each in known for account in each)})

    # Events

    async def _catch_up(self, account: str, since: datetime) -> None:
        """Append the events of the period that the ledger lacks."""
        name = f"reconcile|{PROCESSOR}|{account}"
        async with self._ledger.reading() as reader:
            kept = None if self._dry_run else await kept_as(reader, name, Progress)
        progress = begun(kept, int(since.timestamp()), int(self._clock().timestamp()))
        while progress.left:
            async for page in self._events(account, progress.left[0]):
                progress = listed_until(progress, min(told.created for told in page))
                await self._keep(name, progress)
            progress = replace(progress, left=progress.left[1:])
            await self._keep(name, progress)

    async def _keep(self, name: str, progress: Progress) -> None:
        if not self._dry_run:
            await self._ledger.save_cursor(name, json.encode(progress), self._clock())

    async def _events(self, account: str, window: Window) -> AsyncIterator[list[_Told]]:
        """The events of a window, a page at a time; those that the ledger lacks have been appended."""
        within = {"gte": window.since, "lte": window.until}
        async for bodies in self._api.pages("/v1/events", account, created=within):
            page = [_told(body, account) for body in bodies]
            await self._append(list(zip(page, bodies, strict=True)))
            self._listed += len(page)
            self._done(len(page))
            yield page

    async def _append(self, page: Sequence[tuple[_Told, bytes]]) -> None:
        """Append the events of a page that the books use and the ledger lacks.

        One of the last minutes whose webhook is pending is left to it: signed is better than fetched.
        """
        used = [(told, body) for told, body in page if stripe.is_used(told.type)]
        async with self._ledger.reading() as reader:
            known = {row[:3] for row in await reader.known_ids(told.id for told, _ in used)}
        now, missing = self._clock(), []
        for told, body in used:
            if (told.id, PROCESSOR, told.account or "") in known or told.id in self._would_append:
                continue
            if told.pending_webhooks and told.created >= (now - _OVERLAP).timestamp():
                self._under_way.add(_subject(told))
                continue
            incoming = _fetched(told, body, now)
            if incoming.events or not await self._is_settled(told):
                missing.append(incoming)
                self._missed[told.type] += 1
                if self._dry_run:
                    self._would_append.add(told.id)
        if missing and not self._dry_run:
            await self._ledger.append(missing, now)
            self._quarantined = None

    async def _is_settled(self, told: _Told) -> bool:
        """Whether an event that can't be read waits in quarantine, or tells of a customer who was erased."""
        if told.id in await self._in_quarantine():
            return True
        its = told.data.object
        customer = its.customer.get("id") if isinstance(its.customer, dict) else its.customer
        key = its.id if its.object == "customer" else customer
        owner = join_key("customer", PROCESSOR, told.account or "", key if isinstance(key, str) else "")
        keys = await self._ledger.read(lambda connection: self._ledger.vault.read_keys(connection, [owner]))
        return owner in keys and keys[owner] is None

    async def _in_quarantine(self) -> set[str]:
        """The ids of Stripe's events that wait in quarantine: there, too, they are not missing."""
        if self._quarantined is None:
            self._quarantined, after = set(), 0
            async with self._ledger.reading() as reader:
                while rows := await reader.quarantined_deliveries(after, _PAGE):
                    after = rows[-1]["id"]
                    bodies = [row["body"] for row in rows if row["processor"] == PROCESSOR and row["body"]]
                    self._quarantined |= {_id_in(body) for body in bodies}
        return self._quarantined

    # Objects

    async def _compare(self, account: str) -> dict[str, list[Difference]]:
        """What differs in an account, by the key of each thing."""
        mark = self._clock() - _OVERLAP
        await reach_head(self._ledger, self._store, self._pause)
        found: dict[str, list[Difference]] = {}
        unlisted: set[str] = set()
        for kind in KINDS:
            seen: set[str] = set()
            async for bodies in self._api.pages(kind.path, account, **kind.query):
                stated: dict[str, bytes | None] = {_key(kind, account, _id_in(body)): body for body in bodies}
                found |= await self._differences(kind, account, stated)
                seen |= stated.keys()
                self._compared[kind.name] += len(bodies)
                self._done(len(bodies))
            prefix = _key(kind, account, "")
            async for keys in live_keys(self._store, kind.row, "bills", prefix, kind.is_live):
                unlisted |= set(keys) - seen
        return await self._settled(account, found, unlisted, mark)

    async def _settled(
        self, account: str, found: dict[str, list[Difference]], unlisted: set[str], mark: datetime
    ) -> dict[str, list[Difference]]:
        """What still differs when all that changed since `mark`, or was not listed, is looked at again."""
        again, seen = set(unlisted), set[str]()
        for _ in range(_ROUNDS):
            if not found and not again:
                break
            await self._pause(_SETTLE_SECONDS)
            window = Window(int(mark.timestamp()), int(self._clock().timestamp()))
            async for page in self._events(account, window):
                for told in page:
                    key = _subject(told)
                    if key in found and told.id not in seen:
                        again.add(key)
                        seen.add(told.id)
            if not again:
                break
            found |= await self._looked_at_again(account, again)
            found = {key: differences for key, differences in found.items() if differences}
            again = set()
        return {key: differences for key, differences in found.items() if key not in self._under_way}

    async def _looked_at_again(self, account: str, keys: set[str]) -> dict[str, list[Difference]]:
        """Each of these as Stripe and the books have it now; without differences where they agree."""
        looked: dict[str, list[Difference]] = {key: [] for key in keys}
        for kind in KINDS:
            own = sorted(key for key in keys if key.startswith(f"{kind.name}|"))
            for start in range(0, len(own), _PAGE):
                stated = {
                    key: await self._api.one(f"{kind.path}/{quote(_id_of(key), safe='')}", account)
                    for key in own[start : start + _PAGE]
                }
                await reach_head(self._ledger, self._store, self._pause)
                looked |= await self._differences(kind, account, stated)
                self._done(len(stated))
        return looked

    async def _differences(
        self, kind: Kind, account: str, stated: dict[str, bytes | None]
    ) -> dict[str, list[Difference]]:
        """Of a page of things, those that differ. None: Stripe has no such thing."""
        today = day_of(self._clock(), self._store.rules.zone).isoformat()
        rows = await rows_of(self._store, kind.row, "bills", stated)
        found = {}
        for key, body in stated.items():
            told = self._facts(kind, account, body, today) if body else None
            books = kind.facts(rows[key], today) if key in rows else None
            if differences := compared(kind.name, account, _id_of(key), told, books):
                found[key] = differences
        return found

    def _facts(self, kind: Kind, account: str, body: bytes, today: str) -> Facts:
        """What the books would say of the thing as Stripe has it; why not, where it can't be read."""
        try:
            event = stripe.observed(json.decode(body), account, self._clock())
        except Unreadable as error:
            return {"status": "unreadable", "shape": str(error)}
        [row] = kind.contribute([event], self._store.rules)
        return kind.facts(row, today)


def _told(body: bytes, account: str) -> _Told:
    """An event of an account's list, which need not name the account itself."""
    try:
        told = json.decode(body, type=_Told)
    except DecodeError:
        raise Unavailable("Stripe listed an event of no shape that is known") from None
    return told if told.account or not account else replace(told, account=account)


def _fetched(told: _Told, body: bytes, now: datetime) -> Incoming:
    """An event as a delivery: the bytes that Stripe listed, with its account where only the list has it."""
    endpoint = endpoint_of(PROCESSOR)
    assert endpoint is not None  # noqa: S101 - Stripe is in the table
    if told.account and json.decode(body, type=_Told).account is None:
        body = b'{"account": %b,%b' % (json.encode(told.account), body[1:])
    proof = Proof(processor=PROCESSOR, method="fetch", received_at=now, trust="fetched")
    return read_delivery(endpoint, b"{}", body, proof)


def _subject(told: _Told) -> str:
    """The key of the thing that an event tells of; of a subscription or invoice it is that of its row."""
    its = told.data.object
    return join_key(its.object or "", PROCESSOR, told.account or "", its.id or "")


def _key(kind: Kind, account: str, key: str) -> str:
    return join_key(kind.name, PROCESSOR, account, key)


def _id_of(key: str) -> str:
    return key.rpartition("|")[2]


def _id_in(body: bytes) -> str:
    try:
        return json.decode(body, type=_Object).id or ""
    except DecodeError:
        return ""

"""Reading all lists of one account, so that a run that was stopped continues where it was."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack

import structlog
from msgspec import Struct, json
from msgspec.structs import replace

from service.core.errors import Refused, Unavailable
from service.core.events import Event
from service.core.processor_api import HistoryList, Page, Request
from service.core.progress import Advance
from service.ledger.draft import Incoming
from service.sync.backfill.recorder import Recorder
from service.sync.backfill.report import ListResult
from service.sync.backfill.session import Session
from service.sync.poll import Poller

_NO_LIST = frozenset({401, 403, 404})  # the key may not read it, or the API does not have it
_BATCH = 500  # objects that are recorded at once
_NO_PLACE = frozenset({400, 404})  # the object after which the list was to continue is gone

log = structlog.get_logger()


class Progress(Struct, frozen=True, kw_only=True):
    """How far a run is. `results` are those of the lists that were begun.

    `next_query` is that of the last one's next page; None at its end. `since` is that of the run.
    """

    since: int | None
    results: tuple[ListResult, ...] = ()
    next_query: dict[str, str | int] | None = None


class AccountReader:
    """Reads the lists of one account into the ledger."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._client = session.client
        self._recorder = Recorder(session)
        self._cursor = f"backfill|{session.processor.name}|{session.account}"

    async def read(self, since: int | None) -> tuple[ListResult, ...]:
        """Record what the lists hold that was created since a second since 1970; None for all.

        Raises Unavailable if a list can't be read to its end, or none may be read; the next run continues
        from there.
        """
        contracts = await self._poll_contracts()
        progress = await self._start(since)
        lists = self._client.api.history
        at = len(progress.results) - (progress.next_query is not None)
        for each in lists[at:]:
            progress = await self._read_list(each, progress)
        await self._save((), Progress(since=since))
        results = contracts + progress.results
        if all(result.refused for result in results):
            raise Unavailable(f"{self._client.api.title} refuses every list: may its key read any?")
        return results

    async def _start(self, since: int | None) -> Progress:
        """The progress of the run that was stopped, if it read the same; else that of a new one."""
        async with self._session.ledger.reading() as reader:
            body = None if self._session.dry_run else await reader.read_cursor(self._cursor)
        saved = json.decode(body, type=Progress) if body else None
        names = [each.name for each in self._client.api.history]
        if saved and saved.since == since:
            begun = [result.name for result in saved.results]
            if begun == names[: len(begun)]:
                return saved
        return Progress(since=since)

    async def _poll_contracts(self) -> tuple[ListResult, ...]:
        """Record the contracts that changed, of a processor whose contracts are polled."""
        contracts = self._client.api.contracts
        if contracts is None:
            return ()
        session, began = self._session, self._session.clock()
        poller = Poller(session.processor, contracts, session.client, session.ledger, session.clock)
        result = ListResult(name=f"{contracts.name}s", figures=contracts.figures)
        try:
            records = await poller.list_contracts()
        except Refused as refusal:
            return (self._refused(result, refusal),)
        deliveries = await poller.changes(records, began)
        if not self._session.dry_run:
            await poller.append(deliveries)
        return (_counted(result, len(records), deliveries),)

    async def _read_list(self, listed: HistoryList, progress: Progress) -> Progress:
        """Record the objects of a list, and save the progress with those of each page."""
        if progress.next_query is None:
            new = ListResult(name=listed.name, figures=listed.figures)
            progress = replace(progress, results=(*progress.results, new))
        try:
            async for page in self._shown(listed.name, _ahead(_batches(self._pages(listed, progress)))):
                deliveries = await self._recorder.new_deliveries(await self._whole_objects(listed, page))
                result = _counted(progress.results[-1], len(page.objects), deliveries)
                progress = Progress(
                    since=progress.since,
                    results=(*progress.results[:-1], result),
                    next_query=page.next_query,  # type: ignore[arg-type]  # of a page there are only scalars
                )
                await self._save(deliveries, progress)
        except Refused as refusal:
            result = progress.results[-1]
            if result.listed:
                raise
            progress = replace(progress, results=(*progress.results[:-1], self._refused(result, refusal)))
            await self._save((), progress)
        return progress

    async def _pages(self, listed: HistoryList, progress: Progress) -> AsyncIterator[Page]:
        """The pages of a list from where it was left; all of them once that place is no longer known."""
        request = listed.listed(self._session.account, progress.since)
        following = replace(request, query={**request.query, **(progress.next_query or {})})
        is_first = following == request
        try:
            async for page in self._client.pages(following):
                is_first = False
                yield page
        except Refused as refusal:
            if is_first or refusal.status not in _NO_PLACE:
                raise
            log.warning("list_begun_anew", processor=self._session.processor.name, list=listed.name)
            async for page in self._client.pages(request):
                yield page

    async def _shown(self, name: str, pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
        """The same pages, with their progress shown."""
        with ExitStack() as stack:
            advance: Advance | None = None
            async for page in pages:
                title = f"{self._session.processor.name} {name}"
                advance = advance or stack.enter_context(self._session.show_progress(title, page.count))
                yield page
                advance(len(page.objects))

    async def _whole_objects(self, listed: HistoryList, page: Page) -> Mapping[str, bytes]:
        """The objects of a page by their observed ids, with all of the lists in them."""
        account, objects = self._session.account, {}
        bodies = {self._client.api.id_of(body): body for body in page.objects}
        recorded = await self._recorded_events(listed, bodies)
        for object_id, body in bodies.items():
            whole = await self._whole(listed, object_id, body)
            found = [recorded[name] for name in listed.recorded_ids(account, object_id) if name in recorded]
            objects[listed.observed_id(account, object_id)] = (
                listed.complete(whole, found[0]) if found else whole
            )
        return objects

    async def _recorded_events(self, listed: HistoryList, object_ids: Iterable[str]) -> dict[str, Event]:
        """The events that tell these objects already, by id, of a list whose objects they may complete."""
        session = self._session
        ids = [name for each in object_ids for name in listed.recorded_ids(session.account, each)]
        if not ids:
            return {}
        async with session.ledger.reading() as reader:
            events = [each.event for each in await reader.recorded_events(ids)]
        scope = (session.processor.name, session.account)
        return {event.event_id: event for event in events if (event.processor, event.account) == scope}

    async def _whole(self, listed: HistoryList, object_id: str, body: bytes) -> bytes:
        for nested in listed.nested:
            if nested.is_part(body):
                parts = await self._parts(nested.listed(self._session.account, object_id))
                body = body if parts is None else nested.fill(body, parts)
        return body

    async def _parts(self, request: Request) -> list[bytes] | None:
        """All that a list in an object holds; None if it may not be read: then a part must do."""
        try:
            return [each async for page in self._client.pages(request) for each in page.objects]
        except Refused as refusal:
            log.warning("list_refused", processor=self._session.processor.name, status=refusal.status)
            return None

    def _refused(self, result: ListResult, refusal: Refused) -> ListResult:
        """The result of a list that the API refuses. Raises the refusal if it is of another kind."""
        if refusal.status not in _NO_LIST:
            raise refusal
        log.warning(
            "list_refused", processor=self._session.processor.name, list=result.name, status=refusal.status
        )
        return replace(result, refused=refusal.status)

    async def _save(self, deliveries: Sequence[Incoming], progress: Progress) -> None:
        """Append deliveries together with the progress that they make."""
        if not self._session.dry_run:
            await self._session.ledger.append(
                deliveries, self._session.clock(), (self._cursor, json.encode(progress))
            )


async def _batches(pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
    """The same objects on fewer pages: a transaction costs as much for one page as for several."""
    read: list[Page] = []
    try:
        async for page in pages:
            read.append(page)
            if sum(len(each.objects) for each in read) >= _BATCH:
                yield _merged(read)
                read = []
    except (Refused, Unavailable):
        if read:
            yield _merged(read)
        raise
    if read:
        yield _merged(read)


def _merged(pages: Sequence[Page]) -> Page:
    return replace(pages[-1], objects=tuple(body for page in pages for body in page.objects))


async def _ahead(pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
    """The same pages, each asked for while the one before it is recorded."""
    following = asyncio.ensure_future(anext(pages, None))
    try:
        while (page := await following) is not None:
            following = asyncio.ensure_future(anext(pages, None))
            yield page
    finally:
        following.cancel()
        await asyncio.wait({following})


def _counted(result: ListResult, listed: int, deliveries: Sequence[Incoming]) -> ListResult:
    """A result with the counts of one more page."""
    return replace(
        result,
        listed=result.listed + listed,
        recorded=result.recorded + sum(bool(each.events) for each in deliveries),
        quarantined=result.quarantined + sum(bool(each.reason) for each in deliveries),
    )

"""Contracts of a processor that lists them all: they are polled, and compared with the books."""

from collections.abc import Mapping
from typing import Any

from service.core.errors import Unreadable
from service.core.processor_api import ContractList
from service.sync.poll import Poller
from service.sync.reconcile.books import read_live_keys
from service.sync.reconcile.compare import Comparer, Shown
from service.sync.reconcile.report import Differences
from service.sync.reconcile.session import Session

_ROUNDS = 3


class ContractReconciler:
    """Polls and compares the contracts of the account to which the credentials belong."""

    def __init__(self, session: Session, contracts: ContractList) -> None:
        self._session = session
        self._contracts = contracts
        self._poller = Poller(session.processor, contracts, session.client, session.ledger, session.clock)
        self._comparer = Comparer(
            session,
            session.client.own_account,
            contracts.name,
            contracts.recorded_as,
            contracts.unstated,
        )

    async def compare(self) -> Differences:
        """The contracts that differ. They are polled and compared until the differences stay the same."""
        session, listed = self._session, self._session.listed
        first = differing = await self._compare_listed()
        for _ in range(_ROUNDS):
            if not session.dry_run:
                await self._poller.poll()
            previous, differing = differing, await self._compare_listed()
            if differing == previous or not differing:
                break
        session.mended |= {key: first[key] for key in first.keys() - differing.keys()}
        session.listed = listed + session.compared[self._contracts.name]
        session.advance(session.compared[self._contracts.name])
        return differing

    async def _compare_listed(self) -> Differences:
        records = await self._poller.list_contracts()
        await self._session.wait_for_books()
        self._session.compared[self._contracts.name] = len(records)
        shown: dict[str, Shown] = {
            self._comparer.key(key): self._observe(record) for key, record in records.items()
        }
        return await self._comparer.differing({**shown, **await self._unlisted(shown)})

    async def _unlisted(self, shown: Mapping[str, Shown]) -> dict[str, Shown]:
        """The contracts that are live in the books, and that the list does not have."""
        comparison, store = self._comparer.comparison, self._session.store
        pages = read_live_keys(
            store, comparison.row, comparison.book, self._comparer.key(""), self._contracts.is_live
        )
        return {key: None async for keys in pages for key in keys if key not in shown}

    def _observe(self, record: Any) -> Shown:
        try:
            events = self._contracts.events(record, self._session.clock())
        except Unreadable as error:
            return error
        return next(event for event in events if isinstance(event.data, self._contracts.recorded_as))

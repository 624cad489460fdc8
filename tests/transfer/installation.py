"""A Daybook as its operator has it: commands run on it, and what it then holds."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import json
from typer.testing import CliRunner

from service.books.digest import digest
from service.books.engine import Engine
from service.bootstrap import open_books, open_ledger
from service.cli import app
from service.core.delivery import Proof
from service.intake.translation import processor_of, read_delivery
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from tests.support.modes import live
from tests.support.stores import settings_of
from tests.support.temporary_books import NOW, now

T = TypeVar("T")


class Installation:
    """One data directory, and its database if it has one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = settings_of(directory)
        url = self.settings.database_url
        stores = {"DAYBOOK_DATABASE_URL": url} if url else {}
        self.environment = {"DAYBOOK_DATA_DIR": str(directory), **stores}

    def run(self, *words: object, code: int = 0, stdin: bytes = b"") -> str:
        """What a command prints; it must end with `code`."""
        ran = CliRunner().invoke(app, [str(word) for word in words], env=self.environment, input=stdin)
        assert ran.exit_code == code, (ran.output, ran.exception)
        return ran.stdout if words[-1] == "--json" else ran.output

    def import_(self, *words: object, code: int = 0, stdin: bytes = b"") -> dict[str, Any]:
        """The summary of an import."""
        summary: dict[str, Any] = json.decode(self.run("import", *words, "--json", code=code, stdin=stdin))
        return summary

    def append(self, *incoming: Incoming) -> None:
        """What came by another way."""
        asyncio.run(self._with_ledger(lambda ledger: ledger.append(incoming, NOW)))

    def catch_up(self) -> None:
        """Bring the books up to date, as a worker does."""

        async def advance(ledger: Ledger) -> None:
            store = open_books(self.settings)
            try:
                await Engine(ledger, store, now).catch_up()
            finally:
                await store.close()

        asyncio.run(self._with_ledger(advance))

    def contents(self) -> dict[str, Any]:
        """All that an import may change: the ledger's head, quarantine, and the digest of each book."""

        async def find(ledger: Ledger) -> dict[str, Any]:
            async with ledger.reading() as reader:
                head, quarantine = await reader.head(), await reader.quarantined_deliveries(0, 10_000)
            waiting = Counter((row["reason"], row["body"]) for row in quarantine)
            return {"head": head, "quarantine": waiting, "books": await self._digests(ledger)}

        return asyncio.run(self._with_ledger(find))

    def rows(self) -> list[dict[str, Any]]:
        """The ledger's events."""

        async def find(ledger: Ledger) -> list[dict[str, Any]]:
            async with ledger.reading() as reader:
                return await reader.rows(0, 10_000)

        return asyncio.run(self._with_ledger(find))

    def use(self, use: Callable[[Ledger], Awaitable[T]]) -> T:
        """What a function finds in the ledger, or does to it."""
        return asyncio.run(self._with_ledger(use))

    async def _with_ledger(self, use: Callable[[Ledger], Awaitable[T]]) -> T:
        ledger = open_ledger(self.settings)
        try:
            return await use(ledger)
        finally:
            await ledger.close()

    async def _digests(self, ledger: Ledger) -> dict[str, str]:
        store = open_books(self.settings)
        try:
            await Engine(ledger, store, now).catch_up()
            async with store.reading() as connection:
                positions = await connection.run_sync(store.positions)
                return {
                    book.name: await digest(connection, book, positions.books[book.name])
                    for book in store.books
                }
        finally:
            await store.close()


def posted(processor: str, payload: Any, **proof: Any) -> Incoming:
    """A payload as its webhook would be read."""
    described = processor_of(processor)
    assert described is not None
    body = payload if isinstance(payload, bytes) else json.encode(payload)
    stated = {
        "method": described.endpoints[0].method,
        "received_at": NOW,
        "signed_at": NOW,
        "secret": 1,
        **proof,
    }
    return read_delivery(described, b'{"x":"y"}', body, Proof(processor=processor, **stated), live)


def lines(payloads: Sequence[Any]) -> bytes:
    return b"".join(json.encode(payload) + b"\n" for payload in payloads)

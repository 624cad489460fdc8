"""The report of a reconciliation: the missed events, and where the processor and the books differ."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import chain
from logging import INFO, WARNING
from typing import Any, TypeVar

import structlog
from msgspec import Struct, json
from msgspec.structs import replace

from service.ledger.reader import LedgerReader
from service.ledger.store import Ledger

MAX_LISTED = 1_000  # differing objects whose differences are listed; more are only counted

T = TypeVar("T")
Facts = dict[str, Any]

log = structlog.get_logger()


class FactDifference(Struct, frozen=True, kw_only=True):
    """One field in which a processor and the books differ.

    A value is None on the side that lacks the field or the whole object. `mended`: what the processor shows
    was recorded, and the books agree since.
    """

    kind: str
    id: str
    account: str
    field: str
    stated: Any
    books: Any
    mended: bool = False


Differences = dict[str, list[FactDifference]]  # by the key of each object


class ReconciliationSummary(Struct, frozen=True, kw_only=True):
    """The part of a report that is monitored. `missed` counts events by type.

    `mended` counts by kind the objects that were recorded as the processor shows them, and agree since;
    `differing` counts those that differ still.
    """

    began_at: str
    finished_at: str
    missed: dict[str, int]
    mended: dict[str, int] = {}
    differing: int


class ReconciliationReport(ReconciliationSummary, frozen=True, kw_only=True):
    """The result of one run. `differences` are those of the first 1,000 objects that differ, or differed."""

    processor: str
    dry_run: bool
    since: str | None
    listed: int
    compared: dict[str, int]
    differences: tuple[FactDifference, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is left to do: no difference, and no missed event that was not appended."""
        return not self.differing and not (self.dry_run and self.missed)

    def document(self) -> dict[str, Any]:
        """The report as JSON values; a processor's own value has the processor's name as its key."""
        differences = [
            {
                "kind": difference.kind,
                "id": difference.id,
                "account": difference.account,
                "field": difference.field,
                self.processor: difference.stated,
                "books": difference.books,
                "mended": difference.mended,
            }
            for difference in self.differences
        ]
        document: dict[str, Any] = json.decode(json.encode(self))
        return document | {"differences": differences}


def listed_differences(differing: Differences, mended: Differences) -> tuple[FactDifference, ...]:
    """The differences of the first objects: first those that differ still, then the mended ones."""
    listed = [*differing.values(), *([replace(each, mended=True) for each in of] for of in mended.values())]
    return tuple(chain.from_iterable(listed[:MAX_LISTED]))


async def save_report(ledger: Ledger, report: ReconciliationReport, now: datetime) -> None:
    """Store the report in place of the last one, unless of a dry run; log its differences by ids alone."""
    if not report.dry_run:
        await ledger.save_cursor(f"reconciled|{report.processor}", json.encode(report), now)
    for difference in report.differences:
        log.log(
            INFO if difference.mended else WARNING,
            "books_mended" if difference.mended else "books_differ",
            processor=report.processor,
            account=difference.account,
            kind=difference.kind,
            id=difference.id,
            field=difference.field,
        )
    log.info(
        "reconciled",
        processor=report.processor,
        listed=report.listed,
        missed=sum(report.missed.values()),
        mended=sum(report.mended.values()),
        differing=report.differing,
    )


async def read_cursor(reader: LedgerReader, name: str, shape: type[T]) -> T | None:
    """The stored cursor or report of this name; None if there is none."""
    body = await reader.read_cursor(name)
    return None if body is None else json.decode(body, type=shape)


async def read_last_summary(reader: LedgerReader, processor: str) -> ReconciliationSummary | None:
    """The summary of the last complete run against a processor; None if there was none."""
    return await read_cursor(reader, f"reconciled|{processor}", ReconciliationSummary)


def compare_facts(
    kind: str, account: str, key: str, stated: Mapping[str, Any] | None, books: Mapping[str, Any] | None
) -> list[FactDifference]:
    """The fields in which an object differs; only its status where one side does not know the object."""
    names: Iterable[str] = stated if stated is not None and books is not None else ("status",)
    stated, books = stated or {}, books or {}
    return [
        FactDifference(
            kind=kind,
            id=key,
            account=account,
            field=name,
            stated=stated.get(name),
            books=books.get(name),
        )
        for name in names
        if stated.get(name) != books.get(name)
    ]

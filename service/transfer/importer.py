"""Appends the deliveries of a file to the ledger, in batches so small that webhooks don't wait for them."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime

from msgspec import Struct, field

from service.ledger.draft import Incoming, Outcome
from service.ledger.store import Ledger

BATCH_SIZE = 256  # deliveries in one transaction
_MAX_BATCH_BYTES = 16 << 20
_MAX_NOTES = 100  # per import
_KNOWN_OUTCOME = Outcome(position=None, duplicate=True)


class ImportItem(Struct, frozen=True, kw_only=True):
    """A delivery in an imported file, with notes for the operator.

    `is_observation`: it is the state of an object at some moment, rather than an event. `differences` counts
    its events that are translated otherwise here. `as_exported`: its events are taken as they were exported,
    so the ledger can know them by their ids alone. `is_known`: the ledger lacks none of its events.
    """

    line: int
    incoming: Incoming
    notes: tuple[str, ...] = ()
    is_observation: bool = False
    differences: int = 0
    as_exported: bool = False
    is_known: bool = False


class LineFault(Struct, frozen=True, kw_only=True):
    """A line that is no delivery, and the reason."""

    line: int
    detail: str


class LineNote(Struct, frozen=True, kw_only=True):
    """A note on a line, for the operator."""

    line: int
    detail: str


class ImportSummary(Struct, kw_only=True):
    """The outcomes of a file's deliveries, counted; `position` is the ledger's head after the import.

    `notes` are the first notes on single lines.
    """

    deliveries: int = 0
    recorded: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    unreadable_lines: int = 0
    differences: int = 0
    position: int = 0
    notes: list[LineNote] = field(default_factory=list)

    def note(self, line: int, detail: str) -> None:
        """Add a note on a line, if there is room."""
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(LineNote(line=line, detail=detail))

    def count(self, item: ImportItem, outcome: Outcome) -> None:
        """Count a delivery's outcome, and add its notes."""
        self.deliveries += 1
        self.differences += item.differences
        for detail in item.notes:
            self.note(item.line, detail)
        if outcome.quarantined:
            self.quarantined += 1
            self.note(item.line, f"in quarantine: {item.incoming.detail}")
        elif outcome.conflict:
            self.conflicts += 1
            self.note(item.line, f"in quarantine: position {outcome.position} has this id and other content")
        elif outcome.duplicate:
            self.duplicates += 1
        else:
            self.recorded += 1


# Returns a batch with `is_known` set on the items that `Ledger.append` would not recognise as duplicates.
SkipKnown = Callable[[Ledger, Sequence[ImportItem]], Awaitable[list[ImportItem]]]


async def skip_none(_ledger: Ledger, batch: Sequence[ImportItem]) -> list[ImportItem]:
    """The batch as it is, where the ledger recognises all duplicates."""
    return list(batch)


async def import_items(
    ledger: Ledger,
    items: Iterable[ImportItem | LineFault],
    skip_known: SkipKnown,
    clock: Callable[[], datetime],
    done: Callable[[], None],
) -> ImportSummary:
    """Append the items of a file, and count their outcomes. `done` is called after each batch.

    Raises SQLAlchemy's errors as they are. The batches before stay appended; repeating them adds nothing.
    """
    summary = ImportSummary()
    for batch in _batches(items, summary):
        await _append(ledger, batch, skip_known, clock, summary)
        done()
    async with ledger.reading() as reader:
        summary.position = (await reader.head()).position
    summary.notes.sort(key=lambda note: note.line)
    return summary


def _batches(items: Iterable[ImportItem | LineFault], summary: ImportSummary) -> Iterator[list[ImportItem]]:
    batch: list[ImportItem] = []
    size = 0
    for item in items:
        if isinstance(item, LineFault):
            summary.unreadable_lines += 1
            summary.note(item.line, item.detail)
            continue
        batch.append(item)
        size += len(item.incoming.body)
        if len(batch) == BATCH_SIZE or size > _MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


async def _append(
    ledger: Ledger,
    batch: list[ImportItem],
    skip_known: SkipKnown,
    clock: Callable[[], datetime],
    summary: ImportSummary,
) -> None:
    items = await skip_known(ledger, batch) if batch else []
    new_deliveries = [item.incoming for item in items if not item.is_known]
    outcomes = iter(await ledger.append(new_deliveries, clock()) if new_deliveries else ())
    for item in items:
        summary.count(item, _KNOWN_OUTCOME if item.is_known else next(outcomes))

"""What a file tells goes into the ledger, in batches so small that webhooks don't wait for them."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime

from msgspec import Struct, field

from service.ledger.draft import Incoming, Outcome
from service.ledger.store import Ledger

BATCH = 256  # deliveries in one transaction
_BATCH_BYTES = 16 << 20
_NOTES = 100  # that are kept of one import
_KNOWN = Outcome(position=None, duplicate=True)


class Told(Struct, frozen=True, kw_only=True):
    """A delivery that a file holds, and what there is to say of it."""

    line: int
    incoming: Incoming
    notes: tuple[str, ...] = ()
    observed: bool = False  # a state at some moment, rather than something that happened
    differences: int = 0
    on_trust: bool = False  # there is nothing by which it could be told from what is known
    known: bool = False  # it tells the ledger nothing new


class Fault(Struct, frozen=True, kw_only=True):
    """A line that is no delivery, and what it should be."""

    line: int
    detail: str


class Summary(Struct, kw_only=True):
    """What became of a file's deliveries; `position` is the ledger's head after it.

    `notes` are the first of what there is to say of single lines.
    """

    deliveries: int = 0
    recorded: int = 0
    duplicates: int = 0
    conflicts: int = 0
    quarantined: int = 0
    unreadable_lines: int = 0
    differences: int = 0
    position: int = 0
    notes: list[Fault] = field(default_factory=list)

    def note(self, line: int, detail: str) -> None:
        """Say something of a line."""
        if len(self.notes) < _NOTES:
            self.notes.append(Fault(line=line, detail=detail))

    def count(self, told: Told, outcome: Outcome) -> None:
        """Count a delivery, and say what there is to say of it."""
        self.deliveries += 1
        self.differences += told.differences
        for detail in told.notes:
            self.note(told.line, detail)
        if outcome.quarantined:
            self.quarantined += 1
            self.note(told.line, f"in quarantine: {told.incoming.detail}")
        elif outcome.conflict:
            self.conflicts += 1
            self.note(told.line, f"in quarantine: position {outcome.position} has this id and other content")
        elif outcome.duplicate:
            self.duplicates += 1
        else:
            self.recorded += 1


# A batch, with those marked as known of which the ledger itself could not see that.
SkipKnown = Callable[[Ledger, Sequence[Told]], Awaitable[list[Told]]]


async def take(
    ledger: Ledger,
    items: Iterable[Told | Fault],
    skip_known: SkipKnown,
    clock: Callable[[], datetime],
    done: Callable[[], None],
) -> Summary:
    """Append what a file holds, and count what became of it. `done` is called after each batch.

    Raises SQLAlchemy's errors as they are: what came before is kept, and repeating it adds nothing.
    """
    summary = Summary()
    for batch in _batches(items, summary):
        await _append(ledger, batch, skip_known, clock, summary)
        done()
    async with ledger.reading() as reader:
        summary.position = (await reader.head()).position
    summary.notes.sort(key=lambda note: note.line)
    return summary


def _batches(items: Iterable[Told | Fault], summary: Summary) -> Iterator[list[Told]]:
    batch: list[Told] = []
    size = 0
    for item in items:
        if isinstance(item, Fault):
            summary.unreadable_lines += 1
            summary.note(item.line, item.detail)
            continue
        batch.append(item)
        size += len(item.incoming.body)
        if len(batch) == BATCH or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


async def _append(
    ledger: Ledger, batch: list[Told], skip_known: SkipKnown, clock: Callable[[], datetime], summary: Summary
) -> None:
    sifted = await skip_known(ledger, batch) if batch else []
    news = [told.incoming for told in sifted if not told.known]
    outcomes = iter(await ledger.append(news, clock()) if news else ())
    for told in sifted:
        summary.count(told, _KNOWN if told.known else next(outcomes))

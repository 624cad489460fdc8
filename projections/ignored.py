"""Events of the mode that does not count: test events beside live ones, or the other way round."""

from collections.abc import Sequence

from projections.book import Book, Row, Rules, Stage, Total, causes
from service.core.events import Event, Unused


class IgnoredEvent(Row, frozen=True, kw_only=True):
    """An event that would count under another setting."""

    table = "ignored_events"

    processor: str
    account: str
    event_id: str


def ignored_rows(history: Sequence[Event], _rules: Rules) -> list[Row]:
    """One event to its row, unless it counts by now."""
    return [
        IgnoredEvent(
            causes=causes(event),
            processor=event.processor,
            account=event.account,
            event_id=event.data.event_id,
        )
        for event in history
        if isinstance(event.data, Unused) and event.data.event_id
    ]


IGNORED = Book(
    name="ignored",
    version=1,
    stages=(Stage(reads="ignored", contribute=ignored_rows, rows=(IgnoredEvent,)),),
    totals=(
        Total(
            table="ignored_totals",
            row_type=IgnoredEvent,
            group_by=("processor", "account"),
            sums=("events",),
            measure=lambda _row: (1,),
        ),
    ),
)

"""Histories that are set aside: no book reads them to their ends, so figures lack what they tell."""

from collections.abc import Sequence

from projections.book import Book, Row, Rules, Stage, Total, causes
from service.core.events import READING, Event, SetAside


class SetAsideHistory(Row, frozen=True, kw_only=True):
    """A history that is set aside, by its kind and key."""

    table = "set_aside_histories"

    processor: str
    account: str
    kind: str
    history_key: str


def set_aside_rows(history: Sequence[Event], _rules: Rules) -> list[Row]:
    """The events of how far one history is read to its row, if the last one sets it aside."""
    if not history or not isinstance(history[-1].data, SetAside):
        return []
    last, data = history[-1], history[-1].data
    return [
        SetAsideHistory(
            causes=causes(last),
            processor=last.processor,
            account=last.account,
            kind=data.kind,
            history_key=data.key,
        )
    ]


SET_ASIDE = Book(
    name="set_aside",
    version=1,
    stages=(Stage(reads=READING, contribute=set_aside_rows, rows=(SetAsideHistory,)),),
    totals=(
        Total(
            table="set_aside_totals",
            row_type=SetAsideHistory,
            group_by=("processor", "account"),
            sums=("histories",),
            measure=lambda _row: (1,),
        ),
    ),
)

"""What a book is: a name, a version, and pure functions from histories to rows to totals.

A stage reads one history at a time: the events of one subject (a subscription, an invoice), or the
rows of an earlier stage that have the same parent key (a customer's contracts). It contributes rows, and
rows add up to totals. A book is therefore a function of the set of events alone: neither the order of
the deliveries nor their number can matter, and integers add up in any order.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from fractions import Fraction
from typing import Any, ClassVar, Literal, Protocol
from zoneinfo import ZoneInfo

from msgspec import Struct, json
from msgspec.structs import replace

from service.core.cadence import WEEKS_PER_MONTH
from service.core.events import Event
from service.core.moments import day_of

INFERRED = "inferred"  # of what no event tells, but what was billed
TRUST_LEVELS = (INFERRED, "unsigned", "fetched", "signed")  # from the weakest to the strongest


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts in MRR, where billers disagree. The defaults are Daybook's own.

    `ignored_discounts` lists the durations that are not deducted. With `weeks_per_month` None the rules'
    value applies.
    """

    statuses: tuple[str, ...] = ("active", "past_due")
    paused: bool = False  # whether a contract with paused collection counts
    ignored_discounts: tuple[Literal["forever", "repeating", "once"], ...] = ("once",)
    churn: Literal["when_ended", "when_set_to_cancel"] = "when_ended"
    weeks_per_month: Fraction | None = None


class Rules(Struct, frozen=True, kw_only=True):
    """The settings that figures depend on. A book under other rules is another version of it."""

    reporting_tz: str = "UTC"
    weeks_per_month: Fraction = WEEKS_PER_MONTH
    policy: Policy = Policy()

    def with_policy(self, policy: Policy) -> "Rules":
        """These rules with another policy."""
        return replace(self, policy=policy, weeks_per_month=policy.weeks_per_month or self.weeks_per_month)

    @property
    def zone(self) -> tzinfo:
        """The zone in which days begin."""
        return ZoneInfo(self.reporting_tz)


class Row(Struct, frozen=True, kw_only=True):
    """One row of a book: text, integers, booleans. Dates are text, "2025-11-13".

    `parent_key` names the key under which a later stage reads this row; empty where none does. `causes`
    is the JSON list of the events that the row's values come from.
    """

    table: ClassVar[str]
    indexes: ClassVar[tuple[tuple[str, ...], ...]] = ()  # the columns by which reads look rows up

    parent_key: str = ""
    causes: str = "[]"


# (history in canonical order, or rows in any order; the rules) -> rows, no two of them equal. An empty
# history gives no rows: all its events may be superseded.
Contribute = Callable[[Sequence[Any], Rules], list[Row]]


class HistoryFold(Protocol):
    """A history as far as it was read, which may go on with later events in place of reading all again."""

    @property
    def size(self) -> int:
        """About how many rows it holds in memory."""

    def goes_on(self, later: Sequence[Event]) -> bool:
        """Whether to `read_on` with these events gives what folding the whole history anew gives."""

    def read_on(self, later: Sequence[Event]) -> None:
        """Read later events with which it goes on, in canonical order."""

    def rows(self) -> list[Row]:
        """The rows that the events read so far contribute."""


class Stage(Struct, frozen=True, kw_only=True):
    """One step of a book. `reads` is a kind of subject ("invoice"), or row types of earlier stages.

    A stage of long histories may have a `fold`, whose rows of a whole history are what it contributes.
    """

    reads: str | tuple[type[Row], ...]
    contribute: Contribute
    rows: tuple[type[Row], ...]
    fold: Callable[[Sequence[Event], Rules], HistoryFold] | None = None


def _row_itself(row: Any) -> Iterable[Any]:
    return (row,)


class Total(Struct, frozen=True, kw_only=True):
    """Sums over rows: `measure(row)` gives the integers for `sums`, grouped by the columns in `group_by`.

    A row may count in several groups: `split(row)` then gives the parts that are measured and grouped in
    its place.
    """

    table: str
    row_type: type[Row]
    group_by: tuple[str, ...]
    sums: tuple[str, ...]
    measure: Callable[[Any], tuple[int, ...]]
    split: Callable[[Any], Iterable[Any]] = _row_itself

    def gross(self) -> "Total":
        """The sums by currency of the largest measure of each row, without its sign.

        No sum of any of the measures, over any rows and in any order, is larger.
        """
        return Total(
            table=f"{self.table}_gross",
            row_type=self.row_type,
            group_by=("currency",),
            sums=("gross_cents",),
            measure=lambda part: (max(map(abs, self.measure(part))),),
            split=self.split,
        )


class Book(Struct, frozen=True, kw_only=True):
    """A projection. Raise `version` whenever the same events give other rows than before."""

    name: str
    version: int
    stages: tuple[Stage, ...]
    totals: tuple[Total, ...]
    policy: Policy = Policy()

    @property
    def gross_totals(self) -> tuple[Total, ...]:
        """The gross totals of those that add up money: a book is kept only while these have room."""
        return tuple(
            total.gross() for total in self.totals if any(name.endswith("_cents") for name in total.sums)
        )

    def with_policy(self, name: str, policy: Policy) -> "Book":
        """A copy of this book under the policy of that name, kept beside it: "mrr:cash"."""
        return replace(self, name=f"{self.name}:{name}", policy=policy)


def causes(*events: Event) -> str:
    """The `causes` column for rows that come from these events."""
    return encode_causes(event.cause for event in events)


def encode_causes(names: Iterable[str]) -> str:
    """The `causes` column for rows that come from the events of these names."""
    return json.encode(sorted(set(names))).decode()


def merge_causes(columns: Sequence[str]) -> str:
    """The `causes` column for a row made from other rows, given their `causes`."""
    return encode_causes(cause for column in columns for cause in json.decode(column))


def last_event_date(history: Sequence[Event], rules: Rules) -> str:
    """The day of a history's last event, of those that await no confirmation; empty without one."""
    last = next((e for e in reversed(history) if not getattr(e.data, "awaits_confirmation", False)), None)
    return day_of(last.occurred_at, rules.zone).isoformat() if last else ""


def weakest_trust(levels: Iterable[str]) -> str:
    """The weakest of the `TRUST_LEVELS` of the events that a row comes from."""
    return min(levels, key=TRUST_LEVELS.index)

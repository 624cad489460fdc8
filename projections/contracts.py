"""A contract's life: from its subscription events to what it is worth a month, day by day."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from projections.book import Policy, Rules
from projections.pricing import discount_ends, worth_on
from service.core.events import DELETED, Event, Subscription
from service.core.moments import day_of
from service.core.order import is_order_undecided

BILLING = frozenset({"active", "past_due", "trialing", "unpaid", "incomplete"})  # has a next bill
TERMINAL = frozenset({"canceled", "incomplete_expired"})  # nothing revives it


class State(Struct, frozen=True, kw_only=True):
    """What a contract is from the end of `day` on, until the next state; `event` says so.

    `tied`: another event of the same moment says otherwise, and nothing but ids orders the two.
    """

    day: date
    event: Event
    data: Subscription
    ended: bool
    tied: bool = False


class Term(Struct, frozen=True, kw_only=True):
    """What a contract counts in MRR from the end of `day` on. Not `counted`: nothing."""

    day: date
    mrr_cents: int
    counted: bool
    interval: str
    every: int
    event: Event
    data: Subscription


def states(history: Sequence[Event], rules: Rules) -> list[State]:
    """The contract's closing state of every day on which it was told, in order.

    A terminal status stays, whatever is told later; `ended_at` beats the time of the event that
    tells it. The first state holds from `counts_from_on`, or the day of `counts_from`, where that is
    earlier than its telling.
    """
    zone = rules.zone
    told: list[State] = []
    end: State | None = None
    for event in history:
        data = event.data
        assert isinstance(data, Subscription)  # noqa: S101 - a subscription's history holds nothing else
        if data.status in TERMINAL or event.rank == DELETED:
            end = State(
                day=day_of(data.ended_at or event.occurred_at, zone), event=event, data=data, ended=True
            )
            break
        day = day_of(event.occurred_at, zone)
        if not told and data.status in rules.policy.statuses:
            start = data.counts_from_on or (data.counts_from and day_of(data.counts_from, zone))
            day = min(day, start or day)
        told.append(State(day=day, event=event, data=data, ended=False))
    if end:
        told = [*(state for state in told if state.day < end.day), end]
    closing = [list(same_day)[-1] for _, same_day in groupby(told, key=lambda state: state.day)]
    return _with_ties(history, closing)


def _with_ties(history: Sequence[Event], closing: list[State]) -> list[State]:
    """The closing states, those marked whose event is the last of its moment by its id alone."""
    rivals: dict[object, list[Event]] = defaultdict(list)
    for event in history:
        rivals[event.occurred_at, event.rank].append(event)
    if len(rivals) == len(history):
        return closing
    return [
        replace(
            state, tied=is_order_undecided(rivals[state.event.occurred_at, state.event.rank], state.event)
        )
        for state in closing
    ]


def terms(history: Sequence[State], rules: Rules) -> list[Term]:
    """What the contract counts in MRR, one term for each day on which that changes.

    Between two states a repeating discount may end; the day of its end begins a term too.
    """
    if not history:
        return []
    found: list[Term] = []
    ends = [state.day for state in history[1:]] + [date.max]
    for state, until in zip(history, ends, strict=True):
        changes = [day for day in discount_ends(state.data, rules.zone) if state.day < day < until]
        for day in (state.day, *changes):
            term = _term(state, day, rules)
            before = found[-1] if found else None
            if before is None or _level(before) != _level(term):
                found.append(term)
    return found if any(term.counted for term in found) else []


def _term(state: State, day: date, rules: Rules) -> Term:
    data = state.data
    worth = worth_on(data, day, rules)
    counted = worth.recurring and not state.ended and _counts(data, rules.policy)
    return Term(
        day=day,
        mrr_cents=worth.mrr_cents if counted else 0,
        counted=counted,
        interval=worth.interval,
        every=worth.every,
        event=state.event,
        data=data,
    )


def _counts(data: Subscription, policy: Policy) -> bool:
    if data.cancel_at and policy.churn == "when_set_to_cancel":
        return False
    return data.status in policy.statuses and (policy.paused or not data.collection_paused)


def _level(term: Term) -> tuple[object, ...]:
    """What makes a term another one: the same for all that do not count."""
    if not term.counted:
        return ()
    return term.mrr_cents, term.interval, term.every, term.data.customer_id, term.data.currency

"""A contract's life: from its subscription events to its states and its MRR, day by day."""

from collections.abc import Sequence
from datetime import date
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from projections.book import Policy, Rules
from projections.pricing import discount_ends, price_on
from service.core.events import DELETED, Event, Subscription
from service.core.moments import day_of
from service.core.order import undecided_moments

BILLING_STATUSES = frozenset({"active", "past_due", "trialing", "unpaid", "incomplete"})  # has a next bill
TERMINAL_STATUSES = frozenset({"canceled", "incomplete_expired"})  # nothing revives it


class ContractState(Struct, frozen=True, kw_only=True):
    """A contract's state from the end of `day` until the next state, as `event` reports it.

    `tied`: another event of the same moment reports another state, and only their ids order the two.
    """

    day: date
    event: Event
    data: Subscription
    ended: bool
    tied: bool = False


class MrrTerm(Struct, frozen=True, kw_only=True):
    """A contract's MRR from the end of `day` on; 0 if it is not `counted`."""

    day: date
    mrr_cents: int
    counted: bool
    interval: str
    every: int
    event: Event
    data: Subscription


def contract_states(history: Sequence[Event], rules: Rules) -> list[ContractState]:
    """The contract's state at the end of every day that has an event of it, in order.

    A terminal status stays, whatever later events report; `ended_at` is preferred to the time of the event
    that reports it. The first state holds from `counts_from_on`, or the day of `counts_from`, where that is
    earlier than its event.
    """
    zone = rules.zone
    reported: list[ContractState] = []
    end: ContractState | None = None
    for event in history:
        data = event.data
        if not isinstance(data, Subscription):
            continue
        if data.status in TERMINAL_STATUSES or event.rank == DELETED:
            end = ContractState(
                day=day_of(data.ended_at or event.occurred_at, zone), event=event, data=data, ended=True
            )
            break
        day = day_of(event.occurred_at, zone)
        if not reported and data.status in rules.policy.statuses:
            start = data.counts_from_on or (data.counts_from and day_of(data.counts_from, zone))
            day = min(day, start or day)
        reported.append(ContractState(day=day, event=event, data=data, ended=False))
    if end:
        reported = [*(state for state in reported if state.day < end.day), end]
    closing = [list(same_day)[-1] for _, same_day in groupby(reported, key=lambda state: state.day)]
    return _mark_ties(history, closing)


def _mark_ties(history: Sequence[Event], closing: list[ContractState]) -> list[ContractState]:
    """The closing states; one is marked as tied if only ids make it the last of its moment."""
    undecided = undecided_moments(history, Subscription)
    return [replace(state, tied=state.event.occurred_at in undecided) for state in closing]


def mrr_terms(contract_states: Sequence[ContractState], rules: Rules) -> list[MrrTerm]:
    """The contract's MRR: one term for each day on which it changes; none if it never counts.

    Between two states a repeating discount may end; the day of its end begins a term too.
    """
    if not contract_states:
        return []
    mrr_terms: list[MrrTerm] = []
    ends = [state.day for state in contract_states[1:]] + [date.max]
    for state, end in zip(contract_states, ends, strict=True):
        changes = [day for day in discount_ends(state.data, rules.zone) if state.day < day < end]
        for day in (state.day, *changes):
            term = _term(state, day, rules)
            if not mrr_terms or _level(mrr_terms[-1]) != _level(term):
                mrr_terms.append(term)
    return mrr_terms if any(term.counted for term in mrr_terms) else []


def _term(state: ContractState, day: date, rules: Rules) -> MrrTerm:
    data = state.data
    price = price_on(data, day, rules)
    counted = price.recurring and not state.ended and _is_counted(data, rules.policy)
    return MrrTerm(
        day=day,
        mrr_cents=price.mrr_cents if counted else 0,
        counted=counted,
        interval=price.interval,
        every=price.every,
        event=state.event,
        data=data,
    )


def _is_counted(data: Subscription, policy: Policy) -> bool:
    if data.cancel_at and policy.churn == "when_set_to_cancel":
        return False
    return data.status in policy.statuses and (policy.paused or not data.collection_paused)


def _level(term: MrrTerm) -> tuple[object, ...]:
    """The values whose change begins a new term; equal for all terms that do not count."""
    if not term.counted:
        return ()
    return term.mrr_cents, term.interval, term.every, term.data.customer_id, term.data.currency

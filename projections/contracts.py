"""Contracts as rows, and their MRR, day by day.

The first stage folds one subscription's events to the states of its contract (see
`projections.contract_life`). A later one reads them beside the discounts of the contract's customer, which
are another history.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import date

from msgspec import Struct, json
from msgspec.structs import replace

from projections.book import INFERRED, Policy, Row, Rules, Stage, last_event_date, weakest_trust
from projections.contract_life import ContractLife, ContractState
from projections.customer_discounts import CustomerDiscounts, DiscountPeriod, discount_periods
from projections.pricing import all_discounts, change_days, price_on
from projections.work import Work, size_of
from service.core.events import (
    Event,
    Subscription,
    join_key,
)


class ContractStates(Row, frozen=True, kw_only=True):
    """A contract's states for a customer who has, or had, it. `states` is JSON of all its `ContractState`s.

    A contract that moves gives a row for each of its customers, equal but for the customer; `present` is
    true for the last one. Only the states whose data name the customer count for them.
    """

    table = "contract_states"

    processor: str
    account: str
    customer_id: str
    contract_id: str
    present: bool
    last_event_date: str
    states: str


class ContractStart(Row, frozen=True, kw_only=True):
    """What bounds and completes that which is inferred of a contract from what was billed.

    That is until `first_day`, from which its events tell its state. `state` is JSON of the first one, and
    `items` of its items by their ids: [[item or price id, interval, every, metered], …]; `customers` of the
    customers who have, or had, it.
    """

    table = "contract_starts"

    first_day: str
    state: str
    items: str
    customers: str


class MrrTerm(Struct, frozen=True, kw_only=True):
    """A contract's MRR from the end of `day` on; 0 if it is not `counted`."""

    day: date
    mrr_cents: int
    counted: bool
    interval: str
    every: int
    state: ContractState

    @property
    def data(self) -> Subscription:
        """What holds of the contract."""
        return self.state.data

    @property
    def is_inferred(self) -> bool:
        """Whether it follows from what was billed, and no event of the contract tells it."""
        return self.state.trust == INFERRED


class ContractFold:
    """One subscription's events, folded to the rows of its contract; it may go on with later events."""

    def __init__(self, history: Sequence[Event], rules: Rules) -> None:
        self._rules = rules
        self._life = ContractLife(history, rules)
        self._item_terms: dict[str, tuple[str, int, bool]] = {}  # by item or price id, as first stated
        self._last_event_date = ""
        self._remember(history)

    @property
    def size(self) -> int:
        """How many states it holds in memory."""
        return self._life.size

    def goes_on(self, later: Sequence[Event]) -> bool:
        """Whether to `read_on` with these events gives what folding the whole history anew gives."""
        return self._life.goes_on(later)

    def read_on(self, later: Sequence[Event]) -> None:
        """Read later events with which it goes on, in canonical order."""
        self._life.read_on(later)
        self._remember(later)

    def _remember(self, events: Sequence[Event]) -> None:
        self._last_event_date = max(self._last_event_date, last_event_date(events, self._rules))
        for event in events:
            for item in event.data.items if isinstance(event.data, Subscription) else ():
                for key in filter(None, (item.item_id, item.price_id)):
                    self._item_terms.setdefault(key, (item.interval, item.every, item.metered))

    def rows(self) -> list[Row]:
        """The states of the contract, once for each customer who has or had it, and its start."""
        states = self._life.states()
        return [self._start(states), *self._rows_of_customers(states)] if states else []

    def _start(self, states: Sequence[ContractState]) -> ContractStart:
        first = states[0]
        items = sorted((key, *terms) for key, terms in self._item_terms.items())
        return ContractStart(
            parent_key=contract_key(first.processor, first.account, first.data.subscription_id),
            causes=json.encode(first.causes).decode(),
            first_day=first.day.isoformat(),
            state=json.encode(first).decode(),
            items=json.encode(items).decode(),
            customers=json.encode(_customers(states)).decode(),
        )

    def _rows_of_customers(self, states: Sequence[ContractState]) -> list[ContractStates]:
        last = states[-1]
        customers = _customers(states)
        Work().add(len(customers) * sum(size_of(state.data) for state in states))  # each gets all of them
        encoded = json.encode(states).decode()
        return [
            ContractStates(
                parent_key=join_key(last.processor, last.account, customer_id),
                causes=json.encode(last.causes).decode(),
                processor=last.processor,
                account=last.account,
                customer_id=customer_id,
                contract_id=last.data.subscription_id,
                present=customer_id == last.data.customer_id,
                last_event_date=self._last_event_date,
                states=encoded,
            )
            for customer_id in customers
        ]


def contract_state_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One subscription's events to the states of its contract, once for each customer who has or had it."""
    return ContractFold(history, rules).rows()


CONTRACT_STATES = Stage(
    reads="subscription",
    contribute=contract_state_rows,
    rows=(ContractStates, ContractStart),
    fold=ContractFold,
)


def contract_key(processor: str, account: str, contract_id: str) -> str:
    """The key under which what is known of a contract comes together."""
    return join_key("subscription", processor, account, contract_id)


def _customers(states: Sequence[ContractState]) -> list[str]:
    """The customers who have, or had, a contract, each once."""
    return list(dict.fromkeys(state.data.customer_id for state in states))


def effective_states(
    row: ContractStates, discounts: CustomerDiscounts | None, _rules: Rules
) -> list[ContractState]:
    """The contract's states, in order, with the customer's discounts where it has none of its own.

    Only those states are so discounted that name the row's customer. The last one is what is known now: it
    is never of a day to come, unless the contract ends then at a stated `ended_at`.
    """
    states = json.decode(row.states, type=list[ContractState])
    periods = discount_periods(discounts)
    if not periods:
        return states
    effective: list[ContractState] = []
    days, work = [period.day for period in periods], Work()
    for state, end in zip(states, _next_days(states), strict=True):
        if state.data.customer_id != row.customer_id or state.ended:
            effective.append(state)
            continue
        begun = bisect_right(days, state.day)
        first = periods[begun - 1] if begun else None
        later = periods[begun : bisect_left(days, end)]
        work.add((1 + len(later)) * size_of(state.data))
        effective.append(_with_customer_discounts(state, first))
        effective += [_with_customer_discounts(replace(state, day=each.day), each) for each in later]
    return effective


def _next_days(states: Sequence[ContractState]) -> list[date]:
    return [state.day for state in states[1:]] + [date.max]


def _with_customer_discounts(state: ContractState, period: DiscountPeriod | None) -> ContractState:
    """The state with the customer's discounts, off from the end of the contract's own ones on."""
    own_ends = [discount.ends_at for discount in all_discounts(state.data)]
    ends = [moment for moment in own_ends if moment]
    if period is None or not period.discounts or len(ends) < len(own_ends):
        return state
    theirs = tuple(replace(discount, starts_at=max(ends, default=None)) for discount in period.discounts)
    at = max(state.at, period.at)
    return replace(
        state,
        at=at,
        causes=tuple(sorted({*state.causes, *period.causes})),
        trust=weakest_trust((state.trust, period.trust)),
        data=replace(state.data, discounts=(*state.data.discounts, *theirs)),
        phases=tuple(
            phase if phase.discounts else replace(phase, discounts=period.discounts)
            for phase in state.phases
            if phase.starts_at > at
        ),
    )


def mrr_terms(states: Sequence[ContractState], rules: Rules) -> list[MrrTerm]:
    """The contract's MRR: one term for each day on which it changes; none if it never counts.

    Between two states a discount or an item's trial may begin or end, or the contract as stated before: that
    day begins a term too.
    """
    mrr_terms: list[MrrTerm] = []
    work = Work()
    for state, end in zip(states, _next_days(states), strict=True):
        days = {*change_days(state.data, rules.zone), *filter(None, [state.ends_on])}
        term_days = (state.day, *sorted(day for day in days if state.day < day < end))
        work.add(len(term_days) * size_of(state.data))
        for day in term_days:
            term = _term(state, day, rules)
            if not mrr_terms or _level(mrr_terms[-1]) != _level(term):
                mrr_terms.append(term)
    return mrr_terms if any(term.counted for term in mrr_terms) else []


def _term(state: ContractState, day: date, rules: Rules) -> MrrTerm:
    price = price_on(state.data, day, rules)
    counted = price.recurring and not has_ended(state, day) and _is_counted(state.data, rules.policy)
    return MrrTerm(
        day=day,
        mrr_cents=price.mrr_cents if counted else 0,
        counted=counted,
        interval=price.interval,
        every=price.every,
        state=state,
    )


def has_ended(state: ContractState, day: date) -> bool:
    """Whether the contract has ended by the end of `day`, as far as the state knows."""
    return state.ended or bool(state.ends_on and state.ends_on <= day)


def _is_counted(data: Subscription, policy: Policy) -> bool:
    if data.cancel_at and policy.churn == "when_set_to_cancel":
        return False
    return data.status in policy.statuses and (policy.paused or not data.collection_paused)


def _level(term: MrrTerm) -> tuple[object, ...]:
    """The values whose change begins a new term; equal for all terms that do not count."""
    if not term.counted:
        return ()
    data = term.data
    return term.mrr_cents, term.interval, term.every, data.customer_id, data.currency, term.is_inferred

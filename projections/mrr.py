"""The MRR book: each contract's MRR, day by day, and each customer's movements.

Steps are the changes of one contract's MRR; a change to another schedule is two steps. A movement is the
closing MRR of a customer's day less the opening one, over all contracts of one currency.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from msgspec import json

from projections.book import INFERRED, Book, Row, Rules, Stage, Total, merge_causes, weakest_trust
from projections.contract_life import ContractState
from projections.contracts import CONTRACT_STATES, ContractStart, ContractStates, MrrTerm, mrr_terms
from projections.customer_discounts import CustomerDiscounts, customer_discount_rows
from projections.inferred import (
    BilledItems,
    InferredStates,
    billed_item_rows,
    contract_lives,
    inferred_state_rows,
)
from service.core.events import join_key

MOVEMENT_KINDS = ("new", "reactivation", "expansion", "contraction", "churn")


class Step(Row, frozen=True, kw_only=True):
    """A change of one contract's MRR on a day, under one schedule; why, where the contract was cancelled."""

    table = "mrr_steps"

    account: str
    currency: str
    customer_id: str
    contract_id: str
    date: str
    interval: str
    every: int
    mrr_cents: int
    contracts: int
    reason: str | None = None
    feedback: str | None = None
    trust: str


class Movement(Row, frozen=True, kw_only=True):
    """A customer's day on which their MRR changed: closing less opening MRR, and the kind of the change.

    `trust` is the weakest of the day's steps; `contracts` is JSON of the ids of their contracts. `reason` and
    `feedback` say why contracts were cancelled, several with "; " between; `reason_causes` is JSON of the
    events that say so.
    """

    table = "mrr_movements"
    indexes = (("currency", "date"),)

    processor: str
    account: str
    currency: str
    customer_id: str
    date: str
    kind: str
    amount_cents: int
    opening_cents: int
    closing_cents: int
    contracts: str
    reason: str | None = None
    feedback: str | None = None
    reason_causes: str = "[]"
    trust: str


def step_rows(rows: Sequence[ContractStates | InferredStates | CustomerDiscounts], rules: Rules) -> list[Row]:
    """The contracts of one customer, and their own discounts, to steps: each term less the one before it."""
    return [
        step
        for row, states in contract_lives(rows, rules)
        for step in _contract_steps(row.customer_id, states, rules)
    ]


def _contract_steps(customer_id: str, states: Sequence[ContractState], rules: Rules) -> list[Step]:
    """The steps of one contract, as far as it is the customer's."""
    steps: list[Step] = []
    previous: MrrTerm | None = None
    for term in mrr_terms(states, rules):
        changes: dict[_StepKey, list[int]] = {}
        for sign, side in ((-1, previous), (1, term)):
            if side and side.counted and side.data.customer_id == customer_id:
                change = changes.setdefault(_step_key(side), [0, 0])
                change[0] += sign * side.mrr_cents
                change[1] += sign
        steps += [_step(term, key, *change) for key, change in changes.items() if any(change)]
        previous = term
    return steps


_StepKey = tuple[str, str, str, int, bool]  # customer, currency, interval, every, whether it is inferred


def _step_key(term: MrrTerm) -> _StepKey:
    return term.data.customer_id, term.data.currency, term.interval, term.every, term.is_inferred


def _step(term: MrrTerm, key: _StepKey, mrr_cents: int, contracts: int) -> Step:
    state = term.state
    customer_id, currency, interval, every, is_inferred = key
    return Step(
        parent_key=join_key(state.processor, state.account, customer_id, currency),
        causes=json.encode(state.causes).decode(),
        account=state.account,
        currency=currency,
        customer_id=customer_id,
        contract_id=term.data.subscription_id,
        date=term.day.isoformat(),
        interval=interval,
        every=every,
        mrr_cents=mrr_cents,
        contracts=contracts,
        reason=None if term.counted else term.data.cancellation_reason,
        feedback=None if term.counted else term.data.cancellation_feedback,
        trust=INFERRED if is_inferred else state.trust,
    )


def movement_rows(rows: Sequence[Step], _rules: Rules) -> list[Row]:
    """One customer's steps in one currency to at most one movement a day."""
    movements: list[Row] = []
    opening = 0
    for date, group in groupby(sorted(rows, key=lambda row: row.date), key=lambda row: row.date):
        day_rows = list(group)
        change = sum(row.mrr_cents for row in day_rows)
        if change:
            first = day_rows[0]
            movements.append(
                Movement(
                    causes=merge_causes([row.causes for row in day_rows]),
                    processor=first.parent_key.split("|", 1)[0],
                    account=first.account,
                    currency=first.currency,
                    customer_id=first.customer_id,
                    date=date,
                    kind=_kind(opening, opening + change, paid_before=bool(movements)),
                    amount_cents=change,
                    opening_cents=opening,
                    closing_cents=opening + change,
                    contracts=json.encode(sorted({row.contract_id for row in day_rows})).decode(),
                    **_reasons([row for row in day_rows if row.reason or row.feedback]),
                    trust=weakest_trust(row.trust for row in day_rows),
                )
            )
            opening += change
    return movements


def _reasons(cancelled: Sequence[Step]) -> dict[str, Any]:
    """The fields of a movement that say why the contracts of these steps were cancelled."""
    if not cancelled:
        return {}
    return {
        "reason": "; ".join(sorted({row.reason for row in cancelled if row.reason})) or None,
        "feedback": "; ".join(sorted({row.feedback for row in cancelled if row.feedback})) or None,
        "reason_causes": merge_causes([row.causes for row in cancelled]),
    }


def _kind(opening: int, closing: int, *, paid_before: bool) -> str:
    if opening == 0:
        return "reactivation" if paid_before else "new"
    if closing == 0:
        return "churn"
    return "expansion" if closing > opening else "contraction"


def _measure_movement(row: Movement) -> tuple[int, ...]:
    amounts = [row.amount_cents if row.kind == kind else 0 for kind in MOVEMENT_KINDS]
    return (*amounts, *(int(row.kind == kind) for kind in MOVEMENT_KINDS))


MRR = Book(
    name="mrr",
    version=8,
    stages=(
        CONTRACT_STATES,
        Stage(reads="invoice", contribute=billed_item_rows, rows=(BilledItems,)),
        Stage(reads=(ContractStart, BilledItems), contribute=inferred_state_rows, rows=(InferredStates,)),
        Stage(reads="customer_discount", contribute=customer_discount_rows, rows=(CustomerDiscounts,)),
        Stage(reads=(ContractStates, InferredStates, CustomerDiscounts), contribute=step_rows, rows=(Step,)),
        Stage(reads=(Step,), contribute=movement_rows, rows=(Movement,)),
    ),
    totals=(
        Total(
            table="mrr_days",
            row_type=Step,
            group_by=("currency", "account", "date", "interval", "every"),
            sums=("mrr_cents", "inferred_cents", "contracts"),
            measure=lambda row: (
                row.mrr_cents,
                row.mrr_cents if row.trust == INFERRED else 0,
                row.contracts,
            ),
        ),
        Total(
            table="movement_days",
            row_type=Movement,
            group_by=("currency", "account", "date"),
            sums=(
                *(f"{kind}_cents" for kind in MOVEMENT_KINDS),
                *(f"{kind}_customers" for kind in MOVEMENT_KINDS),
            ),
            measure=_measure_movement,
        ),
    ),
)

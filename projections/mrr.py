"""The MRR book: each contract's MRR, day by day, and each customer's movements.

Steps are the changes of one contract's MRR; a change to another schedule is two steps. A movement is the
closing MRR of a customer's day less the opening one, over all contracts of one currency.
"""

from collections.abc import Sequence
from itertools import groupby

from projections.book import Book, Row, Rules, Stage, Total, causes, merge_causes
from projections.contracts import MrrTerm, contract_states, mrr_terms
from service.core.events import Event, join_key

TRUST_LEVELS = ("unsigned", "fetched", "signed")  # from the weakest to the strongest
MOVEMENT_KINDS = ("new", "reactivation", "expansion", "contraction", "churn")


class Step(Row, frozen=True, kw_only=True):
    """A change of one contract's MRR on a day, under one schedule."""

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
    trust: str


class Movement(Row, frozen=True, kw_only=True):
    """A customer's day on which their MRR changed: closing less opening MRR, and the kind of the change.

    `trust` is the weakest of the day's steps.
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
    trust: str


def step_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One subscription's events to its steps: each term less the one before it."""
    rows: list[Row] = []
    previous: MrrTerm | None = None
    for term in mrr_terms(contract_states(history, rules), rules):
        changes: dict[_StepKey, list[int]] = {}
        for sign, side in ((-1, previous), (1, term)):
            if side and side.counted:
                change = changes.setdefault(_step_key(side), [0, 0])
                change[0] += sign * side.mrr_cents
                change[1] += sign
        rows += [_step(term, key, *change) for key, change in changes.items() if any(change)]
        previous = term
    return rows


_StepKey = tuple[str, str, str, int]  # customer, currency, interval, every


def _step_key(term: MrrTerm) -> _StepKey:
    return term.data.customer_id, term.data.currency, term.interval, term.every


def _step(term: MrrTerm, key: _StepKey, mrr_cents: int, contracts: int) -> Step:
    event = term.event
    customer_id, currency, interval, every = key
    return Step(
        parent_key=join_key(event.processor, event.account, customer_id, currency),
        causes=causes(event),
        account=event.account,
        currency=currency,
        customer_id=customer_id,
        contract_id=term.data.subscription_id,
        date=term.day.isoformat(),
        interval=interval,
        every=every,
        mrr_cents=mrr_cents,
        contracts=contracts,
        trust=event.trust,
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
                    trust=min((row.trust for row in day_rows), key=TRUST_LEVELS.index),
                )
            )
            opening += change
    return movements


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
    version=1,
    stages=(
        Stage(reads="subscription", contribute=step_rows, rows=(Step,)),
        Stage(reads=(Step,), contribute=movement_rows, rows=(Movement,)),
    ),
    totals=(
        Total(
            table="mrr_days",
            row_type=Step,
            group_by=("currency", "account", "date", "interval", "every"),
            sums=("mrr_cents", "contracts"),
            measure=lambda row: (row.mrr_cents, row.contracts),
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

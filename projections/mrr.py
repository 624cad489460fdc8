"""The MRR book: what each contract counts, day by day, and each customer's movements.

Steps are the changes of one contract; a step to another schedule is two. Movements come from the
closing MRR of a customer's day less its opening one, over all contracts of one currency.
"""

from collections.abc import Sequence
from itertools import groupby

from projections.book import Book, Row, Rules, Stage, Total, causes, merge_causes
from projections.contracts import Term, states, terms
from service.core.events import Event, join_key

TRUST = ("unsigned", "fetched", "signed")  # from the weakest to the strongest
KINDS = ("new", "reactivation", "expansion", "contraction", "churn")


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
    """A customer's day: closing MRR less opening MRR, and what kind of change that is.

    `trust` is the weakest of the day's steps'.
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


def steps(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One subscription's events to its steps: each term less the one before it."""
    rows: list[Row] = []
    before: Term | None = None
    for term in terms(states(history, rules), rules):
        changes: dict[_Owner, list[int]] = {}
        for sign, side in ((-1, before), (1, term)):
            if side and side.counted:
                change = changes.setdefault(_owner(side), [0, 0])
                change[0] += sign * side.mrr_cents
                change[1] += sign
        rows += [_step(term, owner, *change) for owner, change in changes.items() if any(change)]
        before = term
    return rows


_Owner = tuple[str, str, str, int]  # customer, currency, interval, every


def _owner(term: Term) -> _Owner:
    return term.data.customer_id, term.data.currency, term.interval, term.every


def _step(term: Term, owner: _Owner, mrr_cents: int, contracts: int) -> Step:
    event = term.event
    customer_id, currency, interval, every = owner
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


def movements(rows: Sequence[Step], _rules: Rules) -> list[Row]:
    """One customer's steps in one currency to at most one movement a day."""
    found: list[Row] = []
    opening = 0
    for date, same_day in groupby(sorted(rows, key=lambda row: row.date), key=lambda row: row.date):
        day = list(same_day)
        change = sum(row.mrr_cents for row in day)
        if change:
            first = day[0]
            found.append(
                Movement(
                    causes=merge_causes([row.causes for row in day]),
                    processor=first.parent_key.split("|", 1)[0],
                    account=first.account,
                    currency=first.currency,
                    customer_id=first.customer_id,
                    date=date,
                    kind=_kind(opening, opening + change, paid_before=bool(found)),
                    amount_cents=change,
                    opening_cents=opening,
                    closing_cents=opening + change,
                    trust=min((row.trust for row in day), key=TRUST.index),
                )
            )
            opening += change
    return found


def _kind(opening: int, closing: int, *, paid_before: bool) -> str:
    if opening == 0:
        return "reactivation" if paid_before else "new"
    if closing == 0:
        return "churn"
    return "expansion" if closing > opening else "contraction"


def _by_kind(row: Movement) -> tuple[int, ...]:
    amounts = [row.amount_cents if row.kind == kind else 0 for kind in KINDS]
    return (*amounts, *(int(row.kind == kind) for kind in KINDS))


MRR = Book(
    name="mrr",
    version=1,
    stages=(
        Stage(reads="subscription", contribute=steps, rows=(Step,)),
        Stage(reads=(Step,), contribute=movements, rows=(Movement,)),
    ),
    totals=(
        Total(
            table="mrr_days",
            of=Step,
            by=("currency", "account", "date", "interval", "every"),
            sums=("mrr_cents", "contracts"),
            measure=lambda row: (row.mrr_cents, row.contracts),
        ),
        Total(
            table="movement_days",
            of=Movement,
            by=("currency", "account", "date"),
            sums=(*(f"{kind}_cents" for kind in KINDS), *(f"{kind}_customers" for kind in KINDS)),
            measure=_by_kind,
        ),
    ),
)

"""The figures of MRR and of what moved it: contracts' steps, and customers' movements."""

from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Table, case

from projections.mrr import MOVEMENT_KINDS, Movement, Step
from service.books.tables import ROWS
from service.books.view import View
from service.core.events import join_key
from service.reads.customers import customer as customers_reads
from service.reads.explain.rows import Asked, Explain, Explained, Rows
from service.reads.mrr import counted

_steps = ROWS[Step]
_moves = ROWS[Movement]


# At the end of `today`


def level(asked: Asked, *of: ColumnElement[bool], adds: str = "mrr_cents") -> Explained:
    """The steps of contracts, each from its day on."""
    where = [*_until_today(asked.view, _steps), *of]
    return Explained(rows=[Rows(table=_steps, where=where, contributes=_steps.c[adds])])


def customers(asked: Asked) -> Explained:
    """Each movement that made somebody a paying customer, less each that ended it."""
    adds = case((_moves.c.kind.in_(("new", "reactivation")), 1), (_moves.c.kind == "churn", -1), else_=0)
    return Explained(rows=[Rows(table=_moves, where=_until_today(asked.view, _moves), contributes=adds)])


def _until_today(view: View, table: Table, *, currency: bool = True) -> list[ColumnElement[bool]]:
    return [*view.filters(table, "mrr", currency=currency), table.c.date <= view.scope.today.isoformat()]


def _arr(asked: Asked) -> Explained:
    terms = {"mrr_cents": asked.document["mrr_cents"]}
    return Explained(rows=level(asked).rows, formula="12 × mrr_cents", terms=terms)


def _arpa(asked: Asked) -> Explained:
    terms = {name: asked.document[name] for name in ("mrr_cents", "customers")}
    formula = "mrr_cents ÷ customers, rounded half away from zero"
    return Explained(rows=level(asked).rows, formula=formula, terms=terms)


def _of_schedule(asked: Asked) -> Explained:
    return level(asked, *_scheduled(asked.row["interval"], asked.row["every"]), adds=asked.name)


def _scheduled(interval: str, every: int) -> list[ColumnElement[bool]]:
    return [_steps.c.interval == interval, _steps.c.every == every]


def _of_weeks(asked: Asked, every: int) -> Explained:
    return level(asked, *_scheduled("week", every), adds="contracts")


def _of_currency(asked: Asked, adds: str) -> Explained:
    where = [*_until_today(asked.view, _steps, currency=False), _steps.c.currency == asked.row["currency"]]
    return Explained(rows=[Rows(table=_steps, where=where, contributes=_steps.c[adds])])


MRR: dict[str, Explain] = {
    "mrr_cents": level,
    "arr_cents": _arr,
    "active_contracts": partial(level, adds="contracts"),
    "customers": customers,
    "arpa_cents": _arpa,
    "by_schedule/*/mrr_cents": _of_schedule,
    "by_schedule/*/contracts": _of_schedule,
    "weekly_count": partial(_of_weeks, every=1),
    "four_week_count": partial(_of_weeks, every=4),
    "ten_week_count": partial(_of_weeks, every=10),
    "other_currencies/*/mrr_cents": partial(_of_currency, adds="mrr_cents"),
    "other_currencies/*/active_contracts": partial(_of_currency, adds="contracts"),
}


# One customer


def customers_mrr(view: View, args: dict[str, Any]) -> dict[str, Any]:
    """A customer's MRR at the end of `today`.

    Raises NotFound, or ParameterError where several have this id.
    """
    view = view.with_policy(args["policy"])
    found = customers_reads.find(view, args["customer_id"], args["processor"])
    mrr_cents = found.movements[-1].closing_cents if found.movements else 0
    return {
        **counted(view),
        "date": view.scope.today.isoformat(),
        "customer_id": found.customer_id,
        "processor": found.processor,
        "account": found.account,
        "mrr_cents": mrr_cents,
        "arr_cents": 12 * mrr_cents,
    }


def _feeding(asked: Asked) -> list[ColumnElement[bool]]:
    """The steps of the customer of a row, in the view's currency: by the key that they feed alone."""
    key = join_key(
        *(asked.row[name] for name in ("processor", "account", "customer_id")), asked.view.scope.currency
    )
    return [*asked.view.filters(_steps, "mrr", currency=False), _steps.c.parent_key == key]


def _customers(asked: Asked) -> Explained:
    where = [*_feeding(asked), _steps.c.date <= asked.view.scope.today.isoformat()]
    rows = [Rows(table=_steps, where=where, contributes=_steps.c.mrr_cents)]
    if asked.name == "mrr_cents":
        return Explained(rows=rows)
    return Explained(rows=rows, formula="12 × mrr_cents", terms={"mrr_cents": asked.document["mrr_cents"]})


CUSTOMERS_MRR: dict[str, Explain] = {"mrr_cents": _customers, "arr_cents": _customers}


# Movements

_CUSTOMERS = {
    "new_customers": "new",
    "reactivated_customers": "reactivation",
    "expanded_customers": "expansion",
    "contracted_customers": "contraction",
    "churned_customers": "churn",
}


def _moved(asked: Asked, kind: str, adds: Any = _moves.c.amount_cents) -> Explained:
    first, last = _bounds(asked)
    where = [*asked.view.filters(_moves, "mrr"), _moves.c.date.between(first, last)]
    adds = case((_moves.c.kind == kind, adds), else_=0)
    return Explained(rows=[Rows(table=_moves, where=where, contributes=adds)])


def _opening(asked: Asked) -> Explained:
    return _until(asked, _moves.c.date < _bounds(asked)[0])


def _closing(asked: Asked) -> Explained:
    return _until(asked, _moves.c.date <= _bounds(asked)[1])


def _until(asked: Asked, days: ColumnElement[bool]) -> Explained:
    where = [*asked.view.filters(_moves, "mrr"), days]
    return Explained(rows=[Rows(table=_moves, where=where, contributes=_moves.c.amount_cents)])


def _bounds(asked: Asked) -> tuple[str, str]:
    """The days of a period that are in the range: "2025-11" or "2025-11-13" begins both."""
    period = asked.row["period"]
    ends = (f"{period}-01", f"{period}-31") if len(period) == 7 else (period, period)
    return max(ends[0], asked.args["from"].isoformat()), min(ends[1], asked.args["to"].isoformat())


def _steps_of(asked: Asked, days: ColumnElement[bool]) -> Explained:
    rows = Rows(table=_steps, where=[*_feeding(asked), days], contributes=_steps.c.mrr_cents)
    return Explained(rows=[rows])


def _movement(asked: Asked) -> Explained:
    return _steps_of(asked, _steps.c.date == asked.row["date"])


def _before(asked: Asked) -> Explained:
    return _steps_of(asked, _steps.c.date < asked.row["date"])


def _after(asked: Asked) -> Explained:
    return _steps_of(asked, _steps.c.date <= asked.row["date"])


MOVEMENTS: dict[str, Explain] = {
    "periods/*/opening_cents": _opening,
    **{f"periods/*/{kind}_cents": partial(_moved, kind=kind) for kind in MOVEMENT_KINDS},
    "periods/*/closing_cents": _closing,
    **{f"periods/*/{name}": partial(_moved, kind=kind, adds=1) for name, kind in _CUSTOMERS.items()},
    "movements/*/amount_cents": _movement,
    "movements/*/opening_cents": _before,
    "movements/*/closing_cents": _after,
}

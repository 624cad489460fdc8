"""The figures of contracts: each from its own row, or from the steps of its MRR."""

from typing import Any

from projections.bills import Contract
from service.books.tables import ROWS
from service.reads.explain.mrr import contract_level
from service.reads.explain.rows import Explainer, Explanation, Figure, RowSource, by_formula, matches_row

_contracts = ROWS[Contract]


def _row(figure: Figure, contribution: Any) -> Explanation:
    conditions = matches_row(_contracts, figure.row, "contract_id processor account")
    where = [*figure.view.filters(_contracts, "bills"), *conditions]
    return Explanation(sources=[RowSource(table=_contracts, where=where, contribution=contribution)])


def _amount(figure: Figure) -> Explanation:
    return _row(figure, _contracts.c.amount_cents)


_stated = by_formula("the day that this contract's events state", of=lambda figure: _row(figure, lambda _: 1))

CONTRACTS: dict[str, Explainer] = {
    "contracts/*/amount_cents": _amount,
    "contracts/*/mrr_cents": contract_level,
    "contracts/*/next_bill_date": _stated,
    "contracts/*/ends_date": _stated,
}

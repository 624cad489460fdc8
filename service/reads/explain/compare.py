"""The figures of a comparison of two policies: the steps of MRR under each of them."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from msgspec.structs import replace
from sqlalchemy import ColumnElement

from service.books.view import View
from service.reads import compare
from service.reads.explain.mrr import contract_level, customer_level, customers, level
from service.reads.explain.rows import Explainer, Explanation, Figure, RowSource


def differences(view: View, args: dict[str, Any]) -> compare.Differences:
    """The part of a comparison that comes from the books, with the first `limit` customers."""
    return compare.find_differences(view, args["policies"].split(","), args["limit"], None)


def _under(figure: Figure, policy: str, explain: Explainer) -> Sequence[RowSource]:
    return explain(replace(figure, view=figure.view.with_policy(policy, "policies"))).sources


def _of_policy(figure: Figure, explain: Explainer) -> Explanation:
    return Explanation(sources=_under(figure, figure.row["policy"], explain))


def _of_side(figure: Figure, explain: Explainer, side: int) -> Explanation:
    return Explanation(sources=_under(figure, figure.args["policies"].split(",")[side], explain))


def _difference(figure: Figure, explain: Explainer) -> Explanation:
    """The second policy's steps, less the first's."""
    first, second = figure.args["policies"].split(",")
    negative = [
        replace(source, contribution=-cast(ColumnElement[Any], source.contribution))
        for source in _under(figure, first, explain)
    ]
    return Explanation(sources=[*_under(figure, second, explain), *negative])


def _both_sides(prefix: str, explain: Explainer) -> dict[str, Explainer]:
    return {
        f"{prefix}/first_mrr_cents": partial(_of_side, explain=explain, side=0),
        f"{prefix}/second_mrr_cents": partial(_of_side, explain=explain, side=1),
        f"{prefix}/difference_cents": partial(_difference, explain=explain),
    }


COMPARE: dict[str, Explainer] = {
    "policies/*/mrr_cents": partial(_of_policy, explain=level),
    "policies/*/active_contracts": partial(_of_policy, explain=partial(level, contribution="contracts")),
    "policies/*/customers": partial(_of_policy, explain=customers),
    "difference_cents": partial(_difference, explain=level),
    **_both_sides("customers/*", customer_level),
    **_both_sides("customers/*/contracts/*", contract_level),
}

"""The figures of quarterly and annual forecasts: bills by bill date, and contracts rolled on."""

from service.books.view import View
from service.reads.coming import rolled_schedules
from service.reads.explain.months import (
    bill_contributions,
    contracts_source,
    new_customers,
    sum_of_bills,
)
from service.reads.explain.rows import Explainer, Explanation, Figure
from service.reads.months import month_bounds

# The name of each figure of a month that is made of the same bills.
_FIGURES = {
    **{
        name: name for name in ("billed_cents", "upcoming_cents", "overdue_cents", "total_cents", "customers")
    },
    "bills": "payments",
}


def _in_month(figure: Figure) -> Explanation:
    year, month = figure.row["month"].split("-")
    return _between(figure, *month_bounds(int(year), int(month)))


def _in_quarter(figure: Figure) -> Explanation:
    return _between(figure, figure.row["from"], figure.row["to"])


def _in_year(figure: Figure) -> Explanation:
    return _between(figure, f"{figure.row['year']:04d}-01-01", f"{figure.row['year']:04d}-12-31")


def _between(figure: Figure, first: str, last: str) -> Explanation:
    view, name = figure.view, figure.name
    contribution = bill_contributions(view.scope.today.isoformat())[_FIGURES[name]]
    stated = sum_of_bills(view, first, last, contribution, name)
    rolled = contracts_source(view, first, last, _rolled_contributions(view, first, last, name))
    return Explanation(sources=[*stated.sources, rolled], counting=stated.counting)


def _rolled_contributions(view: View, first: str, last: str, name: str) -> dict[str, int]:
    """What each contract adds between two days after its next bill, by its key."""
    schedules = rolled_schedules(view, first, last)
    if name == "customers":
        return new_customers(view, [each.contract for each in schedules], first, last)
    contributions: dict[str, int] = {}
    for each in schedules:
        added = {
            "bills": each.counts.bills,
            "upcoming_cents": each.cents,
            "total_cents": each.cents,
        }
        key = each.contract.parent_key
        contributions[key] = contributions.get(key, 0) + added.get(name, 0)
    return contributions


def _under(prefix: str, explainer: Explainer) -> dict[str, Explainer]:
    return dict.fromkeys((f"{prefix}{name}" for name in _FIGURES), explainer)


QUARTERLY: dict[str, Explainer] = {
    **_under("quarters/*/", _in_quarter),
    **_under("quarters/*/months/*/", _in_month),
}
ANNUAL: dict[str, Explainer] = {**_under("", _in_year), **_under("months/*/", _in_month)}

"""Random lives: what all invoices and orders show is what all payments brought, to the cent.

More of them: `TEST_EFFORT=40 pytest tests/projections/test_random_money.py`.
"""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from projections.book import Rules
from projections.collections import COLLECTIONS, Cash
from projections.revenue import REVENUE, CustomerRevenue, Order, Reversal
from service.core.events import Event
from tests.support.effort import examples
from tests.support.folded_books import rows_of
from tests.support.random_scenarios import MIXED, Scenario, scenarios
from tests.support.random_subsets import subsets

Brought = Counter[tuple[tuple[str, str, str], str]]  # by customer and currency


@pytest.mark.parametrize("kind", [None, *MIXED])
@given(st.data())
@examples(12)
def test_any_subset_that_names_each_payment_shows_what_they_brought(kind, data):
    scenario = data.draw(scenarios(*filter(None, [kind])), label="scenario")
    events = data.draw(subsets(scenario))
    note("kept: " + " ".join(event.event_id for event in events))
    the_money_adds_up(scenario, events)


def the_money_adds_up(scenario: Scenario, events: Sequence[Event]) -> None:
    """Cash, orders and customers of these events say what the payments of a scenario brought."""
    rules = Rules(reporting_tz=scenario.zone)
    cash = [row for row in rows_of(COLLECTIONS, events, rules) if isinstance(row, Cash)]
    revenue = rows_of(REVENUE, events, rules)
    brought = {key: cents for key, cents in scenario.expected.brought().items() if cents}
    for rows in (cash, [row for row in revenue if isinstance(row, Order | Reversal)]):
        assert _net(rows) == brought
    customers = [row for row in revenue if isinstance(row, CustomerRevenue)]
    assert {(_who(row), row.currency): row.net_cents for row in customers if row.net_cents} == brought


def _net(rows: Sequence[Cash | Order | Reversal]) -> dict:
    """What the rows show of each customer in each currency: less what went back."""
    net: Brought = Counter()
    for row in rows:
        went_back = getattr(row, "kind", "collected") != "collected"
        net[_who(row), row.currency] += -row.amount_cents if went_back else row.amount_cents
    return {key: cents for key, cents in net.items() if cents}


def _who(row: Cash | Order | Reversal | CustomerRevenue) -> tuple[str, str, str]:
    return row.processor, row.account, row.customer_id

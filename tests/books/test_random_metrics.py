"""The metrics of customers who come, change, leave and come back often, against their lives day by day."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.book import Rules
from service.core.events import Event
from tests.books.metrics_recount import Levels, Lives, days_between, periods_of, same_metrics
from tests.support.effort import examples
from tests.support.events import changed, event, invoice, item, subscription
from tests.support.temporary_books import new_books

pytestmark = pytest.mark.usefixtures("each_store")

FIRST = date(2024, 11, 20)
DAYS = 450
AMOUNTS = (0, 0, 500, 1_000, 1_500, 3_333)


@dataclass(frozen=True)
class Customer:
    """One customer: each contract's MRR from a day on; failures by day, with the days until they are paid."""

    contracts: tuple[dict[int, int], ...]
    failures: dict[int, int | None]

    def mrr(self, day: date) -> int:
        known = [[n for n in changes if FIRST + timedelta(n) <= day] for changes in self.contracts]
        return sum(changes[max(days)] for changes, days in zip(self.contracts, known, strict=True) if days)

    def events(self, who: str) -> list[Event]:
        found = []
        for number, changes in enumerate(self.contracts):
            for day, cents in sorted(changes.items()):
                status = "active" if cents else "unpaid"
                data = subscription(
                    item(cents or 1), status=status, customer_id=who, subscription_id=f"sub-{who}-{number}"
                )
                found.append(changed(data, (FIRST + timedelta(day)).isoformat()))
        for day, later in self.failures.items():
            due = (FIRST + timedelta(day)).isoformat()
            names = {"invoice_id": f"in-{who}-{day}", "customer_id": who}
            found.append(event(invoice(when=due, payment_failed=True, **names), due))
            if later is not None:
                paid = (FIRST + timedelta(day + later)).isoformat()
                found.append(event(invoice("paid", when=paid, **names), paid))
        return found


changes = st.dictionaries(st.integers(0, DAYS), st.sampled_from(AMOUNTS), min_size=2, max_size=12)
customers = st.lists(
    st.builds(
        Customer,
        st.lists(changes, min_size=1, max_size=2).map(tuple),
        st.dictionaries(st.integers(0, DAYS), st.none() | st.integers(1, 60), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


def lives_of(people: Sequence[Customer], first: date, last: date) -> Lives:
    levels: dict[date, Levels] = {
        day: defaultdict(int, {("", "", str(who)): each.mrr(day) for who, each in enumerate(people)})
        for day in days_between(first - timedelta(days=1), last)
    }
    failures: dict[date, list[bool]] = defaultdict(list)
    for each in people:
        for day, later in each.failures.items():
            failures[FIRST + timedelta(day)].append(later is not None)
    return Lives(levels, failures)


@given(customers)
@examples(25)
def test_metrics_are_those_of_the_customers_who_were_there(people):
    asyncio.run(_metrics_are_those_of_the_customers_who_were_there(people))


async def _metrics_are_those_of_the_customers_who_were_there(people):
    async with new_books(Rules(reporting_tz="UTC")) as books:
        await books.record(*(told for who, each in enumerate(people) for told in each.events(str(who))))
        async with books.store() as store:
            for by in ("month", "quarter", "year"):
                periods = periods_of(FIRST, FIRST + timedelta(DAYS + 60), by)
                lives = lives_of(people, periods[0][0], periods[-1][1])
                await same_metrics(store, lives, periods, "usd", by)

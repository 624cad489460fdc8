"""The comparison of what an API shows with the rows of the books."""

from collections.abc import Mapping, Sequence

from projections.customer_discounts import CustomerDiscounts
from service.core.errors import Unreadable
from service.core.events import Data, Event, join_key, subject
from service.core.order import canonical
from service.sync.reconcile.books import read_row_by_key
from service.sync.reconcile.facts import COMPARISONS
from service.sync.reconcile.report import Differences, Facts, compare_facts
from service.sync.reconcile.session import Session

Shown = Event | Unreadable | None  # what an API shows: an object, one that can't be read, or none at all


class Comparer:
    """Compares objects of one kind in one account: `name` is the kind's, `recorded_as` the type of its data.

    An object's key is that of its row in the books.
    """

    def __init__(
        self,
        session: Session,
        account: str,
        name: str,
        recorded_as: type[Data],
        unstated: frozenset[str] = frozenset(),
    ) -> None:
        self._session = session
        self._account = account
        self._name = name
        self._recorded_as = recorded_as
        self._unstated = unstated
        self.comparison = COMPARISONS[recorded_as]

    def key(self, object_id: str) -> str:
        """The key of an object."""
        return join_key(self.comparison.history, self._session.processor.name, self._account, object_id)

    async def differing(self, shown: Mapping[str, Shown]) -> Differences:
        """The objects that differ, of those that the API shows under these keys."""
        today = self._session.today
        rows = await read_row_by_key(self._session.store, self.comparison.row, self.comparison.book, shown)
        stated = await self._stated_facts(shown, today)
        differing: Differences = {}
        for key in shown:
            book_facts = self.comparison.facts(rows[key], today) if key in rows else None
            differences = compare_facts(
                self._name, self._account, object_id_of(key), stated.get(key), book_facts
            )
            if differences:
                differing[key] = differences
        return differing

    async def _stated_facts(self, shown: Mapping[str, Shown], today: str) -> dict[str, Facts]:
        """The facts that the books would have of the objects; the error where one can't be read.

        An object does not tell all that they depend on: its customer's discounts, its schedule and the tax of
        its invoices are those that are known here.
        """
        events = {key: event for key, event in shown.items() if isinstance(event, Event)}
        customers = {key: _discounts_key(event) for key, event in events.items()}
        discounts = await read_row_by_key(
            self._session.store, CustomerDiscounts, "bills", sorted(set(customers.values()))
        )
        histories = await self._session.read_histories(events, whole=False)
        facts: dict[str, Facts] = {
            key: {"status": "unreadable", "shape": str(error)}
            for key, error in shown.items()
            if isinstance(error, Unreadable)
        }
        for key, event in events.items():
            others = [
                other for other in histories.get(key, ()) if not isinstance(other.data, self._recorded_as)
            ]
            theirs = [discounts[customers[key]]] if customers[key] in discounts else []
            facts[key] = self._facts_of([*others, event], theirs, today)
        return facts

    def _facts_of(
        self, history: Sequence[Event], discounts: Sequence[CustomerDiscounts], today: str
    ) -> Facts:
        [row] = self.comparison.contribute(canonical(history), self._session.store.rules, discounts)
        facts = self.comparison.stated_facts(row, today)
        return {name: value for name, value in facts.items() if name not in self._unstated}


def object_id_of(key: str) -> str:
    """The id of the object with this key."""
    return key.rpartition("|")[2]


def _discounts_key(event: Event) -> str:
    return subject("customer_discount", event, getattr(event.data, "customer_id", None) or "")

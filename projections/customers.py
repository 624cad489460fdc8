"""The names of customers and products, and e-mail addresses, so that people can read rows.

No figure depends on them.
"""

from collections.abc import Sequence

from projections.book import Book, Row, Rules, Stage, causes
from service.core.events import Customer, CustomerErased, Event, Product


class CustomerName(Row, frozen=True, kw_only=True):
    """A customer's last known name and e-mail address; None once they were erased."""

    table = "customers"
    indexes = (("customer_id",),)

    processor: str
    account: str
    customer_id: str
    name: str | None
    email: str | None
    deleted: bool


class ProductName(Row, frozen=True, kw_only=True):
    """A product's last known name."""

    table = "products"
    indexes = (("product_id",),)

    processor: str
    account: str
    product_id: str
    name: str | None


def customer_name_rows(history: Sequence[Event], _rules: Rules) -> list[Row]:
    """One customer's events to their last name and address; a deletion keeps them, an erasure does not."""
    if not history:
        return []
    last = history[-1]
    states = [event.data for event in history if isinstance(event.data, Customer)]
    erased = next((event.data for event in history if isinstance(event.data, CustomerErased)), None)
    newest_first = states[::-1]
    last_name = next((_without_nul(state.name) for state in newest_first if state.name), None)
    last_email = next((_without_nul(state.email) for state in newest_first if state.email), None)
    return [
        CustomerName(
            causes=causes(last),
            processor=last.processor,
            account=last.account,
            customer_id=(erased or states[-1]).customer_id,
            name=None if erased else last_name,
            email=None if erased else last_email,
            deleted=bool(states) and states[-1].deleted,
        )
    ]


def product_name_rows(history: Sequence[Event], _rules: Rules) -> list[Row]:
    """One product's events to its last name."""
    if not history:
        return []
    last = history[-1]
    states = [event.data for event in history if isinstance(event.data, Product)]
    return [
        ProductName(
            causes=causes(last),
            processor=last.processor,
            account=last.account,
            product_id=states[-1].product_id,
            name=next((_without_nul(state.name) for state in reversed(states) if state.name), None),
        )
    ]


def _without_nul(text: str) -> str:
    """A text as every database can store it: SQLite ends a text at a NUL, and PostgreSQL refuses one."""
    return text.replace("\0", "")


CUSTOMERS = Book(
    name="customers",
    version=5,
    stages=(
        Stage(reads="customer", contribute=customer_name_rows, rows=(CustomerName,)),
        Stage(reads="product", contribute=product_name_rows, rows=(ProductName,)),
    ),
    totals=(),
)

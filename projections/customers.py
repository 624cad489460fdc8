"""The directory: names for ids, so that rows can be read. No figure depends on it."""

from collections.abc import Sequence

from projections.book import Book, Row, Rules, Stage, causes
from service.core.events import Customer, CustomerErased, Event, Product


class Name(Row, frozen=True, kw_only=True):
    """A customer's last known name; none once they were erased."""

    table = "customers"
    indexes = (("customer_id",),)

    processor: str
    account: str
    customer_id: str
    name: str | None
    deleted: bool


class ProductName(Row, frozen=True, kw_only=True):
    """A product's last known name."""

    table = "products"
    indexes = (("product_id",),)

    processor: str
    account: str
    product_id: str
    name: str | None


def name(history: Sequence[Event], _rules: Rules) -> list[Row]:
    """One customer's events to the last name told; a deletion keeps it, an erasure does not."""
    if not history:
        return []
    last = history[-1]
    told = [event.data for event in history if isinstance(event.data, Customer)]
    erased = next((event.data for event in history if isinstance(event.data, CustomerErased)), None)
    return [
        Name(
            causes=causes(last),
            processor=last.processor,
            account=last.account,
            customer_id=(erased or told[-1]).customer_id,
            name=None if erased else next((_kept(data.name) for data in reversed(told) if data.name), None),
            deleted=bool(told) and told[-1].deleted,
        )
    ]


def product_name(history: Sequence[Event], _rules: Rules) -> list[Row]:
    """One product's events to the last name told."""
    if not history:
        return []
    last = history[-1]
    told = [event.data for event in history if isinstance(event.data, Product)]
    return [
        ProductName(
            causes=causes(last),
            processor=last.processor,
            account=last.account,
            product_id=told[-1].product_id,
            name=next((_kept(data.name) for data in reversed(told) if data.name), None),
        )
    ]


def _kept(name: str) -> str:
    """A name as every database keeps it: SQLite ends a text at the first NUL, and PostgreSQL takes none."""
    return name.replace("\0", "")


CUSTOMERS = Book(
    name="customers",
    version=4,
    stages=(
        Stage(reads="customer", contribute=name, rows=(Name,)),
        Stage(reads="product", contribute=product_name, rows=(ProductName,)),
    ),
    totals=(),
)

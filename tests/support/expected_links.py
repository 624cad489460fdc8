"""Which payment settles which invoice where nobody says so: the nearest pairs. Source: contract 3."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

CustomerKey = tuple[str, str, str]  # processor, account, customer id

NEAR = timedelta(minutes=10)


@dataclass(frozen=True)
class Unlinked:
    """A payment or a paid invoice that no statement links, with the moments at which it may be met."""

    who: CustomerKey
    name: str
    currency: str
    cents: int
    moments: tuple[datetime, ...]


def inferred_links(payments: Iterable[Unlinked], invoices: Iterable[Unlinked]) -> dict[Unlinked, Unlinked]:
    """The invoice of each payment that has one; every payment and invoice has at most one."""
    payments, invoices = list(payments), list(invoices)
    pairs = sorted(
        (
            (_distance(payment, invoice), invoice.name, payment.name, payment, invoice)
            for payment in payments
            for invoice in invoices
            if _could_be_one(payment, invoice)
        ),
        key=lambda pair: pair[:3],
    )
    links: dict[Unlinked, Unlinked] = {}
    for _, _, _, payment, invoice in pairs:
        if payment not in links and invoice not in links.values():
            links[payment] = invoice
    return links


def _could_be_one(payment: Unlinked, invoice: Unlinked) -> bool:
    same = (payment.who, payment.currency, payment.cents) == (invoice.who, invoice.currency, invoice.cents)
    return same and payment.who[0] == "stripe" and _distance(payment, invoice) <= NEAR


def _distance(payment: Unlinked, invoice: Unlinked) -> timedelta:
    return min(abs(a - b) for a in payment.moments for b in invoice.moments)

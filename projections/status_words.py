"""Status words of in-house billers that no rule knows: what has one counts nothing, and is flagged."""

from collections.abc import Sequence

from projections.book import Row, causes
from service.core.events import Data, Dispute, Event, Invoice, Payment, Refund

_KNOWN: dict[type[Data], frozenset[str]] = {
    Invoice: frozenset({"draft", "open", "paid", "uncollectible", "void", "deleted"}),
    Payment: frozenset({"succeeded", "failed", "pending", "authorized", "canceled", "voided"}),
    Refund: frozenset({"succeeded", "pending", "failed", "canceled", "requires_action", "unknown"}),
    Dispute: frozenset(
        "lost won prevented needs_response under_review warning_needs_response warning_under_review "
        "warning_closed charge_refunded".split()
    ),
}
_IDS = {Invoice: "invoice_id", Payment: "payment_id", Refund: "refund_id", Dispute: "dispute_id"}


def is_unknown(event: Event) -> bool:
    """Whether an in-house biller's event says of an object a status that no rule knows."""
    known = _KNOWN.get(type(event.data))
    return event.processor.startswith("standard.") and known is not None and event.data.status not in known  # type: ignore[attr-defined]


class UnknownStatus(Row, frozen=True, kw_only=True):
    """An invoice, payment, refund or dispute whose last status is no word that is known."""

    table = "unknown_statuses"

    processor: str
    account: str
    currency: str
    source_id: str
    status: str


def unknown_status_rows(history: Sequence[Event], *kinds: type[Data]) -> list[Row]:
    """The objects of these kinds in a history of an in-house biller whose last status is not known."""
    latest = {
        (type(event.data), getattr(event.data, _IDS[type(event.data)])): event
        for event in history
        if isinstance(event.data, kinds)
    }
    return [
        UnknownStatus(
            causes=causes(event),
            processor=event.processor,
            account=event.account,
            currency=event.data.currency,  # type: ignore[attr-defined]
            source_id=source_id,
            status=event.data.status,  # type: ignore[attr-defined]
        )
        for (_, source_id), event in latest.items()
        if is_unknown(event)
    ]

"""Deliveries for tests of the ledger alone, which reads nothing in them but their events."""

from datetime import UTC, datetime

from service.core.delivery import Proof
from service.core.events import Customer, Event
from service.ledger.draft import Incoming

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def delivery(
    event_id: str, content: bytes = b"content", processor: str = "stripe", events: int = 1
) -> Incoming:
    """A delivery of one event or several about customers."""
    customers = [
        Event(
            processor=processor,
            event_id=event_id if events == 1 else f"{event_id}:{n}",
            occurred_at=NOW,
            data=Customer(customer_id=f"cus_{event_id}", name=f"n{n}"),
        )
        for n in range(events)
    ]
    proof = Proof(processor=processor, method="test", received_at=NOW)
    return Incoming(
        events=customers,
        content_digest=content,
        headers=b"{}",
        body=b'{"id":"%b"}' % event_id.encode(),
        proof=proof,
    )


def refused(body: bytes, reason: str = "unreadable") -> Incoming:
    """A delivery that waits in quarantine for a reason."""
    proof = Proof(processor="stripe", method="test", received_at=NOW)
    return Incoming(
        events=(), content_digest=body, headers=b"{}", body=body, proof=proof, reason=reason, detail="why"
    )

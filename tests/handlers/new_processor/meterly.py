"""Meterly: invoices and payments, signed by a header of its own."""

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from service.core.delivery import Endpoint, Header, Processor, Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import Event, Invoice, Payment, Unused


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove a delivery by the HMAC in `X-Meterly-Seal`."""
    seal = headers.get("x-meterly-seal", "")
    for number, secret in enumerate(secrets, start=1):
        if hmac.compare_digest(hmac.new(secret.encode(), body, sha256).hexdigest(), seal):
            return Proof(processor="meterly", method="meterly-seal", received_at=now, secret=number)
    raise VerificationError("X-Meterly-Seal holds no seal that matches")


def translate(payload: Any, proof: Proof) -> list[Event]:
    """The event of one body."""
    try:
        make = {"bill": _bill, "receipt": _receipt}.get(payload["kind"])
        data = make(payload) if make else Unused(original_type=payload["kind"])
        moment = datetime.fromisoformat(payload["at"])
        return [
            Event(
                processor="meterly",
                event_id=payload["id"],
                occurred_at=moment,
                trust=proof.trust,
                data=data,
            )
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"a field is missing: {error}") from None


def _bill(payload: dict[str, Any]) -> Invoice:
    return Invoice(
        invoice_id=payload["bill"],
        status="open",
        currency="usd",
        amount_due=payload["cents"],
        customer_id=payload["customer"],
        created_at=datetime.fromisoformat(payload["at"]),
    )


def _receipt(payload: dict[str, Any]) -> Payment:
    return Payment(
        payment_id=payload["receipt"],
        status="succeeded",
        currency="usd",
        amount=payload["cents"],
        customer_id=payload["customer"],
        invoice_id=payload["bill"],
    )


PROCESSOR = Processor(
    name="meterly",
    posts="a bill or a receipt",
    endpoints=(
        Endpoint(
            path="/webhooks/meterly",
            secrets="meterly_secrets",
            method="meterly-seal",
            verify=verify,
            headers=(Header(name="X-Meterly-Seal", description="the HMAC-SHA256 of the body, in hex"),),
        ),
    ),
    translate=translate,
    version=1,
    volatile=("attempt",),
)

"""Meterly: bills and receipts, signed by a header of its own or posted by token, and contracts."""

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from handlers.meterly.api import API, CONFIRMATIONS, UNSIGNED
from handlers.meterly.objects import bill, contract, receipt
from msgspec.structs import replace

from service.core.delivery import Endpoint, Header, Processor, Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import Event, Payment, Unused

_DATA = {"bill": bill, "receipt": receipt, "contract": contract}


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove a delivery by the HMAC in `X-Meterly-Seal`."""
    seal = headers.get("x-meterly-seal", "")
    for number, secret in enumerate(secrets, start=1):
        if hmac.compare_digest(hmac.new(secret.encode(), body, sha256).hexdigest(), seal):
            return Proof(processor="meterly", method="meterly-seal", received_at=now, secret=number)
    raise VerificationError("X-Meterly-Seal holds no seal that matches")


def verify_token(headers: Mapping[str, str], _body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Accept a delivery by the token in its path."""
    if headers.get(":token") not in secrets:
        raise VerificationError("the token is not known")
    return Proof(processor="meterly", method="meterly-token", received_at=now, trust="unsigned")


def translate(payload: Any, proof: Proof) -> list[Event]:
    """The event of a webhook or listed event, of an object that was observed, or of a contract."""
    try:
        kind = payload["kind"]
        data = _DATA[kind](payload) if kind in _DATA else Unused(original_type=kind)
        if isinstance(data, Payment) and proof.confirmable:
            data = replace(data, awaits_confirmation=True)
        is_observed = proof.is_observation or kind == "contract"
        return [
            Event(
                processor="meterly",
                event_id=proof.message_id or payload["id"] + (UNSIGNED if proof.trust == "unsigned" else ""),
                occurred_at=proof.received_at if is_observed else datetime.fromisoformat(payload["at"]),
                trust=proof.trust,
                data=data,
            )
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"a field is missing: {error}") from None


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
        Endpoint(
            path="/webhooks/meterly/{token}",
            secrets="meterly_secrets",
            method="meterly-token",
            verify=verify_token,
            unsigned="it came by a token",
        ),
    ),
    translate=translate,
    version=1,
    volatile=("attempt",),
    confirmations=CONFIRMATIONS,
    api=API,
)

"""Stripe's signature of a webhook. Source: https://docs.stripe.com/webhooks#verify-manually."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from stripe import WebhookSignature

from handlers.stripe.fields import NAME, moment
from service.core.delivery import TOLERANCE_SECONDS, Proof
from service.core.errors import VerificationError

TOLERANCE = timedelta(seconds=TOLERANCE_SECONDS)
METHOD = "stripe-signature"


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove that Stripe signed `body`, within the tolerance of `now`, with one of `secrets`.

    Stripe's library checks one secret only and accepts any time in the future, so both are checked here.
    """
    header = headers.get("stripe-signature", "")
    signed_at = _signed_at(header)
    if abs(now - signed_at) > TOLERANCE:
        raise VerificationError(f"Stripe-Signature was made more than {TOLERANCE_SECONDS} seconds from now")
    for number, secret in enumerate(secrets, start=1):
        if _is_signed_with(header, body, secret):
            return Proof(
                processor=NAME,
                method=METHOD,
                received_at=now,
                signed_at=signed_at,
                secret=number,
            )
    raise VerificationError("Stripe-Signature holds no signature that matches")


def _signed_at(header: str) -> datetime:
    """The time in the header's first `t`, which is the one whose signature the library checks."""
    try:
        return moment(int(next(part[2:] for part in header.split(",") if part.startswith("t="))))
    except (StopIteration, ValueError, OverflowError, OSError):
        raise VerificationError("Stripe-Signature is missing, or its time can't be read") from None


def _is_signed_with(header: str, body: bytes, secret: str) -> bool:
    try:
        return bool(WebhookSignature.verify_header(body.decode(), header, secret))
    except Exception:  # noqa: BLE001 - after any error nothing is proved
        return False

"""Stripe's signature of a webhook. Source: https://docs.stripe.com/webhooks#verify-manually."""

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

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


@cache
def _library() -> Any:
    """Stripe's; it takes a third of a second to import, and only a process that takes deliveries needs it."""
    from stripe import WebhookSignature  # noqa: PLC0415

    return WebhookSignature


def _is_signed_with(header: str, body: bytes, secret: str) -> bool:
    try:
        return bool(_library().verify_header(body.decode(), header, secret))
    except UnicodeDecodeError:
        return _are_bytes_signed_with(header, body, secret)
    except Exception:  # noqa: BLE001 - after any error nothing is proved
        return False


def _are_bytes_signed_with(header: str, body: bytes, secret: str) -> bool:
    """The same for a body that is no text, which Stripe's library does not take."""
    parts = [part.partition("=") for part in header.split(",")]
    signed_at = next(value for name, _, value in parts if name == "t")
    expected = hmac.new(secret.encode(), b"%d.%b" % (int(signed_at), body), "sha256").hexdigest()
    signatures = [value for name, _, value in parts if name == "v1"]
    return bool(secret.strip()) and any(
        hmac.compare_digest(expected.encode(), s.encode()) for s in signatures
    )

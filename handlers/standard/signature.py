"""The signature of Standard Webhooks. Source: the Standard Webhooks specification."""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from standardwebhooks import Webhook

from service.core.delivery import TOLERANCE_SECONDS, Header, Proof
from service.core.errors import VerificationError

METHOD = "standard-webhooks"
HEADERS = (  # the standard's first sender has names of its own for them
    Header(name="webhook-id", others=("svix-id",), description="the message's id, the same at every attempt"),
    Header(
        name="webhook-timestamp",
        others=("svix-timestamp",),
        description="the attempt's time in whole seconds since 1970",
    ),
    Header(
        name="webhook-signature",
        others=("svix-signature",),
        description="`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; several, by spaces",
    ),
)

_SIGNED_HEADERS = ("id", "timestamp", "signature")


def check_secrets(secrets: Sequence[str], _earlier: Mapping[str, Any]) -> None:
    """Raise ValueError if one of the secrets has no key: every delivery would be refused."""
    if not all(map(_has_key, secrets)):
        raise ValueError("whsec_ and a key in base64; several with commas between them")


def check_secrets_by_name(secrets: Mapping[str, Sequence[str]], _earlier: Mapping[str, Any]) -> None:
    """The same of secrets by the names of billers."""
    if not all(_has_key(secret) for several in secrets.values() for secret in several):
        raise ValueError("name=whsec_… pairs, comma-separated, each with its key in base64")


def _has_key(secret: str) -> bool:
    try:
        return bool(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        return False


def verify_signature(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime, *, processor: str
) -> Proof:
    """Prove a Standard Webhooks delivery: any of its signatures may match any of `secrets`.

    Unlike `Webhook.verify` it takes the time as a parameter, and accepts only timestamps in whole seconds.
    The headers of the standard's first sender have the same values under names of their own.
    """
    prefix = "webhook" if "webhook-id" in headers else "svix"
    headers = {f"webhook-{name}": headers.get(f"{prefix}-{name}", "") for name in _SIGNED_HEADERS}
    message_id, signed_at = _signed_headers(headers, now)
    presented = [signature.encode() for signature in headers["webhook-signature"].split(" ")]
    for number, secret in enumerate(secrets, start=1):
        expected = _sign(secret, message_id, signed_at, body)
        if any(hmac.compare_digest(expected, signature) for signature in presented):
            return Proof(
                processor=processor,
                method=METHOD,
                received_at=now,
                message_id=message_id,
                signed_at=signed_at,
                secret=number,
            )
    raise VerificationError("webhook-signature holds no signature that matches")


def _signed_headers(headers: Mapping[str, str], now: datetime) -> tuple[str, datetime]:
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if not re.fullmatch(r"[!-~]{1,255}", message_id):
        raise VerificationError("webhook-id is missing or malformed")
    if not re.fullmatch(r"[1-9][0-9]{0,10}", timestamp):
        raise VerificationError("webhook-timestamp is missing or no whole number of seconds")
    signed_at = datetime.fromtimestamp(int(timestamp), UTC)
    if abs(now - signed_at) > timedelta(seconds=TOLERANCE_SECONDS):
        raise VerificationError(f"webhook-timestamp is more than {TOLERANCE_SECONDS} seconds from now")
    return message_id, signed_at


def _sign(secret: str, message_id: str, signed_at: datetime, body: bytes) -> bytes:
    try:
        return _webhook(secret).sign(message_id, signed_at, body.decode()).encode()
    except UnicodeDecodeError:
        return _sign_bytes(secret, message_id, signed_at, body)
    except Exception:  # noqa: BLE001 - after any error nothing is proved; its text may quote the secret
        raise VerificationError("the signature cannot be checked") from None


def _sign_bytes(secret: str, message_id: str, signed_at: datetime, body: bytes) -> bytes:
    """The signature of a body that is no text, which the standard's library does not take."""
    key = base64.b64decode(secret.removeprefix("whsec_") + "==")
    signed = f"{message_id}.{int(signed_at.timestamp())}.".encode() + body
    return b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))


@lru_cache(maxsize=64)
def _webhook(secret: str) -> Webhook:
    return Webhook(secret)

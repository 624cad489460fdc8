"""In-house billers: Standard Webhooks whose bodies are events in the ledger's own format."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from handlers.standard import signature, translation
from service.core.delivery import Endpoint, Processor, Proof
from service.core.errors import VerificationError

__all__ = ["PROCESSOR", "verify"]

_BILLER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove a delivery from the in-house biller named in the path. Its processor is "standard.<name>"."""
    name = headers.get(":name", "")
    if not _BILLER_NAME.fullmatch(name):
        raise VerificationError("no biller can have this name")
    return signature.verify_signature(headers, body, secrets, now, processor=f"standard.{name}")


PROCESSOR = Processor(
    name="standard",
    posts="one event, as `/schemas/event.json` describes it",
    endpoints=(
        Endpoint(
            path="/webhooks/standard/{name}",
            secrets="standard_webhook_secrets",
            method=signature.METHOD,
            verify=verify,
            headers=signature.HEADERS,
        ),
    ),
    translate=translation.translate,
    version=1,
    setting_checks=(("standard_webhook_secrets", signature.check_secrets_by_name),),
)

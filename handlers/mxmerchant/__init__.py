"""MX Merchant: contract records and notifications, through a relay that signs or directly by URL token.

MX Merchant signs nothing and gives its events no id. A contract record is the state of a contract when
it is observed; a notification reports what happened to one payment. `payloads` has the structs of its
objects; the modules beside it put each kind of object into our words.
"""

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime

from handlers.mxmerchant.api import API, payment_request
from handlers.mxmerchant.fields import NAME, TRUST_SUFFIX
from handlers.mxmerchant.payments import confirm, read_payment_again
from handlers.mxmerchant.translation import translate
from handlers.standard import signature
from service.core.delivery import Confirmations, Endpoint, ExportFile, Processor, Proof
from service.core.errors import VerificationError
from service.core.events import Dispute, Payment, Refund

__all__ = ["NAME", "PROCESSOR", "translate", "verify_relay", "verify_token"]

_BY_URL = "url-token"


def verify_relay(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove a delivery that a relay signed with Standard Webhooks."""
    return signature.verify_signature(headers, body, secrets, now, processor=NAME)


def verify_token(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:  # noqa: ARG001
    """Accept a delivery by the token in its path. That proves nothing about its body: trust is "unsigned"."""
    presented = headers.get(":token", "").encode(errors="replace")
    matches = [hmac.compare_digest(presented, token.encode()) for token in secrets if token]
    if True not in matches:
        raise VerificationError("the URL token is not known")
    return Proof(
        processor=NAME,
        method=_BY_URL,
        received_at=now,
        trust="unsigned",
        secret=matches.index(True) + 1,
    )


PROCESSOR = Processor(
    name=NAME,
    posts="what MX Merchant posts, or a contract record, or a list of them",
    endpoints=(
        Endpoint(
            path="/webhooks/mxmerchant",
            secrets="mxmerchant_webhook_secrets",
            method=signature.METHOD,
            verify=verify_relay,
            headers=signature.HEADERS,
        ),
        Endpoint(
            path="/webhooks/mxmerchant/{token}",
            secrets="mxmerchant_url_tokens",
            method=_BY_URL,
            verify=verify_token,
            unsigned="it came by a URL token, which signs nothing",
        ),
    ),
    translate=translate,
    version=2,
    setting_checks=(("mxmerchant_webhook_secrets", signature.check_secrets),),
    confirmations=Confirmations(
        unsigned_suffix=TRUST_SUFFIX["unsigned"],
        fetched_suffix=TRUST_SUFFIX["fetched"],
        confirmable=(Payment, Refund, Dispute),
        fetched=payment_request,
        confirm=confirm,
        read_again=read_payment_again,
    ),
    export_file=ExportFile(list_name="records", are_observed=True),
    api=API,
)

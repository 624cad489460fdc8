"""Processors: a module for each, and an endpoint for each path. Pure: no database, clock or socket."""

from handlers import mxmerchant, standard, stripe
from handlers.stripe import envelope
from service.core.delivery import Endpoint

__all__ = ["ENDPOINTS", "mxmerchant", "standard", "stripe"]

ENDPOINTS = (
    Endpoint(
        path="/webhooks/stripe",
        secrets="stripe_webhook_secrets",
        verify=stripe.verify,
        translate=envelope.translate,
        version=stripe.TRANSLATION_VERSION,
        volatile=("pending_webhooks", "account", "context"),
        ignore=envelope.ignore,
        render=envelope.api_version,
    ),
    Endpoint(
        path="/webhooks/mxmerchant",
        secrets="mxmerchant_webhook_secrets",
        verify=mxmerchant.verify_relay,
        translate=mxmerchant.translate,
        version=mxmerchant.TRANSLATION_VERSION,
    ),
    Endpoint(
        path="/webhooks/mxmerchant/{token}",
        secrets="mxmerchant_url_tokens",
        verify=mxmerchant.verify_token,
        translate=mxmerchant.translate,
        version=mxmerchant.TRANSLATION_VERSION,
    ),
    Endpoint(
        path="/webhooks/standard/{name}",
        secrets="standard_webhook_secrets",
        verify=standard.verify,
        translate=standard.translate,
        version=standard.TRANSLATION_VERSION,
    ),
)

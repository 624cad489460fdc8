"""Stripe: the verification of its webhooks, and their translation to events of the ledger.

All families of payload are read: up to 2025-02 (acacia and before), and 2025-03-31.basil and later.
`payloads` has the structs of their objects, `translations` the table of event types; the modules beside it
put each kind of object into our words, and `units` its money into ISO's units.
"""

from handlers.stripe import envelope, signature
from handlers.stripe.api import API, check_mode_of_key
from handlers.stripe.fields import NAME
from handlers.stripe.thin_events import THIN_EVENTS
from service.core.delivery import Endpoint, ExportFile, Header, Processor

__all__ = ["NAME", "PROCESSOR"]

PROCESSOR = Processor(
    name=NAME,
    posts="what Stripe posts, its bytes as they were signed",
    endpoints=(
        Endpoint(
            path="/webhooks/stripe",
            secrets="stripe_webhook_secrets",
            method=signature.METHOD,
            verify=signature.verify,
            headers=(Header(name="Stripe-Signature", description="`t=…,v1=…`, as Stripe makes it"),),
        ),
    ),
    translate=envelope.translate,
    version=5,
    volatile=("pending_webhooks", "account", "context"),
    ignore=envelope.ignore,
    mode_setting="stripe_mode",
    setting_checks=(("stripe_api_key", check_mode_of_key),),
    render=envelope.api_version,
    thin_events=THIN_EVENTS,
    export_file=ExportFile(list_name="data", with_account=envelope.with_account),
    api=API,
)

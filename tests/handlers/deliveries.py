"""Stripe's deliveries of `tests/fixtures/stripe`, and how they are read."""

import json
from datetime import UTC, datetime
from typing import Any

from handlers.stripe.envelope import translate
from service.core.delivery import Proof
from service.core.events import Data, Event
from tests.support.paths import FIXTURES

STRIPE = FIXTURES / "stripe"
FAMILIES = ("acacia", "basil")
NOW = datetime(2025, 11, 13, 10, 30, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
PROOF = Proof(processor="stripe", method="stripe-signature", received_at=NOW, signed_at=NOW, secret=1)


def delivery(name: str, family: str = "basil") -> Any:
    """A fixture by its name."""
    return json.loads((STRIPE / family / f"{name}.json").read_text())


def changed(name: str, family: str = "basil", **fields: Any) -> Any:
    """A fixture with fields of its object replaced."""
    payload = delivery(name, family)
    payload["data"]["object"] |= fields
    return payload


def without(payload: Any, *names: str) -> Any:
    """A delivery without fields of its object."""
    for name in names:
        payload["data"]["object"].pop(name, None)
    return payload


def read(payload: Any) -> Event:
    """The event of a delivery."""
    (event,) = translate(payload, PROOF)
    return event


def said(kind: str, **fields: Any) -> Any:
    """The data of an event of type `kind` about an object with these fields, at `NOW`."""
    data: Data = read({"id": "evt_1", "type": kind, "created": SECONDS, "data": {"object": fields}}).data
    return data


def seconds(*date: int) -> int:
    """Seconds since 1970 of a moment in UTC."""
    return int(datetime(*date, tzinfo=UTC).timestamp())  # type: ignore[arg-type]

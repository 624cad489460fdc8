"""What a handler proves of a delivery, and the shape that every handler has."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from service.core.events import Event

TOLERANCE_SECONDS = 300  # how far a signed timestamp may be from now, either way


class Proof(Struct, frozen=True, kw_only=True):
    """What was proved of one delivery: by which method, and what was signed beside the body.

    `trust` is "signed" or "unsigned". `secret` counts the configured secrets from 1; it is never
    the secret itself. `confirmable` says that a fetch from the processor will confirm the event.
    """

    processor: str
    method: str
    received_at: datetime
    trust: str = "signed"
    message_id: str | None = None
    signed_at: datetime | None = None
    secret: int | None = None
    confirmable: bool = False


# verify(headers, body, secrets, now): proves who sent the bytes and when. Header names are lower
# case; a path parameter stands under its name behind a colon (":token"). Raises VerificationError.
Verify = Callable[[Mapping[str, str], bytes, Sequence[str], datetime], Proof]

# translate(payload, proof): the parsed body as ledger events, purely. Raises Unreadable.
Translate = Callable[[Any, Proof], list[Event]]


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a processor posts, and what reads it.

    `secrets` names the setting that holds what `verify` checks against. `volatile` names the
    body's top-level fields that a redelivery may change, so that a retry is never a conflict.
    """

    path: str
    secrets: str
    verify: Verify
    translate: Translate
    volatile: tuple[str, ...] = ()

"""Webhooks in: verify the raw bytes, translate, append, and only then answer 200."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Annotated, Any, Literal

import structlog
from msgspec import UNSET, Struct, UnsetType, json
from msgspec.structs import replace
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from handlers import PROCESSORS
from service.core.delivery import Endpoint, Processor
from service.core.errors import (
    Busy,
    DaybookError,
    LostEvents,
    MalformedBody,
    NotConfigured,
    NotFound,
    TooLarge,
    TooSlow,
    Unavailable,
    VerificationError,
)
from service.core.events import Event, Subscription, Unused
from service.intake.quarantine import NO_API
from service.intake.translation import has_thin_event, read_delivery
from service.ledger.draft import Incoming, Outcome
from service.reads.answers import about
from service.storage.time_limit import TimeLimit
from service.web.clients import client_of
from service.web.counted_lines import CountedLines
from service.web.state import State, state_of

MAX_BODY_BYTES = 1 << 20
_BODY_SECONDS = 5.0  # after the headers; a slower sender would take up room that others need
_STORED_HEADERS = ("content-type", "user-agent")  # beside those that prove a delivery; no credential

# What a delivery that is answered with an error counts as. Nobody who can't prove a delivery can raise
# "unavailable".
_OUTCOMES: dict[type[DaybookError], str] = {
    VerificationError: "rejected",
    TooLarge: "rejected",
    TooSlow: "rejected",
    NotFound: "rejected",
    NotConfigured: "not_configured",
    Busy: "refused",
    Unavailable: "unavailable",
    LostEvents: "unavailable",
}
_NOTED = {  # the line in the log, by outcome
    "conflict": "delivery_conflict",
    "unreadable": "delivery_quarantined",
    "malformed": "delivery_quarantined",
}

log = structlog.get_logger()


class Received(Struct, frozen=True, kw_only=True):
    """What became of a delivery."""

    received: Annotated[bool, about("true: it is on disk")]
    position: Annotated[
        int | None, about("the event's position in the ledger; null where it is in quarantine")
    ]
    duplicate: Annotated[bool, about("whether the ledger held the event already")]
    conflict: Annotated[
        bool | UnsetType,
        about("the ledger holds other content under this event id; this one is in quarantine"),
    ] = UNSET
    quarantined: Annotated[bool | UnsetType, about("it can't be read; kept whole in quarantine")] = UNSET
    ignored: Annotated[
        str | UnsetType, about("why its events don't count, where they would under another setting")
    ] = UNSET
    pending: Annotated[
        Literal["fetch"] | UnsetType, about("it only names what changed, which is fetched next")
    ] = UNSET


def webhook_routes() -> list[Route]:
    """One POST route for each endpoint of each processor."""
    return [
        Route(endpoint.path, _receiver(processor, endpoint), methods=["POST"])
        for processor in PROCESSORS
        for endpoint in processor.endpoints
    ]


def _receiver(processor: Processor, endpoint: Endpoint) -> Any:
    ignored_lines, lines = CountedLines(log.info), CountedLines(log.warning)
    body_time = TimeLimit(_BODY_SECONDS)

    def say(request: Request, event: str, reason: str) -> None:
        """One line about a delivery that was not recorded, or contradicts what was. It names no URL."""
        shown = {"remote": request.client.host if request.client else None}
        state = state_of(request)
        lines.add(state.clock(), event, shown=shown, processor=processor.name, reason=reason)

    async def receive(request: Request) -> Response:
        state, client = state_of(request), client_of(request)
        outcome = "error"
        try:
            with state.webhooks.slot(client) as slot:
                body = await _body(request, slot.reserve, body_time)
                incoming = _prove(processor, endpoint, request, body, state)
            with state.proved_webhooks.slot(client) as slot:
                slot.reserve(len(incoming.body))
                started = perf_counter()
                result = await state.writer.append(incoming)
            state.metrics.append_seconds.observe(perf_counter() - started)
            outcome = _outcome_label(result, incoming)
            if event := _NOTED.get(outcome):
                say(request, event, incoming.detail or "the event's id is known, with other content")
            _count_missing_next_bills(incoming.events, processor.name, state)
            if incoming.reason == "malformed":
                raise MalformedBody("the body is signed, but it is not JSON; it is in quarantine")
            if ignored := _ignored(incoming):
                ignored_lines.add(state.clock(), "event_ignored", processor=processor.name, reason=ignored)
            if incoming.reason == NO_API:
                say(request, "event_not_fetched", incoming.detail)
            if _is_pending(result, incoming):
                state.request_fetch(result.end)
            return Response(json.encode(_answer(result, incoming)), media_type="application/json")
        except DaybookError as error:
            if type(error) in _OUTCOMES:
                outcome = _OUTCOMES[type(error)]
                say(request, "delivery_rejected" if outcome == "rejected" else "delivery_refused", str(error))
            raise
        finally:
            state.metrics.deliveries.labels(processor.name, outcome).inc()

    return receive


async def _body(request: Request, reserve: Callable[[int], None], time: TimeLimit) -> bytes:
    """The raw bytes. Room is reserved as they arrive, so that a stated length alone takes up none.

    Raises TooLarge as soon as the body is known to be too large, TooSlow, and the errors of `reserve`.
    """
    too_large = TooLarge(f"the body is over {MAX_BODY_BYTES} bytes")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        with time.wait():
            async for chunk in request.stream():
                if len(body) + len(chunk) > MAX_BODY_BYTES:
                    raise too_large
                reserve(len(chunk))
                body += chunk
    except TimeoutError:
        raise TooSlow(f"the body took over {time.seconds:.0f} s to arrive") from None
    except ClientDisconnect:
        raise VerificationError("the body ended early") from None
    return bytes(body)


def _prove(processor: Processor, endpoint: Endpoint, request: Request, body: bytes, state: State) -> Incoming:
    """The verified delivery, ready to append. Raises VerificationError, NotConfigured or NotFound."""
    headers = dict(reversed(request.headers.items()))  # of several values of one name the first
    headers |= {f":{name}": value for name, value in request.path_params.items()}
    secrets = state.settings.secrets_of(endpoint, request.path_params.get("name", ""))
    if not secrets and "name" in request.path_params:
        raise NotFound("no biller of this name is set")
    if not secrets:
        raise NotConfigured("no secret is set for this processor")
    proof = endpoint.verify(headers, body, secrets, state.clock())
    if proof.trust == "unsigned" and processor.confirmations and state.settings.has_api(processor):
        proof = replace(proof, confirmable=True)
    names = (*endpoint.header_names, *_STORED_HEADERS)
    stored_headers = json.encode({name: headers[name] for name in names if name in headers})
    incoming = read_delivery(processor, stored_headers, body, proof, state.settings.mode_of)
    return incoming if state.settings.has_api(processor) else _without_api(incoming, processor, state)


def _without_api(incoming: Incoming, processor: Processor, state: State) -> Incoming:
    """A thin event marked for quarantine, since what it names can't be fetched; or any other delivery."""
    if processor.api is None or not has_thin_event(incoming):
        return incoming
    unset = " and ".join(state.settings.unset_of(processor.api))
    detail = f"what this event names can't be fetched without {unset}"
    return replace(incoming, events=(), reason=NO_API, detail=detail)


def _ignored(incoming: Incoming) -> str | None:
    """Why the events of a delivery don't count, where they would under another setting."""
    unused = [event.data for event in incoming.events if isinstance(event.data, Unused)]
    return next((data.ignored for data in unused if data.ignored), None)


def _is_pending(result: Outcome, incoming: Incoming) -> bool:
    """Whether the delivery brought a thin event that the ledger lacked, so that what it names is fetched."""
    return has_thin_event(incoming) and not result.duplicate and not result.conflict


def _answer(result: Outcome, incoming: Incoming) -> Received:
    return Received(
        received=True,
        position=result.position,
        duplicate=result.duplicate,
        conflict=result.conflict or UNSET,
        quarantined=result.quarantined or UNSET,
        ignored=_ignored(incoming) or UNSET,
        pending="fetch" if _is_pending(result, incoming) else UNSET,
    )


def _outcome_label(result: Outcome, incoming: Incoming) -> str:
    if result.quarantined:
        return incoming.reason or "quarantined"
    if result.conflict:
        return "conflict"
    return "duplicate" if result.duplicate else "recorded"


def _count_missing_next_bills(events: Sequence[Event], processor: str, state: State) -> None:
    """Count live subscriptions without a next bill: a new payload shape of a processor shows here first."""
    for data in (event.data for event in events if isinstance(event.data, Subscription)):
        has_next_bill = data.next_bill_at or data.next_bill_on
        if data.status in ("active", "trialing", "past_due") and not has_next_bill:
            state.metrics.null_next_bills.labels(processor).inc()

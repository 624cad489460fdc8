"""MX Merchant's contract records, and notifications, as they were saved to a file."""

from collections.abc import Iterator

from msgspec import json
from msgspec.structs import replace

from service.core.events import Subscription, subjects
from service.intake.translation import endpoint_of, read_delivery
from service.transfer.importer import Fault, Told
from service.transfer.json_members import members_of
from service.transfer.observed import Observation
from service.transfer.sources import NO_JSON, Source

PROCESSOR = "mxmerchant"


def read_records(source: Source, observation: Observation) -> Iterator[Told | Fault]:
    """Each record as a delivery: a contract as it was observed, or a notification."""
    endpoint = endpoint_of(PROCESSOR)
    assert endpoint is not None  # noqa: S101 - it is in the handlers' table
    seen: dict[str, int] = {}
    for item in members_of(source, "records"):
        if isinstance(item, Fault):
            yield item
            continue
        line, body = item
        incoming = read_delivery(endpoint, b"{}", body, observation.proof(PROCESSOR, _compact(body)))
        yield _once(Told(line=line, incoming=incoming), seen)


def _compact(body: bytes) -> bytes:
    """A record, however it was indented."""
    try:
        return json.encode(json.decode(body), order="deterministic")
    except NO_JSON:
        return body


def _once(told: Told, seen: dict[str, int]) -> Told | Fault:
    """A contract is an observation; one that the file states in two ways is none."""
    for event in told.incoming.events:
        if isinstance(event.data, Subscription):
            said = hash(event.data)
            if seen.setdefault(subjects(event)[0], said) != said:
                detail = f"the contract {event.data.subscription_id} is stated twice, in two ways"
                return Fault(line=told.line, detail=detail)
            return replace(told, observed=True)
    return told

"""MX Merchant's contract records and notifications, saved to a file."""

from collections.abc import Iterator

from msgspec import json
from msgspec.structs import replace

from handlers.mxmerchant import PROCESSOR
from service.core.delivery import no_mode
from service.core.events import Subscription, subjects
from service.core.rfc8259 import NOT_JSON, parse_json
from service.intake.translation import read_delivery
from service.transfer.importer import ImportItem, LineFault
from service.transfer.json_members import read_members
from service.transfer.observations import Observation
from service.transfer.sources import ImportSource


def read_records(source: ImportSource, observation: Observation) -> Iterator[ImportItem | LineFault]:
    """Each record as a delivery: a contract as it was observed, or a notification."""
    seen: dict[str, int] = {}
    for item in read_members(source, "records"):
        if isinstance(item, LineFault):
            yield item
            continue
        line, body = item
        proof = observation.proof(PROCESSOR.name, _canonical_json(body))
        incoming = read_delivery(PROCESSOR, b"{}", body, proof, no_mode)
        yield _mark_observation(ImportItem(line=line, incoming=incoming), seen)


def _canonical_json(body: bytes) -> bytes:
    """A record without indentation and with sorted keys, so that its digest doesn't depend on them."""
    try:
        return json.encode(parse_json(body), order="deterministic")
    except NOT_JSON:
        return body


def _mark_observation(item: ImportItem, seen: dict[str, int]) -> ImportItem | LineFault:
    """The item, marked as an observation if it is a contract; a fault if the file states it in two ways.

    `seen` holds the hash of each contract of the file by its subject.
    """
    for event in item.incoming.events:
        if isinstance(event.data, Subscription):
            data_hash = hash(event.data)
            if seen.setdefault(subjects(event)[0], data_hash) != data_hash:
                detail = f"the contract {event.data.subscription_id} is stated twice, in two ways"
                return LineFault(line=item.line, detail=detail)
            return replace(item, is_observation=True)
    return item

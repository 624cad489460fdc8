"""Files of what a processor shows or exports: events, or the states of its contracts and notifications."""

from collections.abc import Iterator
from datetime import datetime

from msgspec import json
from msgspec.structs import replace

from service.core.delivery import ExportFile, ModeOf, Processor, Proof
from service.core.events import Subscription, subjects
from service.core.rfc8259 import NOT_JSON, parse_json
from service.intake.translation import read_delivery
from service.transfer.importer import ImportItem, LineFault
from service.transfer.json_members import read_members
from service.transfer.observations import Observation
from service.transfer.sources import ImportSource


def read_events(
    processor: Processor, source: ImportSource, now: datetime, account: str, mode_of: ModeOf
) -> Iterator[ImportItem | LineFault]:
    """Each event of a file of events, or of pages of events.

    `account` is the connected account to which they belong, or empty. `mode_of` is that of `read_delivery`.
    """
    export_file = _export_file(processor)
    proof = Proof(processor=processor.name, method="import", received_at=now, trust="unsigned")
    for item in read_members(source, export_file.list_name):
        if isinstance(item, LineFault):
            yield item
            continue
        line, body = item
        if account and export_file.with_account:
            body = export_file.with_account(body, account)
        yield ImportItem(line=line, incoming=read_delivery(processor, b"{}", body, proof, mode_of))


def read_observed(
    processor: Processor, source: ImportSource, observation: Observation, mode_of: ModeOf
) -> Iterator[ImportItem | LineFault]:
    """Each record as a delivery: a contract as it was observed, or a notification."""
    seen: dict[str, int] = {}
    for item in read_members(source, _export_file(processor).list_name):
        if isinstance(item, LineFault):
            yield item
            continue
        line, body = item
        proof = observation.proof(processor.name, _canonical_json(body))
        incoming = read_delivery(processor, b"{}", body, proof, mode_of)
        yield _mark_observation(ImportItem(line=line, incoming=incoming), seen)


def _export_file(processor: Processor) -> ExportFile:
    assert processor.export_file  # noqa: S101 - the caller chose a processor whose files can be imported
    return processor.export_file


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

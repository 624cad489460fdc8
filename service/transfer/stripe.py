"""Stripe's events in files from its API, its command line or its dashboard."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from msgspec import Raw, Struct, json
from msgspec.structs import replace

from service.core.delivery import Proof
from service.intake.translation import endpoint_of, read_delivery
from service.ledger.draft import EventKey
from service.ledger.store import Ledger, LedgerReader
from service.transfer.importer import ImportItem, LineFault
from service.transfer.json_members import read_members
from service.transfer.sources import JSON_ERRORS, ImportSource

PROCESSOR = "stripe"


class _VersionField(Struct):
    """The field with the API version in which an event was rendered."""

    api_version: str | None = None


_VERSION_FIELD = json.Decoder(_VersionField)
_FIELDS = json.Decoder(dict[str, Raw])


def read_events(source: ImportSource, now: datetime, account: str = "") -> Iterator[ImportItem | LineFault]:
    """Each event of a file of events, or of pages of events.

    `account` is the connected account to which they belong. The webhooks of a platform contain it, but a
    list requested in the account's name doesn't; without it each event would be recorded twice.
    """
    endpoint = endpoint_of(PROCESSOR)
    assert endpoint is not None  # noqa: S101 - it is in the handlers' table
    proof = Proof(processor=PROCESSOR, method="import", received_at=now, trust="unsigned")
    for item in read_members(source, "data"):
        if isinstance(item, LineFault):
            yield item
            continue
        line, body = item
        body_with_account = _add_account(body, account) if account else body
        yield ImportItem(line=line, incoming=read_delivery(endpoint, b"{}", body_with_account, proof))


def _add_account(body: bytes, account: str) -> bytes:
    """An event as in the platform's webhooks: with its account, if it contains none."""
    try:
        fields = _FIELDS.decode(body)
    except JSON_ERRORS:
        return body
    return body if not fields or "account" in fields else json.encode({"account": account, **fields})


async def skip_known(ledger: Ledger, batch: Sequence[ImportItem]) -> list[ImportItem]:
    """Mark the events that the ledger has in another API version, or with a body that was erased."""
    ids = [event.event_id for item in batch for event in item.incoming.events]
    async with ledger.reading() as reader:
        positions = {(row[1], row[2], row[0]): row[3] for row in await reader.known_ids(ids)}
        bodies = await _read_bodies(reader, set(positions.values()))
    return [replace(item, is_known=_is_known(item, positions, bodies)) for item in batch]


async def _read_bodies(reader: LedgerReader, positions: set[int]) -> dict[int, bytes | None]:
    """The bodies at these positions; those at consecutive positions, as is usual, are read together."""
    bodies: dict[int, bytes | None] = {}
    for _, neighbours in groupby(enumerate(sorted(positions)), lambda indexed: indexed[1] - indexed[0]):
        first, *rest = [position for _, position in neighbours]
        bodies |= {row["position"]: row["body"] for row in await reader.deliveries(first - 1, 1 + len(rest))}
    return bodies


def _is_known(item: ImportItem, positions: dict[EventKey, int], bodies: dict[int, bytes | None]) -> bool:
    for event in item.incoming.events:
        position = positions.get((event.processor, event.account, event.event_id))
        if position is not None:
            body = bodies.get(position)
            return body is None or _api_version(body) != _api_version(item.incoming.body)
    return False


def _api_version(body: bytes) -> str | None:
    try:
        return _VERSION_FIELD.decode(body).api_version
    except JSON_ERRORS:
        return None

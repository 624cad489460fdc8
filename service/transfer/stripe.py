"""Stripe's events as its API, its command line or its dashboard export them."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from msgspec import Raw, Struct, json
from msgspec.structs import replace

from service.core.delivery import Proof
from service.intake.translation import endpoint_of, read_delivery
from service.ledger.draft import EventKey
from service.ledger.store import Ledger, LedgerReader
from service.transfer.importer import Fault, Told
from service.transfer.json_members import members_of
from service.transfer.sources import NO_JSON, Source

PROCESSOR = "stripe"


class _Rendered(Struct):
    """In which API version an event was written."""

    api_version: str | None = None


_RENDERED = json.Decoder(_Rendered)
_FIELDS = json.Decoder(dict[str, Raw])


def read_events(source: Source, now: datetime, account: str = "") -> Iterator[Told | Fault]:
    """Each event of a file of events or of pages of them.

    `account`: the connected account whose events they are. A webhook for the platform names it, a list
    that was asked for in the account's name doesn't; without it each event would count twice.
    """
    endpoint = endpoint_of(PROCESSOR)
    assert endpoint is not None  # noqa: S101 - it is in the handlers' table
    proof = Proof(processor=PROCESSOR, method="import", received_at=now, trust="unsigned")
    for item in members_of(source, "data"):
        if isinstance(item, Fault):
            yield item
            continue
        line, body = item
        named = _of_account(body, account) if account else body
        yield Told(line=line, incoming=read_delivery(endpoint, b"{}", named, proof))


def _of_account(body: bytes, account: str) -> bytes:
    """An event as the platform is told it: with the account that it is of, if it names none."""
    try:
        named = _FIELDS.decode(body)
    except NO_JSON:
        return body
    return body if not named or "account" in named else json.encode({"account": account, **named})


async def skip_known(ledger: Ledger, batch: Sequence[Told]) -> list[Told]:
    """Mark those that the ledger holds as another API version says them, or as nobody can read any more."""
    ids = [event.event_id for told in batch for event in told.incoming.events]
    async with ledger.reading() as reader:
        held = {(row[1], row[2], row[0]): row[3] for row in await reader.known_ids(ids)}
        bodies = await _bodies(reader, set(held.values()))
    return [replace(told, known=_is_known(told, held, bodies)) for told in batch]


async def _bodies(reader: LedgerReader, positions: set[int]) -> dict[int, bytes | None]:
    """The bodies at these positions; those that follow each other, as they do in a file, at once."""
    found: dict[int, bytes | None] = {}
    for _, run in groupby(enumerate(sorted(positions)), lambda at: at[1] - at[0]):
        first, *others = [position for _, position in run]
        found |= {row["position"]: row["body"] for row in await reader.deliveries(first - 1, 1 + len(others))}
    return found


def _is_known(told: Told, held: dict[EventKey, int], bodies: dict[int, bytes | None]) -> bool:
    for event in told.incoming.events:
        position = held.get((event.processor, event.account, event.event_id))
        if position is not None:
            body = bodies.get(position)
            return body is None or _version(body) != _version(told.incoming.body)
    return False


def _version(body: bytes) -> str | None:
    try:
        return _RENDERED.decode(body).api_version
    except NO_JSON:
        return None

"""Stripe's events in files from its API, its command line or its dashboard."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from msgspec import Raw, json

from handlers.stripe import PROCESSOR
from service.core.delivery import ModeOf, Proof
from service.core.rfc8259 import NOT_JSON, parse_json
from service.intake.translation import read_delivery
from service.transfer.importer import ImportItem, LineFault
from service.transfer.json_members import read_members
from service.transfer.sources import JSON_ERRORS, ImportSource

_FIELDS = json.Decoder(dict[str, Raw])
_NULL = Raw(b"null")


def read_events(
    source: ImportSource, now: datetime, account: str, mode_of: ModeOf
) -> Iterator[ImportItem | LineFault]:
    """Each event of a file of events, or of pages of events.

    `account` is the connected account to which they belong. The webhooks of a platform contain it, but a
    list requested in the account's name doesn't. `mode_of` is that of `read_delivery`.
    """
    proof = Proof(processor=PROCESSOR.name, method="import", received_at=now, trust="unsigned")
    for item in read_members(source, "data"):
        if isinstance(item, LineFault):
            yield item
            continue
        line, body = item
        body_with_account = _add_account(body, account) if account else body
        yield ImportItem(
            line=line, incoming=read_delivery(PROCESSOR, b"{}", body_with_account, proof, mode_of)
        )


def _add_account(body: bytes, account: str) -> bytes:
    """An event as in the platform's webhooks: with its account, if it contains none."""
    try:
        fields = _FIELDS.decode(body)
    except JSON_ERRORS:
        fields = _parse_fields(body)
    if not fields or fields.get("account", _NULL) != _NULL:
        return body
    return json.encode({**fields, "account": account})


def _parse_fields(body: bytes) -> dict[str, Any]:
    """The fields of JSON that msgspec refuses; none if it is no JSON object."""
    try:
        parsed = parse_json(body)
    except NOT_JSON:
        return {}
    return parsed if isinstance(parsed, dict) else {}

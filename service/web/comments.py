"""What customers wrote when they cancelled: personal, so it is in no book and comes from the ledger."""

from collections.abc import Iterable
from typing import Any

from msgspec import json

from service.core.events import Subscription
from service.intake.revisions import read_revisions
from service.web.state import State

_CauseKey = tuple[str, str]  # an event's name in `causes`, and its account


async def with_comments(document: bytes, rows: str, state: State) -> bytes:
    """An answer in JSON, with the `comment` of each row of its list `rows` that has `reason_causes`."""
    answer: dict[str, Any] = json.decode(document)
    explained = [row for row in answer.get(rows, []) if row["reason_causes"]]
    if not explained:
        return document
    comments = await _read_comments({cause for row in explained for cause in row["reason_causes"]}, state)
    for row in explained:
        found = (comments.get((cause, row["account"])) for cause in row["reason_causes"])
        row["comment"] = "; ".join(dict.fromkeys(filter(None, found))) or None
    return json.encode(answer)


async def _read_comments(causes: Iterable[str], state: State) -> dict[_CauseKey, str | None]:
    """The comments in the events of these names; none of an erased customer."""
    async with state.ledger.reading() as reader:
        known = await read_revisions(reader, {cause.partition(":")[2] for cause in causes})
    events = [revisions.effective.event for revisions in known.values() if revisions.effective]
    return {
        (event.cause, event.account): event.data.cancellation_comment
        for event in events
        if isinstance(event.data, Subscription)
    }

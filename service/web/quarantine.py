"""Quarantine as a read: deliveries that could not be recorded, and why; bodies only in the detail."""

from typing import Annotated, Any, Literal

from msgspec import Struct
from starlette.routing import Route

from service.core.errors import ParameterError
from service.core.scopes import FIGURES, PEOPLE
from service.intake import quarantine
from service.reads.answers import Moment, NextCursor, Processor, about, moment, or_null
from service.reads.parameters import choice, cursor, integer, text, to_cursor
from service.reads.read import Read
from service.web.ledger import Headers, RawBody, RawBodyBase64, VerificationJson
from service.web.reads import Found, ReadQuery, found_in_ledger, read_route
from service.web.state import State

_ERASED = "once its customer was erased"
_FILE_DELIVERIES = 10_000
_SET_ASIDE = 1_000  # histories a page


class Quarantined(Struct, frozen=True, kw_only=True):
    """A delivery in quarantine."""

    id: Annotated[int, about("its number in quarantine")]
    received_at: Annotated[Moment, moment("when it came")]
    processor: Processor
    reason: Annotated[Literal["unreadable", "conflict", "malformed"], about("why it is there")]
    detail: Annotated[str, about("the same for people, without what it holds")]
    conflicts_with: Annotated[
        int | None, about("the position of the event that it contradicts; null for no conflict")
    ]
    status: Annotated[
        Literal["open", "retried", "dismissed"], about("whether it waits, or how it was settled")
    ]
    settled_at: Annotated[Moment | None, or_null(moment("when it was settled"), "while it waits")]
    settled_because: Annotated[str | None, about("why it was dismissed; null where it was not")]


class SetAsideHistory(Struct, frozen=True, kw_only=True):
    """A history of which the last events are not read."""

    history: Annotated[str, about('its name: "subscription|stripe||sub_1"')]
    set_aside_at: Annotated[Moment, moment("when it was set aside")]
    book: Annotated[str, about("the book that could not be made from it")]
    error: Annotated[str, about("the type of the error")]
    up_to: Annotated[int, about("the ledger position up to which it is read")]
    position: Annotated[int, about("that of the event that says so")]


class Quarantine(Struct, frozen=True, kw_only=True):
    """A page of quarantine, and the histories that are set aside."""

    quarantine: Annotated[list[Quarantined], about("one page, by id")]
    set_aside: Annotated[
        list[SetAsideHistory],
        about(f"the first {_SET_ASIDE:,} after `set_aside_after`, by name, on each page of quarantine"),
    ]
    next_cursor: NextCursor
    next_set_aside_after: Annotated[
        str | None, about("`set_aside_after` for more of `set_aside`; null if there are none")
    ]


class Difference(Struct, frozen=True, kw_only=True):
    """A field in which a delivery contradicts what was recorded."""

    field: Annotated[str, about('which field of the JSON, such as "data.items[0].quantity"')]
    before: Annotated[Any, about("what was recorded; null where it has no such field")]
    after: Annotated[Any, about("what is here; null where it has no such field")]


class QuarantinedDelivery(Quarantined, frozen=True, kw_only=True):
    """A delivery in quarantine with its body."""

    headers: Headers
    verification: VerificationJson
    raw_body: Annotated[
        RawBody | None, about(f"the body as it came; what is not UTF-8 is replaced; null {_ERASED}")
    ]
    raw_body_base64: Annotated[
        RawBodyBase64 | None, about(f"the body's bytes exactly, in base64; null {_ERASED}")
    ]
    differences: Annotated[
        list[Difference] | None,
        about(
            "of a conflict: what it says otherwise than what was recorded; "
            "null where there is nothing to compare it with"
        ),
    ]


QUARANTINE = Read(
    path="/api/v1/quarantine",
    summary="What was proved and could not be recorded, a page at a time",
    shape=Quarantine,
    rows="quarantine",
    parameters=(
        choice("status", "open", ("open", "all"), "those that wait, or those that were settled, too"),
        text("processor", "only of this processor"),
        text("reason", "only for this reason"),
        integer("limit", lambda _: 100, 1, 1000, "deliveries a page"),
        cursor(),
        text("set_aside_after", "of the histories that are set aside those after this name"),
    ),
)
DELIVERY = Read(
    path="/api/v1/quarantine/{id}",
    summary="One of them with its body",
    shape=QuarantinedDelivery,
    scopes=(FIGURES, PEOPLE),
)


def quarantine_routes() -> list[Route]:
    """GET routes under /api/v1/quarantine."""
    return [read_route(QUARANTINE, _list), read_route(DELIVERY, _delivery)]


async def _list(query: ReadQuery, state: State) -> Found:
    args = query.args
    limit = args["limit"] or _FILE_DELIVERIES
    async with state.ledger.reading() as reader:
        rows = await reader.quarantine_entries(
            _parse_number("cursor", args["cursor"] or "0"),
            limit + 1,
            settled=args["status"] == "all",
            processor=args["processor"],
            reason=args["reason"],
        )
        histories = await reader.set_aside_subjects(args["set_aside_after"] or "", _SET_ASIDE + 1)
    if args["limit"] is None and len(rows) > limit:
        raise ParameterError(
            f"limit: quarantine is longer than a file of {_FILE_DELIVERIES:,} deliveries; ask for pages of "
            "at most 1000"
        )
    page = [Quarantined(**quarantine.list_entry(row)) for row in rows[:limit]]
    next_cursor = to_cursor(str(page[-1].id)) if len(rows) > len(page) else None
    set_aside = [SetAsideHistory(**quarantine.set_aside_entry(found)) for found in histories[:_SET_ASIDE]]
    answer = Quarantine(
        quarantine=page,
        set_aside=set_aside,
        next_cursor=next_cursor,
        next_set_aside_after=set_aside[-1].history if len(histories) > _SET_ASIDE else None,
    )
    return await found_in_ledger(answer, query, state)


async def _delivery(query: ReadQuery, state: State) -> Found:
    number = _parse_number("id", query.args["id"])
    async with state.ledger.reading() as reader:
        document = await quarantine.read_document(reader, number)
    return await found_in_ledger(QuarantinedDelivery(**document), query, state)


def _parse_number(name: str, given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise ParameterError(f"{name}: a whole number as `/api/v1/quarantine` gives it")
    return int(given)

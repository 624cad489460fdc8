"""The ledger's own reads: its head, its events, and the events that caused a row."""

import base64
from typing import Annotated, Any

from msgspec import Raw, Struct
from msgspec.structs import asdict
from starlette.routing import Route

from service.core.errors import Integrity, NotFound, ParameterError
from service.core.events import SUPERSEDED_SUFFIX
from service.core.moments import from_us, rfc3339
from service.core.scopes import FIGURES, PEOPLE
from service.ledger.reader import LedgerReader
from service.reads.answers import Account, Moment, Processor, Trust, about, moment, or_null
from service.reads.parameters import integer
from service.reads.personal import DATA_OF_EVENT
from service.reads.read import Read
from service.web.reads import Found, ReadQuery, found_in_ledger, read_route
from service.web.state import State

_FILE_EVENTS = 10_000  # of the log, in a file
_PAGE_BYTES = 1 << 20  # of the data of its events
_FILE_BYTES = 16 << 20
_ANY_BYTES = 2**62
_EVENTS_AT_ONCE = 250  # some milliseconds
_DIGEST = "SHA-256 in hexadecimal"
RawBody = Annotated[str, about("the body as it came; what is not UTF-8 is replaced")]
RawBodyBase64 = Annotated[str, about("the body's bytes exactly, in base64", {"contentEncoding": "base64"})]
Headers = Annotated[
    Raw,
    about("what it was signed with", {"type": "object", "additionalProperties": {"type": "string"}}),
]
VerificationJson = Annotated[
    Raw, about("what was proved of it", {"$ref": "#/components/schemas/Verification"})
]


class Verification(Struct, frozen=True, kw_only=True):
    """What was proved of a delivery, as the ledger keeps it."""

    processor: Processor
    method: Annotated[str, about("stripe-signature, standard-webhooks, url-token, fetch or import")]
    received_at: Annotated[Moment, moment("when it came")]
    trust: Trust
    message_id: Annotated[
        str | None,
        about(
            "the signed id of the message; of an object that was observed that of its event; "
            "null where there is none"
        ),
    ]
    signed_at: Annotated[Moment | None, or_null(moment("the signed time"), "where the method signs none")]
    secret: Annotated[
        int | None,
        about("which of the configured secrets matched, from 1; null where none is used"),
    ]
    confirmable: Annotated[bool, about("whether a fetch from the processor will confirm it")]
    account: Annotated[
        str, about("the account of which an object was observed; empty for the key's own, and else")
    ]


class LedgerHead(Struct, frozen=True, kw_only=True):
    """Where the ledger ends."""

    position: Annotated[int, about("the last position; 0 when the ledger is empty")]
    digest: Annotated[str, about(f"{_DIGEST}: the chain's link, over this row and the link before")]


class LedgerEvent(Struct, frozen=True, kw_only=True):
    """An event of the ledger."""

    position: Annotated[int, about("its position, from 1")]
    cause: Annotated[str, about('its name in `causes`, such as "stripe:evt_1"')]
    processor: Processor
    account: Account
    event_id: Annotated[str, about("the event's id, unique within processor and account")]
    type: Annotated[str, about("the event's type in the ledger's words")]
    occurred_at: Annotated[Moment, moment("when it happened")]
    recorded_at: Annotated[Moment, moment("when it was recorded")]
    rank: Annotated[int, about("orders the events of one moment: how far along its life the thing is")]
    trust: Trust
    data: Annotated[
        Raw,
        DATA_OF_EVENT,
        about(
            "the state after it happened, in the ledger's words; "
            "without the scope `people` names and e-mail addresses in it are null",
            {"type": "object"},
        ),
    ]
    before: Annotated[
        Raw,
        DATA_OF_EVENT,
        about(
            "the state before it happened, as `data`; null where the processor does not send it",
            {"type": ["object", "null"]},
        ),
    ]
    content_digest: Annotated[str, about(f"{_DIGEST} of the body without what a redelivery may change")]
    delivery: Annotated[int, about("position of the first event of the delivery that it came in")]
    digest: Annotated[str, about(f"{_DIGEST}: the chain's link, over this row and the link before")]


class LedgerEvents(Struct, frozen=True, kw_only=True):
    """A page of the log."""

    events: Annotated[list[LedgerEvent], about("one page, by position")]
    next_after: Annotated[int | None, about("`after` of the next page; null at the end")]
    head: Annotated[int, about("the ledger's last position")]


class DeliveredEvent(LedgerEvent, frozen=True, kw_only=True):
    """An event with the delivery that it came in."""

    superseded_by: Annotated[
        str | None,
        about(
            "the name of the event that says that this one counts no more, and what does in its place; "
            "null where it counts"
        ),
    ]
    raw_body: RawBody
    raw_body_base64: RawBodyBase64
    headers: Headers
    verification: VerificationJson


HEAD = Read(
    path="/api/v1/ledger/head",
    summary="The last position and the chain's digest there",
    shape=LedgerHead,
)
EVENTS = Read(
    path="/api/v1/ledger/events",
    summary="The log, a page at a time",
    shape=LedgerEvents,
    rows="events",
    parameters=(
        integer("after", lambda _: 0, 0, 2**62, "events after this position"),
        integer("limit", lambda _: 100, 1, 1000, "events a page, fewer where their data are over 1 MiB"),
    ),
)
EVENT = Read(
    path="/api/v1/ledger/events/{position}",
    summary="One event with its delivery",
    shape=DeliveredEvent,
    scopes=(FIGURES, PEOPLE),
)
CAUSE = Read(
    path="/api/v1/ledger/causes/{cause}",
    summary="What caused a row, to its bytes",
    shape=DeliveredEvent,
    scopes=(FIGURES, PEOPLE),
)


def ledger_routes() -> list[Route]:
    """GET routes under /api/v1/ledger."""
    return [
        read_route(HEAD, _head),
        read_route(EVENTS, _events),
        read_route(EVENT, _event),
        read_route(CAUSE, _cause),
    ]


async def _head(query: ReadQuery, state: State) -> Found:
    async with state.ledger.reading() as reader:
        head = await reader.head()
    return await found_in_ledger(LedgerHead(position=head.position, digest=head.digest.hex()), query, state)


async def _events(query: ReadQuery, state: State) -> Found:
    after, account = query.args["after"], query.scope.account
    limit, most_bytes = query.args["limit"] or _FILE_EVENTS, _PAGE_BYTES
    if query.args["limit"] is None:
        most_bytes = _FILE_BYTES
    async with state.ledger.reading() as reader:
        size = await reader.page_size(after, limit, account, most_bytes)
        more = await reader.page_size(after, size + 1, account, _ANY_BYTES) > size
        if query.args["limit"] is None and more:
            raise ParameterError(
                f"limit: the log is over {_FILE_EVENTS:,} events or {_FILE_BYTES >> 20} MiB, too long for a "
                "file; ask for pages of at most 1000, or write it with `daybook export ledger`"
            )
        events = await _read_events(reader, after, size, account)
        head = (await reader.head()).position
    next_after = events[-1].position if more else None
    return await found_in_ledger(LedgerEvents(events=events, next_after=next_after, head=head), query, state)


async def _read_events(
    reader: LedgerReader, after: int, count: int, account: str | None
) -> list[LedgerEvent]:
    """So many events after a position, piece by piece: many at once would keep the event loop."""
    events: list[LedgerEvent] = []
    while len(events) < count:
        after = events[-1].position if events else after
        rows = await reader.rows(after, min(_EVENTS_AT_ONCE, count - len(events)), account)
        events += map(_listed, rows)
    return events


async def _event(query: ReadQuery, state: State) -> Found:
    text = query.args["position"]
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ParameterError("position: a whole number from 1")
    async with state.ledger.reading() as reader:
        event = await _delivered(reader, int(text), query.scope.account)
    return await found_in_ledger(event, query, state)


async def _cause(query: ReadQuery, state: State) -> Found:
    cause = query.args["cause"]
    processor, _, event_id = cause.partition(":")
    if not cause.isprintable():  # every id is printable, and PostgreSQL takes no NUL
        raise NotFound("the ledger holds no such event")
    async with state.ledger.reading() as reader:
        position = await reader.find_effective(processor, event_id, query.scope.account)
        if position is None:
            raise NotFound("the ledger holds no such event")
        event = await _delivered(reader, position)
    return await found_in_ledger(event, query, state)


async def _delivered(reader: LedgerReader, position: int, account: str | None = None) -> DeliveredEvent:
    """One event with the raw bytes of its delivery, their headers and the proof."""
    rows = await reader.rows(position - 1, 1, account) if 0 < position < 2**62 else []
    if not rows or rows[0]["position"] != position:
        raise NotFound(f"the ledger holds no position {position}")
    try:
        delivery = await reader.delivery(rows[0]["delivery"])
    except Integrity as error:  # an operator may have moved old ones away
        raise NotFound(str(error)) from None
    return DeliveredEvent(
        **asdict(_listed(rows[0])),
        superseded_by=await _superseded_by(reader, rows[0]),
        raw_body=delivery["body"].decode("utf-8", "replace"),
        raw_body_base64=base64.b64encode(delivery["body"]).decode(),
        headers=Raw(delivery["headers"]),
        verification=Raw(delivery["proof"]),
    )


async def _superseded_by(reader: LedgerReader, row: dict[str, Any]) -> str | None:
    """The cause of the event that supersedes this one, if there is one."""
    event_id = row["event_id"] + SUPERSEDED_SUFFIX
    position = await reader.find_position(row["processor"], event_id, row["account"])
    return f"{row['processor']}:{event_id}" if position else None


def _listed(row: dict[str, Any]) -> LedgerEvent:
    return LedgerEvent(
        position=row["position"],
        cause=f"{row['processor']}:{row['event_id']}",
        processor=row["processor"],
        account=row["account"],
        event_id=row["event_id"],
        type=row["type"],
        occurred_at=rfc3339(from_us(row["occurred_at_us"])),
        recorded_at=rfc3339(from_us(row["recorded_at_us"])),
        rank=row["rank"],
        trust=row["trust"],
        data=Raw(row["data"]),
        before=Raw(row["before"] or b"null"),
        content_digest=row["content_digest"].hex(),
        delivery=row["delivery"],
        digest=row["digest"].hex(),
    )

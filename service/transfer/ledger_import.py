"""Import of an exported ledger: deliveries posted there are translated again, others taken as exported."""

from collections.abc import Iterator, Sequence
from hashlib import sha256

from msgspec import DecodeError, json
from msgspec.structs import replace

from handlers.standard.translation import normalize
from service.core.delivery import ModeOf, Processor, Proof
from service.core.errors import Unreadable
from service.core.events import TYPES, Event, Superseded, histories_of, original_id
from service.core.limits import check_limits
from service.core.rfc8259 import NOT_JSON, parse_json
from service.intake.translation import can_read_again, content_digest, processor_of, read_delivery, renderer
from service.ledger.draft import EventKey, Incoming
from service.ledger.history import READING_TYPES
from service.ledger.store import Ledger
from service.transfer import ledger_format
from service.transfer.importer import ImportItem, LineFault
from service.transfer.sources import JSON_ERRORS, ImportSource

# Methods of deliveries that are translated again. The others were fetched, or made by Daybook itself.
_RENDERED = "event.rendered"
_OWN_TYPES = (
    "customer.erased",
    "event.superseded",
    "ledger.loss_accepted",
    *READING_TYPES,
    _RENDERED,
)  # made by Daybook, never by a translator
_LINE = json.Decoder(ledger_format.ExportLine)
_PART = json.Decoder[ledger_format.ExportPart](ledger_format.ExportPart)
_HEADERS = json.Decoder(dict[str, str])
_DATA = {name: json.Decoder(kind) for name, kind in TYPES.items()}
_COMPARED_FIELDS = ("type", "occurred_at", "rank", "trust", "data", "before")


def read_ledger(source: ImportSource, mode_of: ModeOf) -> Iterator[ImportItem | LineFault]:
    """Each delivery of an export, until its end or the first line that was changed.

    `mode_of` is that of `read_delivery`.
    """
    previous, line = ledger_format.GENESIS, 0
    for line, text in source.lines():
        try:
            export_line = _LINE.decode(text)
        except JSON_ERRORS:
            yield LineFault(
                line=line, detail="it is no line of an exported ledger; nothing after it was taken"
            )
            return
        previous = ledger_format.chain_digest(previous, export_line.part)
        if export_line.digest != previous.hex():
            yield LineFault(line=line, detail="it is not what was exported; nothing after it was taken")
            return
        try:
            part = _PART.decode(export_line.part)
            if isinstance(part, ledger_format.ExportedDelivery | ledger_format.ExportedQuarantine):
                yield _import_item(part, line, mode_of)
        except (Unreadable, *JSON_ERRORS) as error:
            yield LineFault(line=line, detail=f"another Daybook exported what can't be read here: {error}")
            continue
        if isinstance(part, ledger_format.ExportEnd):
            return
        if isinstance(part, ledger_format.ExportBegin) and part.version > ledger_format.VERSION:
            yield LineFault(
                line=line, detail=f"its format is {part.version}; {ledger_format.VERSION} is known here"
            )
            return
    yield LineFault(line=line + 1, detail="the last line of an export is missing: the file was cut")


def _import_item(
    part: ledger_format.ExportedDelivery | ledger_format.ExportedQuarantine, line: int, mode_of: ModeOf
) -> ImportItem:
    """The import item of a line. Raises Unreadable, or one of JSON_ERRORS, if it can't be read here."""
    _HEADERS.decode(part.headers)
    if not part.proof.processor.isprintable():
        raise Unreadable("no processor has its name")
    return (
        _delivery_item(part, line, mode_of)
        if isinstance(part, ledger_format.ExportedDelivery)
        else _quarantine_item(part, line, mode_of)
    )


def _delivery_item(part: ledger_format.ExportedDelivery, line: int, mode_of: ModeOf) -> ImportItem:
    """A delivery as translated here, if that gives all its exported events; else with its exported events.

    Of another telling of an event the translation is enough: the ledger makes the rest from it.
    """
    translated, place = _translate(part, mode_of), f"position {part.events[0].position}"
    if translated and translated.events and any(event.type == _RENDERED for event in part.events):
        return ImportItem(line=line, incoming=translated)
    if translated and {_key(event) for event in part.events} <= {_key(event) for event in translated.events}:
        notes = tuple(_difference_notes(place, part.events, translated.events))
        return ImportItem(line=line, incoming=translated, notes=notes, differences=len(notes))
    lacks_event = translated is not None and not any(event.type in _OWN_TYPES for event in part.events)
    return ImportItem(
        line=line,
        incoming=_as_exported(part, translated),
        notes=(f"{place}: translated here it lacks an event that it had; taken as it was",)
        if lacks_event
        else (),
        differences=int(lacks_event),
        as_exported=True,
    )


def _translate(
    part: ledger_format.ExportedDelivery | ledger_format.ExportedQuarantine, mode_of: ModeOf
) -> Incoming | None:
    """A delivery as its translator reads it today; None if it has no translator or no body."""
    processor = processor_of(part.proof.processor)
    if processor is None or part.body is None or not _is_read_here(processor, part.proof):
        return None
    return read_delivery(processor, part.headers, part.body, part.proof, mode_of)


def _is_read_here(processor: Processor, proof: Proof) -> bool:
    """Whether a delivery is translated here; of what was fetched, the events are those that it had."""
    return proof.method != "fetch" and can_read_again(processor, proof)


def _decode_event(exported: ledger_format.ExportedEvent) -> Event:
    """An event as it was exported. Raises Unreadable if its type or data are unknown here."""
    decoder = _DATA.get(exported.type)
    if decoder is None:
        raise Unreadable(f"position {exported.position}: {exported.type} is no type that is known here")
    try:
        return Event(
            processor=exported.processor,
            account=exported.account,
            event_id=exported.event_id,
            occurred_at=exported.occurred_at,
            rank=exported.rank,
            trust=exported.trust,
            data=decoder.decode(exported.data),
            before=None
            if exported.before == ledger_format.NULL
            else json.encode(decoder.decode(exported.before)),
        )
    except DecodeError as error:
        raise Unreadable(f"position {exported.position}: {error}") from None


def _check_event(event: Event) -> Event:
    """The event itself. Raises Unreadable if the books could not hold it."""
    normalize(event.data, "$.data")
    normalize(event.occurred_at, "$.occurred_at")
    return check_limits(event)


def _key(event: Event | ledger_format.ExportedEvent) -> EventKey:
    return event.processor, event.account, event.event_id


def _difference_notes(
    place: str, exported_events: Sequence[ledger_format.ExportedEvent], translated_events: Sequence[Event]
) -> Iterator[str]:
    by_key = {_key(event): event for event in translated_events}
    for exported in exported_events:
        translated = by_key[_key(exported)]
        try:
            before = _decode_event(exported)
            fields = [name for name in _COMPARED_FIELDS if getattr(before, name) != getattr(translated, name)]
        except Unreadable:
            fields = ["data"]
        if fields:
            yield f"{place}: {translated.cause} is translated otherwise here: {', '.join(fields)}"


def _as_exported(part: ledger_format.ExportedDelivery, translated: Incoming | None) -> Incoming:
    body, processor = part.body or b"", processor_of(part.proof.processor)
    if len({_key(event) for event in part.events}) < len(part.events):
        raise Unreadable(f"position {part.events[0].position}: an event is told twice")
    events = [_decode_event(event) for event in part.events]
    others = [*events, *(translated.events if translated else ())]
    return Incoming(
        events=[_check_event(_with_histories(event, others)) for event in events],
        content_digest=_content_digest(processor, body),
        headers=part.headers,
        body=body,
        proof=part.proof,
        render=renderer(processor) if processor else None,
    )


def _with_histories(event: Event, others: Sequence[Event]) -> Event:
    """A marker with all histories to which its event belongs here, perhaps more than where it comes from."""
    if not isinstance(event.data, Superseded):
        return event
    known = dict.fromkeys(event.data.histories)
    for other in others:
        if original_id(other.event_id) == original_id(event.event_id):
            known |= dict.fromkeys(histories_of(other.data))
    return replace(event, data=replace(event.data, histories=tuple(known)))


def _content_digest(processor: Processor | None, body: bytes) -> bytes:
    """The content digest of a body, the same as if it came as a webhook."""
    try:
        return content_digest(parse_json(body), processor) if processor else sha256(body).digest()
    except NOT_JSON:
        return sha256(body).digest()


def _quarantine_item(part: ledger_format.ExportedQuarantine, line: int, mode_of: ModeOf) -> ImportItem:
    """A delivery from quarantine, translated again if possible; else for quarantine as it was."""
    incoming = _translate(part, mode_of)
    if incoming is None:
        incoming = Incoming(
            events=(),
            content_digest=sha256(part.body).digest(),
            headers=part.headers,
            body=part.body,
            proof=part.proof,
            reason=part.reason,
            detail=part.detail,
        )
    dismissed = (f"dismissed there: {part.settled_because}",) if part.settled_as == "dismissed" else ()
    return ImportItem(line=line, incoming=incoming, notes=dismissed)


async def skip_known(ledger: Ledger, batch: Sequence[ImportItem]) -> list[ImportItem]:
    """Leave out the known events of deliveries taken as exported.

    Their content digests need not match the recorded ones, so the ledger can't recognise them itself.
    """
    ids = [event.event_id for item in batch if item.as_exported for event in item.incoming.events]
    async with ledger.reading() as reader:
        recorded_keys = {(row[1], row[2], row[0]) for row in await reader.known_ids(ids)} if ids else set()
    return [_without_known_events(item, recorded_keys) if item.as_exported else item for item in batch]


def _without_known_events(item: ImportItem, recorded_keys: set[EventKey]) -> ImportItem:
    events = [event for event in item.incoming.events if _key(event) not in recorded_keys]
    return replace(item, incoming=replace(item.incoming, events=events), is_known=not events)

"""Another Daybook's ledger: what was posted there is translated again, all else is taken as it was."""

from collections.abc import Iterator, Sequence
from hashlib import sha256

from msgspec import DecodeError, json
from msgspec.structs import replace

from handlers.standard import settled
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import TYPES, Event
from service.core.limits import check_limits
from service.intake.translation import content_digest, endpoint_of, read_delivery
from service.ledger.draft import EventKey, Incoming
from service.ledger.store import Ledger
from service.transfer import ledger_format
from service.transfer.importer import Fault, Told
from service.transfer.sources import NO_JSON, Source

# How what a translator reads came here. The rest was fetched, or done by Daybook itself.
TRANSLATED = ("stripe-signature", "standard-webhooks", "url-token", "import")
_OWN_TYPES = ("customer.erased", "event.superseded")  # no translator gives them
_LINE = json.Decoder(ledger_format.Line)
_PART = json.Decoder[ledger_format.Part](ledger_format.Part)
_HEADERS = json.Decoder(dict[str, str])
_DATA = {name: json.Decoder(kind) for name, kind in TYPES.items()}
_COMPARED = ("type", "occurred_at", "rank", "trust", "data", "before")


def read_ledger(source: Source) -> Iterator[Told | Fault]:
    """Each delivery of an export, until its end or a line that is not what was exported."""
    previous, line = ledger_format.GENESIS, 0
    for line, text in source.lines():
        try:
            read = _LINE.decode(text)
        except NO_JSON:
            yield Fault(line=line, detail="it is no line of an exported ledger; nothing after it was taken")
            return
        previous = ledger_format.digest_of(previous, read.part)
        if read.digest != previous.hex():
            yield Fault(line=line, detail="it is not what was exported; nothing after it was taken")
            return
        try:
            part = _PART.decode(read.part)
            if isinstance(part, ledger_format.Delivery | ledger_format.Quarantined):
                yield _told(part, line)
        except (Unreadable, *NO_JSON) as error:
            yield Fault(line=line, detail=f"another Daybook exported what can't be read here: {error}")
            continue
        if isinstance(part, ledger_format.End):
            return
        if isinstance(part, ledger_format.Begin) and part.version > ledger_format.VERSION:
            yield Fault(
                line=line, detail=f"its format is {part.version}; {ledger_format.VERSION} is known here"
            )
            return
    yield Fault(line=line + 1, detail="the last line of an export is missing: the file was cut")


def _told(part: ledger_format.Delivery | ledger_format.Quarantined, line: int) -> Told:
    """What a line tells. Raises Unreadable, or one of NO_JSON, if that can't be read here."""
    _HEADERS.decode(part.headers)
    if not part.proof.processor.isprintable():
        raise Unreadable("no processor has its name")
    return _delivery(part, line) if isinstance(part, ledger_format.Delivery) else _quarantined(part, line)


def _delivery(part: ledger_format.Delivery, line: int) -> Told:
    """As it is translated here, if that gives all the events that it gave there; else as it was there."""
    again, where = _again(part), f"position {part.events[0].position}"
    if again and {_key(event) for event in part.events} <= {_key(event) for event in again.events}:
        notes = tuple(_differences(where, part.events, again.events))
        return Told(line=line, incoming=again, notes=notes, differences=len(notes))
    lost = again is not None and not any(event.type in _OWN_TYPES for event in part.events)
    return Told(
        line=line,
        incoming=_as_it_was(part),
        notes=(f"{where}: translated here it lacks an event that it had; taken as it was",) if lost else (),
        differences=int(lost),
        on_trust=True,
    )


def _again(part: ledger_format.Delivery | ledger_format.Quarantined) -> Incoming | None:
    """A delivery as its translator reads it today; None where it has none, or nobody can read it any more."""
    endpoint = endpoint_of(part.proof.processor)
    if endpoint is None or part.body is None or part.proof.method not in TRANSLATED:
        return None
    return read_delivery(endpoint, part.headers, part.body, part.proof)


def _event(told: ledger_format.Event) -> Event:
    """An event as it was translated. Raises Unreadable if there is none such here."""
    decoder = _DATA.get(told.type)
    if decoder is None:
        raise Unreadable(f"position {told.position}: {told.type} is no type that is known here")
    try:
        return Event(
            processor=told.processor,
            account=told.account,
            event_id=told.event_id,
            occurred_at=told.occurred_at,
            rank=told.rank,
            trust=told.trust,
            data=decoder.decode(told.data),
            before=None if told.before == ledger_format.NULL else json.encode(decoder.decode(told.before)),
        )
    except DecodeError as error:
        raise Unreadable(f"position {told.position}: {error}") from None


def _checked(event: Event) -> Event:
    """The event itself. Raises Unreadable if no book could hold it."""
    settled(event.data, "$.data")
    settled(event.occurred_at, "$.occurred_at")
    return check_limits(event)


def _key(event: Event | ledger_format.Event) -> EventKey:
    return event.processor, event.account, event.event_id


def _differences(where: str, was: Sequence[ledger_format.Event], now: Sequence[Event]) -> Iterator[str]:
    by_key = {_key(event): event for event in now}
    for told in was:
        now_told = by_key[_key(told)]
        try:
            before = _event(told)
            fields = [name for name in _COMPARED if getattr(before, name) != getattr(now_told, name)]
        except Unreadable:
            fields = ["data"]
        if fields:
            yield f"{where}: {now_told.cause} is translated otherwise here: {', '.join(fields)}"


def _as_it_was(part: ledger_format.Delivery) -> Incoming:
    body = part.body or b""
    if len({_key(event) for event in part.events}) < len(part.events):
        raise Unreadable(f"position {part.events[0].position}: an event is told twice")
    return Incoming(
        events=[_checked(_event(event)) for event in part.events],
        content_digest=_content(part.proof, body),
        headers=part.headers,
        body=body,
        proof=part.proof,
    )


def _content(proof: Proof, body: bytes) -> bytes:
    """The digest of a body's content, as it is when it comes by another way."""
    endpoint = endpoint_of(proof.processor)
    try:
        return content_digest(json.decode(body), endpoint) if endpoint else sha256(body).digest()
    except NO_JSON:
        return sha256(body).digest()


def _quarantined(part: ledger_format.Quarantined, line: int) -> Told:
    """A delivery from quarantine, read once more; or into quarantine as it was."""
    again = _again(part)
    if again is None:
        again = Incoming(
            events=(),
            content_digest=sha256(part.body).digest(),
            headers=part.headers,
            body=part.body,
            proof=part.proof,
            reason=part.reason,
            detail=part.detail,
        )
    dismissed = (f"dismissed there: {part.settled_because}",) if part.settled_as == "dismissed" else ()
    return Told(line=line, incoming=again, notes=dismissed)


async def skip_known(ledger: Ledger, batch: Sequence[Told]) -> list[Told]:
    """Leave out the known events of what was taken as it was: by its content it can't be told again."""
    ids = [event.event_id for told in batch if told.on_trust for event in told.incoming.events]
    async with ledger.reading() as reader:
        held = {(row[1], row[2], row[0]) for row in await reader.known_ids(ids)} if ids else set()
    return [_unknown(told, held) if told.on_trust else told for told in batch]


def _unknown(told: Told, held: set[EventKey]) -> Told:
    events = [event for event in told.incoming.events if _key(event) not in held]
    return replace(told, incoming=replace(told.incoming, events=events), known=not events)

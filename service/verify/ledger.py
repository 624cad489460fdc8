"""The ledger's checks: each link of both chains, each raw delivery, both indexes, and all sealed texts."""

from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table, select, text, tuple_

from service.core.errors import Integrity
from service.core.events import Event, SetAside, subject, subjects
from service.core.progress import Advance, no_advance
from service.ledger import chain, tables
from service.ledger.append import read_head
from service.ledger.cursors import find_forged
from service.ledger.draft import Head
from service.ledger.history import EVENT_COLUMNS, READING_TYPES, to_event
from service.ledger.markers import subjects_of_markers
from service.ledger.reader import LedgerReader
from service.ledger.schema import NEWEST_REVISION, OLDEST_REVISION
from service.ledger.store import Ledger
from service.ledger.vault import StoredBody, Vault
from service.storage.statements import POSTGRESQL, any_of
from service.verify.fault import Fault, Location, differing_columns
from service.verify.quarantine import verify_quarantine
from service.verify.sealed import verify_keys, verify_sealed

_PAGE = 1_000
_ID_COLUMNS = ("event_id", "processor", "account", "position", "content_digest")

_events: Table = tables.Event.__table__  # type: ignore[attr-defined]
_ids: Table = tables.EventId.__table__  # type: ignore[attr-defined]
_subjects: Table = tables.Subject.__table__  # type: ignore[attr-defined]
_deliveries: Table = tables.Delivery.__table__  # type: ignore[attr-defined]
_set_aside: Table = tables.SetAsideHistory.__table__  # type: ignore[attr-defined]
_turn: Table = tables.Turn.__table__  # type: ignore[attr-defined]

_Row = dict[str, Any]


async def verify_chain(
    ledger: Ledger, advance: Advance = no_advance, add_names: Callable[[Iterable[str]], None] = lambda _: None
) -> int:
    """Compute each link, raw delivery's digest and index again, check quarantine, and unseal all texts.

    Returns the number of events. `advance` is called with the numbers of events as they are checked,
    `add_names` with the names of their histories. Raises Fault at the first fault.
    """
    head, indexed = Head(position=0, digest=chain.GENESIS), 0
    limits: dict[str, tuple[int, int]] = {}
    async with ledger.reading() as reader:
        while rows := await reader.stored_rows(head.position, _PAGE):
            head = await _verify_links(reader, head, rows)
            await verify_sealed(ledger, rows, await _verify_deliveries(reader, rows))
            await _verify_ids(reader, rows)
            entries = await ledger.read(partial(_expected_subjects, rows=rows))
            await _verify_subjects(reader, entries)
            indexed += len(entries)
            await _follow_limits(reader, rows, limits)
            add_names(name for name, _ in entries)
            advance(len(rows))
        await _verify_end(ledger, reader, head)
        await ledger.read(_verify_schema)
        await ledger.read(partial(_verify_cursors, vault=ledger.vault))
        await verify_quarantine(reader)
        await verify_keys(ledger, reader)
        await _verify_limits(reader, limits)
        await _verify_count(ledger, _ids, head.position, await reader.count_ids())
        await _verify_count(ledger, _subjects, indexed, await reader.count_subjects())
    return head.position


async def _verify_links(reader: LedgerReader, head: Head, rows: list[_Row]) -> Head:
    for row in rows:
        try:
            chain.check(head.digest, head.position + 1, row)
        except Integrity as error:
            moved = row["position"] != head.position + 1
            columns = () if moved else await _find_changed_columns(reader, head.digest, row)
            where = Location(table="events", position=head.position + 1, columns=columns)
            raise Fault(str(error), where) from None
        head = Head(position=row["position"], digest=row["digest"])
    return head


async def _find_changed_columns(reader: LedgerReader, previous: bytes, row: _Row) -> tuple[str, ...]:
    """The changed columns of a row, as far as the ledger holds their old values somewhere else, too."""
    position, link = row["position"], chain.link(previous, row)
    following = await reader.stored_rows(position, 1)
    if following and chain.link(link, following[0]) == following[0]["digest"]:
        return ("digest",)
    old_values: list[tuple[str, Any]] = [("delivery", position)]
    old_values += [("content_digest", known[4]) for known in await reader.known_ids([row["event_id"]])]
    if row["delivery"] == position:
        old_values.append(("delivery_digest", _digest_of(await reader.stored_delivery(position))))
    return tuple(
        name for name, value in old_values if chain.link(previous, {**row, name: value}) == row["digest"]
    )


def _digest_of(raw: _Row) -> bytes:
    return chain.delivery_digest(raw["headers"], raw["body"], raw["proof"])


async def _verify_deliveries(reader: LedgerReader, rows: list[_Row]) -> dict[int, StoredBody]:
    """Check the raw deliveries of these rows; by position, as they are stored."""
    expected = {row["position"]: row["delivery_digest"] for row in rows if row["delivery"] == row["position"]}
    deliveries = await reader.stored_deliveries(rows[0]["position"] - 1, len(expected) + 1)
    stored = {raw["position"]: raw for raw in deliveries if raw["position"] <= rows[-1]["position"]}
    for position in sorted(stored.keys() ^ expected.keys()):
        fault = "of no event" if position in stored else "missing"
        where = Location(table="deliveries", position=position)
        raise Fault(f"the raw delivery at position {position} is {fault}", where)
    for position, raw in stored.items():
        if _digest_of(raw) != expected[position]:
            where = Location(table="deliveries", position=position)
            raise Fault(f"the raw delivery at position {position} was changed", where)
    return {
        position: StoredBody(*(raw[name] for name in StoredBody._fields)) for position, raw in stored.items()
    }


def _expected_subjects(connection: Connection, rows: list[_Row]) -> set[tuple[str, int]]:
    """The entries that the events in these rows have in the index of histories."""
    events = [(row["position"], _event_of(row)) for row in rows]
    own = {(name, position) for position, event in events for name in subjects(event)}
    return own | subjects_of_markers(connection, events)


def _event_of(row: _Row) -> Event:
    """The event in a row. Raises Fault if it can't be read: whoever wrote it can write the chain, too."""
    try:
        return to_event([row[column.name] for column in EVENT_COLUMNS])
    except (ValueError, KeyError, TypeError, OverflowError):
        where = Location(table="events", position=row["position"])
        raise Fault(f"the event at position {row['position']} can't be read", where) from None


async def _verify_subjects(reader: LedgerReader, expected: set[tuple[str, int]]) -> None:
    if missing := expected - await reader.indexed_subjects({name for name, _ in expected}):
        name, position = min(missing, key=itemgetter(1, 0))
        where = Location(table="subjects", position=position, key=name)
        raise Fault(f"the index of histories lacks {name} at position {position}", where)


async def _follow_limits(reader: LedgerReader, rows: list[_Row], limits: dict[str, tuple[int, int]]) -> None:
    """Change `limits` as these rows say: up to where each history is read, and the row's position."""
    for row in rows:
        if row["type"] in READING_TYPES:
            event, position = _event_of(row), row["position"]
            data: Any = event.data
            name = subject(data.kind, event, data.key)
            limits.pop(name, None)
            if isinstance(data, SetAside):
                known = {key[1:3]: key[3] for key in await reader.known_ids([data.event_id])}
                first = known.get((event.processor, event.account), position)
                limits[name] = (min(first, position) - 1, position)


async def _verify_limits(reader: LedgerReader, expected: dict[str, tuple[int, int]]) -> None:
    stored = await reader.set_aside_limits()
    for name in sorted(
        name for name in stored.keys() | expected.keys() if stored.get(name) != expected.get(name)
    ):
        _, position = expected.get(name) or stored[name]
        where = Location(table="set_aside", position=position, key=name)
        raise Fault(f"how far {name} is read is not what the events say", where)


async def _verify_ids(reader: LedgerReader, rows: list[_Row]) -> None:
    expected = {tuple(row[name] for name in _ID_COLUMNS) for row in rows}
    stored = await reader.known_ids(row["event_id"] for row in rows)
    if missing := expected - stored:
        first = min(missing, key=itemgetter(3))
        columns = differing_columns(
            _ID_COLUMNS, [entry for entry in stored if entry[:3] == first[:3]], [first]
        )
        where = Location(table="event_ids", position=first[3], key=first[0], columns=columns)
        raise Fault(f"the index of ids lacks {first[0]} at position {first[3]}", where)


async def _verify_end(ledger: Ledger, reader: LedgerReader, head: Head) -> None:
    if await reader.head() != head or not await ledger.read(_has_one_turn_row):
        message = f"the ledger's head is not the event at position {head.position}"
        raise Fault(message, Location(table="turn", position=head.position))
    for position in await ledger.read(_positions_beyond_end):
        message = f"the raw delivery at position {position} is of no event"
        raise Fault(message, Location(table="deliveries", position=position))


def _verify_schema(connection: Connection) -> None:
    """Raise Fault if the ledger's schema is said to be another one, unless a newer Daybook made it."""
    revisions = list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    oldest = list(connection.execute(text("SELECT oldest FROM compatibility")).scalars())
    if len(revisions) == 1 and revisions[0] > NEWEST_REVISION:
        return
    for table, found, expected in (
        ("alembic_version", revisions, NEWEST_REVISION),
        ("compatibility", oldest, OLDEST_REVISION),
    ):
        if found != [expected]:
            message = f"the table {table} does not hold {expected}, but {', '.join(found) or 'nothing'}"
            raise Fault(message, Location(table=table))


def _verify_cursors(connection: Connection, vault: Vault) -> None:
    for name in find_forged(connection, vault):
        where = Location(table="cursors", key=name)
        raise Fault(f"the cursor {name} was not saved by a Daybook with this master key", where)


def _positions_beyond_end(connection: Connection) -> list[int]:
    """The positions of raw deliveries after the ledger's end, in one view of both."""
    query = select(_deliveries.c.position).where(_deliveries.c.position > read_head(connection).position)
    return list(connection.execute(query.order_by(_deliveries.c.position).limit(1)).scalars())


def _has_one_turn_row(connection: Connection) -> bool:
    """Whether the table `turn`, whose row appends lock, has one row; only PostgreSQL has the table."""
    if connection.dialect.name != POSTGRESQL:
        return True
    return list(connection.execute(select(_turn.c.id)).scalars()) == [1]


async def _verify_count(ledger: Ledger, index: Table, expected: int, actual: int) -> None:
    """Raise Fault if an index has more entries than expected: all expected ones were found before."""
    if expected == actual:
        return
    stray = await ledger.read(lambda connection: _find_stray_entry(connection, index)) or {}
    name = stray["event_id" if index is _ids else "subject"] if stray else None
    where = Location(table=str(index.name), position=stray.get("position"), key=name or None)
    kind = "ids" if index is _ids else "histories"
    suffix = f": {name}" if stray else ""
    raise Fault(f"the index of {kind} holds entries that no event makes{suffix}", where)


def _find_stray_entry(connection: Connection, index: Table) -> _Row | None:
    """The first entry of an index that does not belong to the event at its position."""
    keys = list(index.primary_key)
    query = select(index).order_by(*keys).limit(_PAGE)
    page = query
    while entries := [dict(row._mapping) for row in connection.execute(page)]:  # noqa: SLF001
        positions = [entry["position"] for entry in entries]
        events_query = select(_events).where(any_of(_events.c.position, "positions"))
        rows = connection.execute(events_query, {"positions": positions})
        events = {row.position: dict(row._mapping) for row in rows}  # noqa: SLF001
        for entry in entries:
            if not _is_entry_of(connection, events.get(entry["position"]), entry):
                return entry
        page = query.where(tuple_(*keys) > tuple_(*(entries[-1][key.name] for key in keys)))
    return None


def _is_entry_of(connection: Connection, event: _Row | None, entry: _Row) -> bool:
    if event is None:
        return False
    if "subject" in entry:
        return (entry["subject"], entry["position"]) in _expected_subjects(connection, [event])
    return all(event[name] == value for name, value in entry.items())

"""The ledger: every link of its chain, every raw delivery, both of its indexes, all that is sealed."""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table, select, tuple_

from service.core.errors import Integrity
from service.core.events import subjects
from service.ledger import chain, tables
from service.ledger.append import read_head
from service.ledger.draft import Head
from service.ledger.history import EVENT_COLUMNS, to_event
from service.ledger.store import Ledger, LedgerReader
from service.storage.statements import POSTGRESQL, any_of
from service.verify.fault import Fault, Where, differing
from service.verify.sealed import verify_keys, verify_sealed

Done = Callable[[int], None]

_PAGE = 1_000
_ID_COLUMNS = ("event_id", "processor", "account", "position", "content_digest")

_events: Table = tables.Event.__table__  # type: ignore[attr-defined]
_ids: Table = tables.EventId.__table__  # type: ignore[attr-defined]
_subjects: Table = tables.Subject.__table__  # type: ignore[attr-defined]
_deliveries: Table = tables.Delivery.__table__  # type: ignore[attr-defined]
_turn: Table = tables.Turn.__table__  # type: ignore[attr-defined]

_Row = dict[str, Any]


def quietly(_count: int) -> None:
    """Nobody watches."""


async def verify_chain(
    ledger: Ledger, done: Done = quietly, names: Callable[[Iterable[str]], None] = lambda _: None
) -> int:
    """Recompute every link, every raw delivery's digest and both indexes, and open what is sealed.

    How many events there are. `done` hears how many more were checked, `names` the subjects of each. Raises
    Fault at the first that is not as it should be.
    """
    head, indexed = Head(position=0, digest=chain.GENESIS), 0
    async with ledger.reading() as reader:
        while rows := await reader.stored_rows(head.position, _PAGE):
            head = await _verify_links(reader, head, rows)
            await verify_sealed(ledger, rows, await _verify_deliveries(reader, rows))
            await _verify_ids(reader, rows)
            found = _indexed(rows)
            await _verify_subjects(reader, found)
            indexed += len(found)
            names(name for name, _ in found)
            done(len(rows))
        await _verify_end(ledger, reader, head)
        await verify_keys(ledger, reader)
        await _verify_count(ledger, _ids, head.position, await reader.count_ids())
        await _verify_count(ledger, _subjects, indexed, await reader.count_subjects())
    return head.position


async def _verify_links(reader: LedgerReader, head: Head, rows: list[_Row]) -> Head:
    for row in rows:
        try:
            chain.check(head.digest, head.position + 1, row)
        except Integrity as error:
            moved = row["position"] != head.position + 1
            columns = () if moved else await _changed(reader, head.digest, row)
            where = Where(table="events", position=head.position + 1, columns=columns)
            raise Fault(str(error), where) from None
        head = Head(position=row["position"], digest=row["digest"])
    return head


async def _changed(reader: LedgerReader, previous: bytes, row: _Row) -> tuple[str, ...]:
    """The column that was changed, where the ledger says somewhere else, too, what it held."""
    position, link = row["position"], chain.link(previous, row)
    following = await reader.stored_rows(position, 1)
    if following and chain.link(link, following[0]) == following[0]["digest"]:
        return ("digest",)
    told: list[tuple[str, Any]] = [("delivery", position)]
    told += [("content_digest", each[4]) for each in await reader.known_ids([row["event_id"]])]
    if row["delivery"] == position:
        told.append(("delivery_digest", _digest_of(await reader.stored_delivery(position))))
    return tuple(name for name, value in told if chain.link(previous, {**row, name: value}) == row["digest"])


def _digest_of(raw: _Row) -> bytes:
    return chain.delivery_digest(raw["headers"], raw["body"], raw["proof"])


async def _verify_deliveries(reader: LedgerReader, rows: list[_Row]) -> dict[int, bytes]:
    """The bodies, as they are stored, by position."""
    expected = {row["position"]: row["delivery_digest"] for row in rows if row["delivery"] == row["position"]}
    found = await reader.stored_deliveries(rows[0]["position"] - 1, len(expected) + 1)
    stand = {raw["position"]: raw for raw in found if raw["position"] <= rows[-1]["position"]}
    for position in sorted(stand.keys() ^ expected.keys()):
        said = (
            f"the raw delivery at position {position} is {'of no event' if position in stand else 'missing'}"
        )
        raise Fault(said, Where(table="deliveries", position=position))
    for position, raw in stand.items():
        if _digest_of(raw) != expected[position]:
            where = Where(table="deliveries", position=position)
            raise Fault(f"the raw delivery at position {position} was changed", where)
    return {position: raw["body"] for position, raw in stand.items()}


def _indexed(rows: list[_Row]) -> set[tuple[str, int]]:
    return {(name, row["position"]) for row in rows for name in _subjects_of(row)}


def _subjects_of(row: _Row) -> list[str]:
    return subjects(to_event([row[column.name] for column in EVENT_COLUMNS]))


async def _verify_subjects(reader: LedgerReader, expected: set[tuple[str, int]]) -> None:
    if missing := expected - await reader.indexed_subjects({name for name, _ in expected}):
        name, position = min(missing, key=itemgetter(1, 0))
        where = Where(table="subjects", position=position, key=name)
        raise Fault(f"the index of histories lacks {name} at position {position}", where)


async def _verify_ids(reader: LedgerReader, rows: list[_Row]) -> None:
    expected = {tuple(row[name] for name in _ID_COLUMNS) for row in rows}
    stands = await reader.known_ids(row["event_id"] for row in rows)
    if missing := expected - stands:
        lost = min(missing, key=itemgetter(3))
        columns = differing(_ID_COLUMNS, [each for each in stands if each[:3] == lost[:3]], [lost])
        where = Where(table="event_ids", position=lost[3], key=lost[0], columns=columns)
        raise Fault(f"the index of ids lacks {lost[0]} at position {lost[3]}", where)


async def _verify_end(ledger: Ledger, reader: LedgerReader, head: Head) -> None:
    if await reader.head() != head or not await ledger.read(_is_one_turn):
        said = f"the ledger's head is not the event at position {head.position}"
        raise Fault(said, Where(table="turn", position=head.position))
    for position in await ledger.read(_delivered_beyond):
        said = f"the raw delivery at position {position} is of no event"
        raise Fault(said, Where(table="deliveries", position=position))


def _delivered_beyond(connection: Connection) -> list[int]:
    """The positions of raw deliveries after the ledger's end, in one view of both."""
    query = select(_deliveries.c.position).where(_deliveries.c.position > read_head(connection).position)
    return list(connection.execute(query.order_by(_deliveries.c.position).limit(1)).scalars())


def _is_one_turn(connection: Connection) -> bool:
    """Whether the row that those who append wait for is there once; only PostgreSQL has one."""
    if connection.dialect.name != POSTGRESQL:
        return True
    return list(connection.execute(select(_turn.c.id)).scalars()) == [1]


async def _verify_count(ledger: Ledger, index: Table, expected: int, found: int) -> None:
    """Every event has its entries: more of them than that belong to none."""
    if expected == found:
        return
    stray = await ledger.read(lambda connection: _stray(connection, index)) or {}
    named = f": {stray['event_id' if index is _ids else 'subject']}" if stray else ""
    where = Where(table=str(index.name), position=stray.get("position"), key=named[2:] or None)
    of = "ids" if index is _ids else "histories"
    raise Fault(f"the index of {of} holds entries that no event makes{named}", where)


def _stray(connection: Connection, index: Table) -> _Row | None:
    """The first entry of an index that its event does not make."""
    keys = list(index.primary_key)
    query = select(index).order_by(*keys).limit(_PAGE)
    page = query
    while entries := [dict(row._mapping) for row in connection.execute(page)]:  # noqa: SLF001
        at = [entry["position"] for entry in entries]
        found = connection.execute(select(_events).where(any_of(_events.c.position, "at")), {"at": at})
        events = {row.position: dict(row._mapping) for row in found}  # noqa: SLF001
        for entry in entries:
            if not _makes(events.get(entry["position"]), entry):
                return entry
        page = query.where(tuple_(*keys) > tuple_(*(entries[-1][key.name] for key in keys)))
    return None


def _makes(event: _Row | None, entry: _Row) -> bool:
    if event is None:
        return False
    if "subject" in entry:
        return entry["subject"] in _subjects_of(event)
    return all(event[name] == value for name, value in entry.items())

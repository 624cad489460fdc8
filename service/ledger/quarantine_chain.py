"""The digest chain of quarantine.

An entry of quarantine changes, unlike an event: it is settled, or an erasure empties its body. So its digest
is not in its own row. Each of its states adds a record, whose digest covers all columns of the entry and the
digest of the record before. The last record of an entry is the one that its row must agree with.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from service.core.errors import Integrity
from service.ledger import chain, tables
from service.storage.statements import HotInsert

Row = dict[str, Any]
Entry = Mapping[str, Any] | RowMapping

# Every column of an entry, and of a record but its own digest.
ENTRY_COLUMNS = tuple(
    """id received_at_us processor reason detail conflicts_with content_digest headers body proof
    settled_at_us settled_as settled_because""".split()
)
RECORD_COLUMNS = ("number", "entry", "entry_digest")

_records = tables.QuarantineRecord.__table__  # type: ignore[attr-defined]
_ADD_RECORDS = HotInsert(_records)


def digest_entry(entry: Entry) -> bytes:
    """The digest of an entry as it is stored, with its body sealed."""
    return chain.link(chain.GENESIS, dict(entry), ENTRY_COLUMNS)


def append_records(connection: Connection, entries: Iterable[Entry]) -> None:
    """Add a record for each of these entries, whole rows as they are from now on, in the order of their ids.

    One transaction at a time may do so: on PostgreSQL the caller holds the turn to append.
    """
    in_order = sorted(entries, key=lambda entry: int(entry["id"]))
    if not in_order:
        return
    number, digest = read_end(connection)
    rows = []
    for entry in in_order:
        number += 1
        record = {"number": number, "entry": entry["id"], "entry_digest": digest_entry(entry)}
        digest = chain.link(digest, record, RECORD_COLUMNS)
        rows.append((number, record["entry"], record["entry_digest"], digest))
    _ADD_RECORDS.add(connection, rows)


def read_end(connection: Connection) -> tuple[int, bytes]:
    """The number of the last record, and its digest; 0 and 32 zero bytes without one."""
    newest = select(_records.c.number, _records.c.digest).order_by(_records.c.number.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    return (row.number, row.digest) if row else (0, chain.GENESIS)


def check_entry(connection: Connection, entry: Entry) -> None:
    """Raise Integrity unless a stored entry is what its last record says, and that record follows its own."""
    newest = (
        select(_records).where(_records.c.entry == entry["id"]).order_by(_records.c.number.desc()).limit(1)
    )
    record = connection.execute(newest).mappings().one_or_none()
    if record is None:
        raise Integrity(f"quarantine, entry {entry['id']}: its chain does not hold it")
    before = select(_records.c.digest).where(_records.c.number == record["number"] - 1)
    previous = connection.execute(before).scalar_one_or_none() or chain.GENESIS
    check_record(previous, record["number"], dict(record))
    if record["entry_digest"] != digest_entry(entry):
        raise Integrity(f"quarantine, entry {entry['id']}: it is not what was put into quarantine")


def check_record(previous: bytes, expected_number: int, record: Row) -> None:
    """Raise Integrity if a record is not the next link of the chain."""
    if record["number"] != expected_number:
        raise Integrity(f"record {expected_number} of the chain of quarantine is missing")
    if chain.link(previous, record, RECORD_COLUMNS) != record["digest"]:
        raise Integrity(f"the chain of quarantine is broken at record {expected_number}")


def read_records(connection: Connection, after: int, limit: int) -> Sequence[Row]:
    """Up to `limit` records after a number."""
    query = select(_records).where(_records.c.number > after).order_by(_records.c.number).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]

"""Quarantine's checks: each link of its chain, and each entry against its last record."""

from service.core.errors import Integrity
from service.ledger import chain
from service.ledger.quarantine_chain import check_record, digest_entry
from service.ledger.reader import LedgerReader
from service.verify.fault import Fault, Location

_PAGE = 1_000


async def verify_quarantine(reader: LedgerReader) -> None:
    """Check every link, and every column of every entry. Raises Fault at the first that is not as it was."""
    expected = await _read_expected(reader)
    entry_id = 0
    while entries := await reader.stored_quarantine(entry_id, _PAGE):
        for entry in entries:
            entry_id = entry["id"]
            _raise_first_missing(expected, before=entry_id)
            if (digest := expected.pop(entry_id, None)) is None:
                raise _fault(entry_id, "its chain does not hold it")
            if digest != digest_entry(entry):
                raise _fault(entry_id, "it was changed")
    _raise_first_missing(expected, before=None)


async def _read_expected(reader: LedgerReader) -> dict[int, bytes]:
    """The last digest of each entry, by id. Raises Fault at the first broken link."""
    expected: dict[int, bytes] = {}
    number, digest = 0, chain.GENESIS
    while records := await reader.quarantine_records(number, _PAGE):
        for record in records:
            try:
                check_record(digest, number + 1, record)
            except Integrity as error:
                raise Fault(
                    str(error), Location(table="quarantine_chain", key=f"record {number + 1}")
                ) from None
            number, digest = record["number"], record["digest"]
            expected[record["entry"]] = record["entry_digest"]
    return expected


def _raise_first_missing(expected: dict[int, bytes], before: int | None) -> None:
    """Raise Fault if an entry that the chain holds is missing below an id, or at all."""
    missing = min(expected, default=None)
    if missing is not None and (before is None or missing < before):
        raise _fault(missing, "it is missing")


def _fault(entry_id: int, what: str) -> Fault:
    return Fault(f"quarantine, entry {entry_id}: {what}", Location(table="quarantine", key=f"id {entry_id}"))

"""A table of contracts as CSV: who pays how much, how often, and when next."""

import csv
import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

from msgspec import Struct, json

from service.core.cadence import INTERVALS, ONCE
from service.core.errors import ParameterError
from service.core.moments import rfc3339
from service.intake.translation import endpoint_of, read_delivery
from service.transfer.importer import Fault, Told
from service.transfer.observed import Observation
from service.transfer.sources import Source


class _Column(Struct, frozen=True, kw_only=True):
    """What the cells of a column hold, and how one is read (raises ValueError).

    `default` is what an empty cell holds, and those of a column that isn't there; a required column has none.
    """

    holds: str
    read: Callable[[str], Any]
    required: bool = False
    default: Any = None


def _matching(pattern: str) -> Callable[[str], str]:
    def read(cell: str) -> str:
        if not re.fullmatch(pattern, cell):
            raise ValueError(cell)
        return cell

    return read


def _day(cell: str) -> str:
    return date.fromisoformat(_matching("[0-9]{4}-[0-9]{2}-[0-9]{2}")(cell)).isoformat()


def _count(cell: str) -> int:
    if not 1 <= int(_matching("[0-9]{1,4}")(cell)) <= 1100:
        raise ValueError(cell)
    return int(cell)


_ID = _matching(r"\S(.{0,253}\S)?")
_WORDS = (*INTERVALS, ONCE)
_A_DAY = "a date such as 2025-11-30"
_AN_ID = "an id of 1 to 255 characters"
COLUMNS = {
    "customer_id": _Column(holds=_AN_ID, read=_ID, required=True),
    "next_bill_date": _Column(holds=_A_DAY, read=_day, required=True),
    "amount_cents": _Column(
        holds="a whole number of minor units", read=_matching("[0-9]{1,12}"), required=True
    ),
    "interval": _Column(holds=f"one of {', '.join(_WORDS)}", read=_matching("|".join(_WORDS)), required=True),
    "every": _Column(holds="a whole number from 1 to 1100", read=_count, required=True),
    "subscription_id": _Column(holds=_AN_ID, read=_ID),
    "customer_name": _Column(holds="a name", read=str),
    "currency": _Column(holds="a code such as usd", read=_matching("[a-z]{3}"), default="usd"),
    "status": _Column(
        holds="a word such as active or canceled", read=_matching("[a-z_]{1,50}"), default="active"
    ),
    "start_date": _Column(holds=_A_DAY, read=_day),
}


def read_contracts(
    source: Source, observation: Observation, biller: str, account: str = ""
) -> Iterator[Told | Fault]:
    """Each row as a subscription of an in-house biller, and beside it its customer's name.

    Raises ParameterError if the first line does not name the columns, or no biller can have this name.
    """
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,49}", biller):
        raise ParameterError("--biller: up to 50 of a-z, 0-9, _ and -")
    rows = _rows(source)
    _, names = next(rows, (1, []))
    _check_columns(names)
    seen: dict[str, int] = {}
    for line, cells in rows:
        values = _values(names, cells)
        if isinstance(values, str):
            yield Fault(line=line, detail=values)
            continue
        key = values["subscription_id"] or "{customer_id}:{interval}:{every}".format_map(values)
        if (first := seen.setdefault(key, line)) != line:
            yield Fault(
                line=line, detail=f"column subscription_id: another than that of line {first}, which is {key}"
            )
            continue
        for kind, data in _told(values, key):
            yield _delivery(line, kind, data, observation, f"standard.{biller}", account)


def _rows(source: Source) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, with the number of their last line. What is no CSV is one odd cell."""
    texts = (line.decode("utf-8-sig" if n == 1 else "utf-8", "replace") for n, line in source.lines())
    rows = csv.reader(texts)
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error:
            cells = ["\ufffd"]
        if cells:
            yield rows.line_num, [cell.strip() for cell in cells]


def _check_columns(names: list[str]) -> None:
    for name, column in COLUMNS.items():
        if column.required and name not in names:
            raise ParameterError(f"line 1: there is no column {name}; it holds {column.holds}")
    if unknown := [name for name in names if name not in COLUMNS]:
        raise ParameterError(f"line 1: {unknown[0]!r} is no column; there are {', '.join(COLUMNS)}")
    if len(set(names)) < len(names):
        raise ParameterError("line 1: a column is named twice")


def _values(names: list[str], cells: list[str]) -> dict[str, Any] | str:
    """A row's values by column; or which cell is not what it should be."""
    if len(cells) != len(names):
        return f"it should have {len(names)} cells, as the first line has"
    given = dict(zip(names, cells, strict=True))
    values = {}
    for name, column in COLUMNS.items():
        cell = given.get(name, "")
        try:
            if "\ufffd" in cell or not (cell.isprintable() or name == "customer_name"):
                raise ValueError(name)
            values[name] = column.read(cell) if cell or column.required else column.default
        except ValueError:
            return f"column {name}: it should be {column.holds}"
    return values


def _told(values: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    customer_id = values["customer_id"]
    item = {"interval": values["interval"], "every": values["every"], "unit_amount": values["amount_cents"]}
    contract = {
        "subscription_id": key,
        "customer_id": customer_id,
        "status": values["status"],
        "currency": values["currency"],
        "items": [item],
        "next_bill_on": values["next_bill_date"],
    }
    started = {"counts_from_on": values["start_date"]} if values["start_date"] else {}
    yield "subscription.recorded", contract | started
    if values["customer_name"]:
        yield "customer.recorded", {"customer_id": customer_id, "name": values["customer_name"]}


def _delivery(
    line: int, kind: str, data: dict[str, Any], observation: Observation, processor: str, account: str
) -> Told:
    """As the biller would have posted it when it was observed."""
    endpoint = endpoint_of(processor)
    assert endpoint is not None  # noqa: S101 - it is in the handlers' table
    said = {"type": kind, "account": account, "data": data}
    proof = observation.proof(processor, json.encode(said))
    body = json.encode({"occurred_at": rfc3339(observation.at), **said})
    return Told(line=line, incoming=read_delivery(endpoint, b"{}", body, proof), observed=True)

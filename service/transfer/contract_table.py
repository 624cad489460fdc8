"""Import of contracts from a CSV table: who pays how much, how often, and when next."""

import csv
import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

from msgspec import Struct, json

from handlers import standard
from service.core.cadence import INTERVALS, ONCE
from service.core.delivery import no_mode
from service.core.errors import ParameterError
from service.core.moments import rfc3339
from service.intake.translation import read_delivery
from service.transfer.importer import ImportItem, LineFault
from service.transfer.observations import Observation
from service.transfer.sources import ImportSource


class _Column(Struct, frozen=True, kw_only=True):
    """A column: a description of its cells, and the function that reads one (raises ValueError).

    `default` is the value of an empty cell and of a missing column; a required column has none.
    """

    description: str
    read: Callable[[str], Any]
    required: bool = False
    default: Any = None


def _pattern_reader(pattern: str) -> Callable[[str], str]:
    def read(cell: str) -> str:
        if not re.fullmatch(pattern, cell):
            raise ValueError(cell)
        return cell

    return read


def _read_date(cell: str) -> str:
    return date.fromisoformat(_pattern_reader("[0-9]{4}-[0-9]{2}-[0-9]{2}")(cell)).isoformat()


def _read_count(cell: str) -> int:
    if not 1 <= int(_pattern_reader("[0-9]{1,4}")(cell)) <= 1100:
        raise ValueError(cell)
    return int(cell)


_read_id = _pattern_reader(r"\S(.{0,253}\S)?")
_INTERVAL_NAMES = (*INTERVALS, ONCE)
_DATE_DESCRIPTION = "a date such as 2025-11-30"
_ID_DESCRIPTION = "an id of 1 to 255 characters"
COLUMNS = {
    "customer_id": _Column(description=_ID_DESCRIPTION, read=_read_id, required=True),
    "next_bill_date": _Column(description=_DATE_DESCRIPTION, read=_read_date, required=True),
    "amount_cents": _Column(
        description="a whole number of minor units", read=_pattern_reader("[0-9]{1,12}"), required=True
    ),
    "interval": _Column(
        description=f"one of {', '.join(_INTERVAL_NAMES)}",
        read=_pattern_reader("|".join(_INTERVAL_NAMES)),
        required=True,
    ),
    "every": _Column(description="a whole number from 1 to 1100", read=_read_count, required=True),
    "subscription_id": _Column(description=_ID_DESCRIPTION, read=_read_id),
    "customer_name": _Column(description="a name", read=str),
    "currency": _Column(description="a code such as usd", read=_pattern_reader("[a-z]{3}"), default="usd"),
    "status": _Column(
        description="a word such as active or canceled",
        read=_pattern_reader("[a-z_]{1,50}"),
        default="active",
    ),
    "start_date": _Column(description=_DATE_DESCRIPTION, read=_read_date),
}


def read_contracts(
    source: ImportSource, observation: Observation, biller: str, account: str = ""
) -> Iterator[ImportItem | LineFault]:
    """Each row as a subscription of an in-house biller, and its customer's name as a second item.

    Raises ParameterError if the first line does not name the columns, or `biller` is no valid name.
    """
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,49}", biller):
        raise ParameterError("--biller: up to 50 of a-z, 0-9, _ and -")
    rows = _read_rows(source)
    _, names = next(rows, (1, []))
    _check_columns(names)
    seen: dict[str, int] = {}
    for line, cells in rows:
        values = _read_values(names, cells)
        if isinstance(values, str):
            yield LineFault(line=line, detail=values)
            continue
        subscription_id = values["subscription_id"] or "{customer_id}:{interval}:{every}".format_map(values)
        if (first_line := seen.setdefault(subscription_id, line)) != line:
            detail = (
                f"column subscription_id: another than that of line {first_line}, which is {subscription_id}"
            )
            yield LineFault(line=line, detail=detail)
            continue
        for event_type, data in _event_bodies(values, subscription_id):
            yield _observed_item(line, event_type, data, observation, f"standard.{biller}", account)


def _read_rows(source: ImportSource) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, with the number of their last line. An unreadable line is one bad cell."""
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
            raise ParameterError(f"line 1: there is no column {name}; it holds {column.description}")
    if unknown_names := [name for name in names if name not in COLUMNS]:
        raise ParameterError(f"line 1: {unknown_names[0]!r} is no column; there are {', '.join(COLUMNS)}")
    if len(set(names)) < len(names):
        raise ParameterError("line 1: a column is named twice")


def _read_values(names: list[str], cells: list[str]) -> dict[str, Any] | str:
    """A row's values by column; or a text that says which cell is wrong."""
    if len(cells) != len(names):
        return f"it should have {len(names)} cells, as the first line has"
    cells_by_name = dict(zip(names, cells, strict=True))
    values = {}
    for name, column in COLUMNS.items():
        cell = cells_by_name.get(name, "")
        try:
            if "\ufffd" in cell or not (cell.isprintable() or name == "customer_name"):
                raise ValueError(name)
            values[name] = column.read(cell) if cell or column.required else column.default
        except ValueError:
            return f"column {name}: it should be {column.description}"
    return values


def _event_bodies(values: dict[str, Any], subscription_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    customer_id = values["customer_id"]
    item = {"interval": values["interval"], "every": values["every"], "unit_amount": values["amount_cents"]}
    contract = {
        "subscription_id": subscription_id,
        "customer_id": customer_id,
        "status": values["status"],
        "currency": values["currency"],
        "items": [item],
        "next_bill_on": values["next_bill_date"],
    }
    optional = {"counts_from_on": values["start_date"]} if values["start_date"] else {}
    yield "subscription.recorded", contract | optional
    if values["customer_name"]:
        yield "customer.recorded", {"customer_id": customer_id, "name": values["customer_name"]}


def _observed_item(
    line: int, event_type: str, data: dict[str, Any], observation: Observation, processor: str, account: str
) -> ImportItem:
    """The item of an event as the biller would have posted it at the moment of the observation."""
    content = {"type": event_type, "account": account, "data": data}
    proof = observation.proof(processor, json.encode(content))
    body = json.encode({"occurred_at": rfc3339(observation.observed_at), **content})
    incoming = read_delivery(standard.PROCESSOR, b"{}", body, proof, no_mode)
    return ImportItem(line=line, incoming=incoming, is_observation=True)

"""Lists of answers as CSV (RFC 4180), safe to open in a spreadsheet."""

import csv
import io
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from msgspec import Raw, Struct, defstruct, json
from msgspec.structs import astuple, fields


def to_csv(shape: type[Struct], rows: str, answer: bytes) -> bytes:
    """The list `rows` of an answer in JSON, with a header line."""
    names = columns(shape, rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows(map(cell, astuple(row)) for row in _decoder(shape, rows).decode(answer).rows)
    return out.getvalue().encode()


def columns(shape: type[Struct], rows: str) -> list[str]:
    """The columns of an answer's list: the fields of its rows, except lists of objects."""
    return [name for name, _ in _cells(shape, rows)]


def cell(value: Any) -> Any:
    """A value as a cell. Text that a spreadsheet would run as a formula gets a quote before it."""
    if isinstance(value, list):
        value = " ".join(str(part) for part in value)
    if isinstance(value, Raw):
        value = bytes(value).decode() if bytes(value) != b"null" else None
    if isinstance(value, dict):
        value = json.encode(value).decode()
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


@cache
def _cells(shape: type[Struct], rows: str) -> list[tuple[str, Any]]:
    """The name and the type of each column."""
    (row,) = get_args(get_type_hints(shape)[rows])
    hints = get_type_hints(row)
    named = [(field.encode_name, hints[field.name]) for field in fields(row)]
    return [(name, hint) for name, hint in named if not _is_list_of_objects(hint)]


def _is_list_of_objects(hint: Any) -> bool:
    return get_origin(hint) is list and isinstance(get_args(hint)[0], type(Struct))


@cache
def _decoder(shape: type[Struct], rows: str) -> json.Decoder[Any]:
    """Decodes of an answer what its CSV shows; JSON that came from elsewhere stays as it is."""
    cells = _cells(shape, rows)
    row = defstruct(
        "Row",
        [(f"cell_{i}", Raw if hint is Raw else Any) for i, (_, hint) in enumerate(cells)],
        rename={f"cell_{i}": name for i, (name, _) in enumerate(cells)},
    )
    return json.Decoder(defstruct("Rows", [("rows", list[row])], rename={"rows": rows}))  # type: ignore[valid-type]

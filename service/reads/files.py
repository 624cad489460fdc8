"""Lists of answers as files: CSV (RFC 4180), safe to open in a spreadsheet, and workbooks of Excel."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Meta, Raw, Struct, defstruct, json
from msgspec.structs import astuple, fields

from service.core.errors import ParameterError
from service.core.money import minor_digits

FileFormat = Literal["csv", "xlsx"]
MEDIA_TYPES: dict[FileFormat, str] = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_CENTS = "_cents"
_MOST_DIGITS = 15  # of a number in Excel
_MOST_CHARACTERS = 32_767  # of a text in Excel
_MOST_ROWS = 1_048_575  # of a sheet, below its header
_CREATED = datetime(1980, 1, 1, tzinfo=UTC)  # of every workbook: the same rows are the same file


class Column(Struct, frozen=True, kw_only=True):
    """A column: of values, of days, or of amounts as decimals that follow the one in minor units."""

    name: str
    kind: Literal["value", "day", "amount"] = "value"


class AnswerTable(Struct, frozen=True, kw_only=True):
    """A list of an answer as rows of values: what JSON has, and Decimal where a column has amounts.

    `currencies` has each row's currency.
    """

    columns: list[Column]
    rows: list[list[Any]]
    currencies: list[str]


def check_format(file_format: FileFormat) -> None:
    """Raise ParameterError for a workbook where the package that writes it is not installed."""
    if file_format == "xlsx" and find_spec("xlsxwriter") is None:
        raise ParameterError('format: xlsx needs a package on the server: pip install "daybook[excel]"')


def to_file(
    file_format: FileFormat, shape: type[Struct], rows: str, answer: bytes, currency: str, *, decimals: bool
) -> bytes:
    """The list `rows` of an answer in JSON as a file. Amounts are in `currency`, or the row's own.

    With `decimals`, each amount in minor units is followed by the same as a decimal; in a workbook always.
    Raises ParameterError for more rows than a sheet takes.
    """
    if file_format == "csv":
        return _to_csv(read_table(shape, rows, answer, currency, decimals=decimals))
    return _to_xlsx(read_table(shape, rows, answer, currency, decimals=True), rows)


def read_table(
    shape: type[Struct], rows: str, answer: bytes, currency: str, *, decimals: bool
) -> AnswerTable:
    """The list `rows` of an answer in JSON: the fields of its rows, except lists of objects."""
    cells = _cells(shape, rows)
    columns: list[Column] = []
    for name, hint in cells:
        columns.append(Column(name=name, kind="day" if _is_day(hint) else "value"))
        if decimals and name.endswith(_CENTS):
            columns.append(Column(name=name.removesuffix(_CENTS), kind="amount"))
    names = [name for name, _ in cells]
    found: list[list[Any]] = []
    currencies: list[str] = []
    for row in _decoder(shape, rows).decode(answer).rows:
        values = dict(zip(names, astuple(row), strict=True))
        currencies.append(values.get("currency") or currency)
        found.append([_value(column, values, currencies[-1]) for column in columns])
    return AnswerTable(columns=columns, rows=found, currencies=currencies)


def columns(shape: type[Struct], rows: str) -> list[str]:
    """The columns of an answer's list."""
    return [name for name, _ in _cells(shape, rows)]


def _value(column: Column, values: dict[str, Any], currency: str) -> Any:
    if column.kind != "amount":
        return values[column.name]
    minor = values[column.name + _CENTS]
    return None if minor is None else Decimal(minor).scaleb(-minor_digits(currency))


# CSV

# A text that begins with one may be run as a formula; full-width signs are, too, in some languages.
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def _to_csv(table: AnswerTable) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([column.name for column in table.columns])
    writer.writerows(map(cell, row) for row in table.rows)
    return out.getvalue().encode()


def cell(value: Any) -> Any:
    """A value as a cell. Text that a spreadsheet would run as a formula gets a quote before it."""
    value = _plain(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA_SIGNS else value


def _plain(value: Any) -> Any:
    """A value as text or a number: lists with spaces between their parts, objects as JSON."""
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    if isinstance(value, Raw):
        return bytes(value).decode() if bytes(value) != b"null" else None
    return json.encode(value).decode() if isinstance(value, dict) else value


# Workbooks


def _to_xlsx(table: AnswerTable, name: str) -> bytes:
    """A workbook of one sheet: decimals have the currency's format, days are dates, and texts stay texts."""
    import xlsxwriter  # noqa: PLC0415 - an extra that may not be installed

    if len(table.rows) > _MOST_ROWS:
        raise ParameterError(f"format: a sheet takes {_MOST_ROWS:,} rows, and there are more; csv takes all")
    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"in_memory": True}) as book:
        book.set_properties({"created": _CREATED.replace(tzinfo=None)})
        day = book.add_format({"num_format": "yyyy-mm-dd"})
        amounts = {
            currency: book.add_format({"num_format": _amount_format(currency)})
            for currency in sorted(set(table.currencies))
        }
        sheet = book.add_worksheet(name)
        sheet.freeze_panes(1, 0)
        bold = book.add_format({"bold": True})
        for number, column in enumerate(table.columns):
            sheet.write_string(0, number, column.name, bold)
        for line, (row, currency) in enumerate(zip(table.rows, table.currencies, strict=True), start=1):
            for number, (column, value) in enumerate(zip(table.columns, row, strict=True)):
                form = {"day": day, "amount": amounts[currency]}.get(column.kind)
                _write_cell(sheet, line, number, value, form)
    return out.getvalue()


def _write_cell(sheet: Any, line: int, number: int, value: Any, form: Any) -> None:
    """Write a value with its format. What Excel can't hold exactly as a number is written as text."""
    value = _plain(value)
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(line, number, value)
    elif isinstance(value, str) and form is not None:
        sheet.write_datetime(line, number, date.fromisoformat(value), form)
    elif isinstance(value, str):
        cut = len(value) > _MOST_CHARACTERS
        sheet.write_string(line, number, f"{value[: _MOST_CHARACTERS - 1]}…" if cut else value)
    elif not isinstance(value, float) and len(Decimal(value).normalize().as_tuple().digits) > _MOST_DIGITS:
        sheet.write_string(line, number, str(value))
    else:
        sheet.write_number(line, number, value, form)


def _amount_format(currency: str) -> str:
    digits = minor_digits(currency)
    return f'#,##0{"." if digits else ""}{"0" * digits} "{currency.upper()}"'


# Types of answers


@cache
def _cells(shape: type[Struct], rows: str) -> list[tuple[str, Any]]:
    """The name and the type of each column."""
    row = _row_type(get_type_hints(shape)[rows])
    hints = get_type_hints(row, include_extras=True)
    named = [(field.encode_name, hints[field.name]) for field in fields(row)]
    return [(name, hint) for name, hint in named if not _is_list_of_objects(hint)]


def _row_type(hint: Any) -> type[Struct]:
    """The type of the rows of a list that may be left out."""
    lists = (
        [hint] if get_origin(hint) is list else [part for part in get_args(hint) if get_origin(part) is list]
    )
    ((row,),) = map(get_args, lists)
    return row  # type: ignore[no-any-return]


def _parts(hint: Any) -> Iterator[Any]:
    """A type and all that it is made of, and what describes them."""
    yield hint
    for part in get_args(hint) if get_origin(hint) is not Literal else ():
        yield from _parts(part)


def _is_day(hint: Any) -> bool:
    return any(
        isinstance(p, Meta) and (p.extra_json_schema or {}).get("format") == "date" for p in _parts(hint)
    )


def _is_list_of_objects(hint: Any) -> bool:
    return any(
        get_origin(part) is list and any(isinstance(of, type(Struct)) for of in _parts(get_args(part)[0]))
        for part in _parts(hint)
    )


@cache
def _decoder(shape: type[Struct], rows: str) -> json.Decoder[Any]:
    """Decodes of an answer what a file shows; JSON that came from elsewhere stays as it is."""
    cells = _cells(shape, rows)
    row = defstruct(
        "Row",
        [(f"cell_{i}", Raw if Raw in _parts(hint) else Any) for i, (_, hint) in enumerate(cells)],
        rename={f"cell_{i}": name for i, (name, _) in enumerate(cells)},
    )
    return json.Decoder(defstruct("Rows", [("rows", list[row])], rename={"rows": rows}))  # type: ignore[valid-type]

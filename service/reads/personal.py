"""Answers without what is personal: null where the type of an answer says that a field is `PERSONAL`."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from msgspec import Meta, Struct, inspect, json

from service.core.events import TYPES

# Marks the data of an event, in JSON: what is personal in it follows from the field `type` beside it.
DATA_OF_EVENT = Meta(extra={"data_of_event": True})

# Makes a value, and the object that holds it, to the value without what is personal.
_Blank = Callable[[Any, dict[str, Any]], Any]


def without_personal(shape: type[Struct], document: bytes) -> bytes:
    """An answer of this shape in JSON, with null in each of its personal fields."""
    blank = _blank_of(shape)
    return json.encode(blank(json.decode(document), {})) if blank else document


def is_personal(shape: type[Struct]) -> bool:
    """Whether an answer of this shape has personal fields."""
    return _blank_of(shape) is not None


@cache
def _blank_of(shape: type[Struct]) -> _Blank | None:
    return _blank(inspect.type_info(shape))


def _blank(kind: inspect.Type) -> _Blank | None:
    """How values of a type are blanked; None for a type in which nothing is personal."""
    match kind:
        case inspect.Metadata(extra={"personal": True}):
            return lambda _value, _holder: None
        case inspect.Metadata(extra={"data_of_event": True}):
            return _blank_data
        case inspect.Metadata(type=inner):
            return _blank(inner)
    return _blank_parts(kind)


def _blank_parts(kind: inspect.Type) -> _Blank | None:
    """How the parts of a union, of a list or of a struct are blanked."""
    match kind:
        case inspect.UnionType(types=types):
            return next(filter(None, map(_blank, types)), None)
        case inspect.ListType(item_type=item):
            blank = _blank(item)
            return partial(_blank_items, blank) if blank else None
        case inspect.StructType(fields=fields):
            blanks = {field.encode_name: blank for field in fields if (blank := _blank(field.type))}
            return partial(_blank_fields, blanks) if blanks else None
    return None


def _blank_data(data: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    blank = _blank_of(TYPES[event["type"]])
    blanked: dict[str, Any] = blank(data, event) if blank else data
    return blanked


def _blank_items(blank: _Blank, items: list[Any], holder: dict[str, Any]) -> list[Any]:
    return [blank(item, holder) for item in items]


def _blank_fields(blanks: dict[str, _Blank], value: dict[str, Any], _holder: Any) -> dict[str, Any]:
    return {
        name: blanks[name](part, value) if name in blanks and part is not None else part
        for name, part in value.items()
    }

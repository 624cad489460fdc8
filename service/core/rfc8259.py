"""JSON as RFC 8259 allows it, also where msgspec refuses it.

That is a byte order mark before the text, half of a surrogate pair in a string (an emoji cut in two), and a
number beyond a double. NaN and Infinity are no JSON.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any

import msgspec

NOT_JSON = (ValueError, RecursionError)  # the errors of parsing: of msgspec, the standard library and UTF-8
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
_MAX_DIGITS = 4_000  # Python makes no integer of more


def parse_json(body: bytes) -> Any:
    """The value of a JSON text; of a name that an object has twice, the last value counts.

    Half of a surrogate pair becomes U+FFFD, and a number beyond what Python's own can be a `Decimal`, or its
    text. Raises one of NOT_JSON.
    """
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        parsed = json.loads(
            body.decode("utf-8-sig"),
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_refuse,
        )
        return _with_whole_characters(parsed)


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) <= _MAX_DIGITS else Decimal(text)


def _fraction(text: str) -> float | Decimal | str:
    number = float(text)
    try:
        return number if isfinite(number) else Decimal(text)
    except InvalidOperation:  # its exponent has more than eighteen digits
        return text


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _with_whole_characters(value: Any) -> Any:
    match value:
        case str():
            return _HALF_A_PAIR.sub("\ufffd", value)
        case list():
            return [_with_whole_characters(child) for child in value]
        case dict():
            return {_with_whole_characters(k): _with_whole_characters(child) for k, child in value.items()}
    return value

"""JSON that msgspec refuses and RFC 8259 allows is read; what is no JSON is not."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.rfc8259 import BYTE_ORDER_MARK, NOT_JSON, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=15,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'{"name": "cut \ud83d"}', {"name": "cut \ufffd"}),
        (rb'["\udc36\ud835", "\ud83d\ude00"]', ["\ufffd\ufffd", "\U0001f600"]),
        (rb'{"half \ud800": 1}', {"half \ufffd": 1}),
        (BYTE_ORDER_MARK + b' {"total": "7.10"}', {"total": "7.10"}),
        (b'{"seen": 1, "seen": 2}', {"seen": 2}),
        (b"[1e400, -3.5E+999]", [Decimal("1e400"), Decimal("-3.5E+999")]),
        (b"[1e12345678901234567890]", ["1e12345678901234567890"]),
        (b"[18446744073709551616, -9223372036854775809]", [2**64, -(2**63) - 1]),
        (b"7" * 5_000, Decimal("7" * 5_000)),
    ],
)
def test_what_the_grammar_allows_is_read(text: bytes, value: Any) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        BYTE_ORDER_MARK,
        BYTE_ORDER_MARK * 2 + b"{}",
        b"[NaN]",
        b'{"rate": -Infinity}',
        b"{'single': 1}",
        b"[1,]",
        b"[01]",
        b"[.5]",
        b'["\t"]',
        b'["\xed\xa0\xbd"]',
        b'{"open": ',
        "{}".encode("utf-16"),
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(NOT_JSON):
        parse_json(text)


@given(VALUES)
def test_a_value_is_the_same_with_a_byte_order_mark_and_with_numbers_too_large(value: Any) -> None:
    text = json.dumps(value).encode()

    assert parse_json(text) == parse_json(BYTE_ORDER_MARK + text) == value
    assert parse_json(b"[1e999, %b]" % text)[1] == value


@given(st.text(st.characters(codec=None), max_size=20))
def test_whatever_a_string_holds_it_can_be_written_again(text: str) -> None:
    parsed = parse_json(json.dumps([text]).encode())

    assert msgspec.json.decode(msgspec.json.encode(parsed)) == parsed

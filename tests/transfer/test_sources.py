"""Lines and documents of a file, however they are laid out, and whatever is broken between them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.transfer import sources
from service.transfer.sources import list_members, open_source, read_documents
from tests.support.effort import examples

VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)


def numbered(text: str) -> Iterator[tuple[int, bytes]]:
    return enumerate(text.encode().splitlines(keepends=True), start=1)


@examples(50)
@given(st.lists(st.tuples(OBJECTS | st.lists(OBJECTS, max_size=3), st.sampled_from([None, 1, 2, 4]))))
def test_documents_are_found_whatever_their_layout(laid_out: list[tuple[Any, int | None]]) -> None:
    texts = [json.dumps(value, indent=indent) for value, indent in laid_out]

    found = list(read_documents(numbered("\n".join(texts))))

    assert [json.loads(document) for _, document in found] == [value for value, _ in laid_out]
    starts = [1 + sum(text.count("\n") + 1 for text in texts[:at]) for at in range(len(texts))]
    assert [line for line, _ in found] == starts


def test_a_document_that_is_broken_keeps_out_no_other() -> None:
    text = '{"a": \n{"b": 1}\n{\n "c": 2\n{"d": 3}\n{\n\n "e": 4\n}\n}\n{"f"'

    found = dict(read_documents(numbered(text)))

    assert {line: bytes(document).strip() for line, document in found.items() if line in (2, 5, 6)} == {
        2: b'{"b": 1}',
        5: b'{"d": 3}',
        6: b'{\n\n "e": 4\n}',
    }
    assert {1, 3, 10, 11} <= found.keys()


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (b'{"records": [{"id": 1}, 2]}', [b'{"id": 1}', b"2"]),
        (b'[{"id": 1}]', [b'{"id": 1}']),
        (b'{"id": 1, "records": {"id": 2}}', [b'{"id": 1, "records": {"id": 2}}']),
        (b"7", [b"7"]),
        (b"[]", []),
    ],
)
def test_members_are_those_of_a_list_or_the_document(document: bytes, found: list[bytes]) -> None:
    assert list_members(document, "records") == found


def test_of_a_line_that_is_too_long_only_the_beginning_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_DOCUMENT_BYTES", 10)
    (file := tmp_path / "file").write_bytes(b"1234567890123456789012345\n123456789\n1234567890\nlast")

    with open_source(file) as source:
        found = list(source.lines())
        assert source.bytes_read == source.size == file.stat().st_size

    assert found == [(1, b"1234567890"), (2, b"123456789\n"), (3, b"1234567890"), (4, b"last")]

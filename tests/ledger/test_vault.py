"""Sealing by itself: who can read what, and what is noticed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from service.bootstrap import open_ledger, prepare
from service.core.errors import Integrity, SettingsError
from service.ledger.vault import KEY_BYTES, Vault, destroy_keys, is_sealed, owners_of_sealed, seal, unseal
from service.settings import load
from service.storage.database import ledger_path, sqlite_engine

KEYS = {name: bytes([number]) * KEY_BYTES for number, name in enumerate(("ada", "bob", "eve"))}
OWNERS = st.lists(st.sampled_from(sorted(KEYS)), min_size=1)


@contextmanager
def writing(data_dir: Path) -> Iterator[Connection]:
    engine = sqlite_engine(ledger_path(data_dir), "write")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@given(OWNERS, st.binary())
def test_what_is_sealed_opens_with_the_keys_of_all_its_owners(owners: list[str], text: bytes) -> None:
    sealed = seal(KEYS, owners, text)

    assert is_sealed(sealed)
    assert owners_of_sealed(sealed) == sorted(set(owners))
    assert unseal(KEYS, sealed) == text
    assert unseal({**KEYS, owners[0]: None}, sealed) is None
    assert unseal({}, sealed) is None


@given(OWNERS, st.binary(min_size=1), st.data())
def test_a_changed_byte_is_noticed(owners: list[str], text: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEYS, owners, text))
    at = data.draw(st.integers(1, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))

    try:
        found = unseal(KEYS, bytes(sealed))
    except Integrity:
        return
    assert found is None  # the name of an owner was changed to one who has no key


def test_data_of_an_erased_owner_is_sealed_for_nobody() -> None:
    sealed = seal({**KEYS, "ada": None}, ["ada"], b"hello")

    assert unseal({"ada": None}, sealed) is None
    with pytest.raises(Integrity):  # the key that they had does not open it
        unseal(KEYS, sealed)


def test_data_that_was_never_sealed_is_read_as_it_is() -> None:
    assert unseal({}, b'{"id": 1}') == b'{"id": 1}'


def test_a_key_is_made_once_and_never_again_once_destroyed(tmp_path: Path) -> None:
    prepare(load(data_dir=tmp_path))
    safe = Vault(bytes(KEY_BYTES))
    with writing(tmp_path) as connection:
        first = safe.make_keys(connection, ["ada", "bob"])
        assert safe.make_keys(connection, ["bob", "ada"]) == first

        destroy_keys(connection, ["ada"])

        assert safe.make_keys(connection, ["ada", "bob"]) == {"ada": None, "bob": first["bob"]}


def test_another_master_key_opens_nothing(tmp_path: Path) -> None:
    prepare(load(data_dir=tmp_path))
    with writing(tmp_path) as connection:
        Vault(bytes(KEY_BYTES)).make_keys(connection, ["ada"])

        with pytest.raises(Integrity, match="key of ada"):
            Vault(b"1" * KEY_BYTES).read_keys(connection, ["ada"])


def test_a_start_with_another_master_key_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAYBOOK_MASTER_KEY")
    prepare(load(data_dir=tmp_path))
    key = tmp_path / "master.key"
    assert key.stat().st_mode & 0o777 == 0o600

    key.write_bytes(b"2" * KEY_BYTES)
    with pytest.raises(SettingsError, match="another master key"):
        prepare(load(data_dir=tmp_path))

    key.write_bytes(b"short")
    with pytest.raises(SettingsError, match="32 bytes"):
        open_ledger(load(data_dir=tmp_path))

    key.unlink()  # one that is lost is not made anew: nothing would open what is sealed
    with pytest.raises(SettingsError, match="no master key"):
        prepare(load(data_dir=tmp_path))
    assert not key.exists()


def test_digests_are_of_the_key() -> None:
    one, other = (Vault(byte * KEY_BYTES) for byte in (b"1", b"2"))

    assert one.digest(b"ada@example.test") == one.digest(b"ada@example.test")
    assert one.digest(b"ada@example.test") != other.digest(b"ada@example.test")
    assert one.derive(b"a") != one.derive(b"b")

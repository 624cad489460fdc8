"""Sealing: whatever tells of a person is ciphertext in the ledger, under a key of that person's own.

The keys stand beside it, themselves sealed by the master key, which is in no database. Whoever destroys
a person's key has erased what was said of them, wherever the ciphertext has gone; the chain covers the
ciphertext, so it holds.
"""

import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import msgpack
from sqlalchemy import Connection, select

from service.core.errors import Integrity
from service.ledger import tables
from service.storage.statements import HotInsert, HotStatement, any_of

GENERAL = "general"  # owns what tells of nobody
KEY_BYTES = 32
_NONCE_BYTES = 12  # AES-GCM's own
_MARK = b"\0"  # begins what is sealed, and no JSON text

Keys = Mapping[str, bytes | None]  # by owner; None once it was destroyed

_keys = tables.Key.__table__  # type: ignore[attr-defined]
_FIND = HotStatement(lambda _: select(_keys.c.owner, _keys.c.sealed).where(any_of(_keys.c.owner, "owners")))
_ADD = HotInsert(_keys)
_DESTROY = HotInsert(
    _keys,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["owner"], set_={"sealed": insert.excluded.sealed}
    ),
)


class Vault:
    """What the master key opens. `master` is 32 bytes."""

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._wrapping = AESGCM(self.derive(b"daybook keys"))
        self._content = self.derive(b"daybook content")

    def derive(self, info: bytes) -> bytes:
        """A key of 32 bytes for another purpose (HKDF-SHA256)."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._master)

    def digest(self, content: bytes) -> bytes:
        """A digest that nobody without the key can try guesses against."""
        return hmac.digest(self._content, content, "sha256")

    def keys(self, connection: Connection, owners: Iterable[str]) -> dict[str, bytes | None]:
        """The keys of those owners who have or had one. Raises Integrity if one can't be opened."""
        found = _FIND.run(connection, sorted(set(owners)))
        return {owner: None if sealed is None else self._unwrap(owner, sealed) for owner, sealed in found}

    def make_keys(self, connection: Connection, owners: Iterable[str]) -> dict[str, bytes | None]:
        """The keys of these owners, made where there is none, in the caller's write transaction."""
        wanted = set(owners)
        found = self.keys(connection, wanted)
        new = {owner: os.urandom(KEY_BYTES) for owner in sorted(wanted - found.keys())}
        if new:
            _ADD.add(connection, [(owner, self._wrap(owner, key)) for owner, key in new.items()])
        return found | new

    def open(self, connection: Connection, texts: Sequence[bytes]) -> list[bytes | None]:
        """What was sealed, in the same order; None where a key is gone. What was never sealed stays.

        Raises Integrity where a text, or a key, is not what was sealed.
        """
        keys = self.keys(connection, {owner for text in texts for owner in owners_of(text)})
        return [opened(keys, text) for text in texts]

    def _wrap(self, owner: str, key: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, key, owner.encode())

    def _unwrap(self, owner: str, sealed: bytes) -> bytes:
        try:
            return self._wrapping.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner.encode())
        except (InvalidTag, ValueError):
            raise Integrity(f"the key of {owner} can't be opened with this master key") from None


def is_keyed(connection: Connection) -> bool:
    """Whether anything was ever sealed in this ledger."""
    return bool(_FIND.run(connection, [GENERAL]))


def destroy_keys(connection: Connection, owners: Iterable[str]) -> None:
    """Destroy the keys of these owners for ever: none will be made again."""
    _DESTROY.add(connection, [(owner, None) for owner in sorted(set(owners))])


def seal(keys: Keys, owners: Iterable[str], text: bytes) -> bytes:
    """`text` as only somebody with the keys of all its owners can read it.

    Where one of them was erased nobody ever will: it is sealed with a key that is not kept.
    """
    names, nonce = sorted(set(owners)), os.urandom(_NONCE_BYTES)
    key = _together([keys[name] for name in names]) or os.urandom(KEY_BYTES)
    return _MARK + msgpack.encode((names, nonce, AESGCM(key).encrypt(nonce, text, None)))


def is_sealed(text: bytes) -> bool:
    """Whether a text of the ledger is sealed; those of its first versions are not."""
    return text.startswith(_MARK)


def owners_of(text: bytes) -> list[str]:
    """Whose keys open a text; of none if it is not sealed."""
    return _parts(text)[0] if is_sealed(text) else []


def opened(keys: Keys, text: bytes) -> bytes | None:
    """What was sealed; None where a key is gone. Raises Integrity where it is not what was sealed."""
    if not is_sealed(text):
        return text
    names, nonce, ciphertext = _parts(text)
    key = _together([keys.get(name) for name in names])
    if key is None:
        return None
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, None)
    except (InvalidTag, ValueError):
        raise Integrity(f"a text of {', '.join(names)} is not what was sealed") from None


def _parts(text: bytes) -> tuple[list[str], bytes, bytes]:
    try:
        return msgpack.decode(text[len(_MARK) :], type=tuple[list[str], bytes, bytes])
    except ValueError:  # msgspec's errors are
        raise Integrity("a sealed text can't be read") from None


def _together(several: Sequence[bytes | None]) -> bytes | None:
    """One key out of those of all owners; None unless each has one."""
    there = [key for key in several if key is not None]
    if len(there) < len(several):
        return None
    return there[0] if len(there) == 1 else sha256(b"".join(there)).digest()

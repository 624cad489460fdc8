"""Sealing: a person's data is ciphertext in the ledger, under a key of that person's own.

The keys are in the ledger's database, themselves sealed by the master key, which is in no database.
Destroying a person's key erases their data in every copy of the ledger; the chain covers the ciphertext,
so it stays unbroken.
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

GENERAL = "general"  # the owner of data about nobody
KEY_BYTES = 32
_NONCE_BYTES = 12  # AES-GCM's own
_SEALED_PREFIX = b"\0"  # begins a sealed text, and never a JSON text

Keys = Mapping[str, bytes | None]  # by owner; None once it was destroyed

_keys = tables.Key.__table__  # type: ignore[attr-defined]
_FIND_KEYS = HotStatement(
    lambda _: select(_keys.c.owner, _keys.c.sealed).where(any_of(_keys.c.owner, "owners"))
)
_ADD_KEYS = HotInsert(_keys)
_CLEAR_KEYS = HotInsert(
    _keys,
    conflict=lambda insert: insert.on_conflict_do_update(
        index_elements=["owner"], set_={"sealed": insert.excluded.sealed}
    ),
)


class Vault:
    """Seals and unseals owners' keys with the master key, and texts with these keys. `master` is 32 bytes."""

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._key_cipher = AESGCM(self.derive(b"daybook keys"))
        self._digest_key = self.derive(b"daybook content")

    def derive(self, info: bytes) -> bytes:
        """A key of 32 bytes for another purpose (HKDF-SHA256)."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._master)

    def digest(self, content: bytes) -> bytes:
        """A digest against which nobody without the key can test guesses."""
        return hmac.digest(self._digest_key, content, "sha256")

    def read_keys(self, connection: Connection, owners: Iterable[str]) -> dict[str, bytes | None]:
        """The keys of these owners, as far as they have or had one; None for a destroyed key.

        Raises Integrity if a key can't be unsealed.
        """
        rows = _FIND_KEYS.run(connection, sorted(set(owners)))
        return {owner: None if sealed is None else self._unseal_key(owner, sealed) for owner, sealed in rows}

    def make_keys(self, connection: Connection, owners: Iterable[str]) -> dict[str, bytes | None]:
        """The keys of these owners; missing ones are made in the caller's write transaction."""
        wanted = set(owners)
        existing = self.read_keys(connection, wanted)
        new = {owner: os.urandom(KEY_BYTES) for owner in sorted(wanted - existing.keys())}
        if new:
            _ADD_KEYS.add(connection, [(owner, self._seal_key(owner, key)) for owner, key in new.items()])
        return existing | new

    def unseal(self, connection: Connection, texts: Sequence[bytes]) -> list[bytes | None]:
        """The texts unsealed, in the same order; None where a key was destroyed. Texts not sealed stay.

        Raises Integrity if a text, or a key, was changed.
        """
        keys = self.read_keys(connection, {owner for text in texts for owner in owners_of_sealed(text)})
        return [unseal(keys, text) for text in texts]

    def _seal_key(self, owner: str, key: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._key_cipher.encrypt(nonce, key, owner.encode())

    def _unseal_key(self, owner: str, sealed: bytes) -> bytes:
        try:
            return self._key_cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner.encode())
        except (InvalidTag, ValueError):
            raise Integrity(f"the key of {owner} can't be opened with this master key") from None


def is_keyed(connection: Connection) -> bool:
    """Whether anything was ever sealed in this ledger."""
    return bool(_FIND_KEYS.run(connection, [GENERAL]))


def destroy_keys(connection: Connection, owners: Iterable[str]) -> None:
    """Destroy the keys of these owners for ever: no new ones will be made for them."""
    _CLEAR_KEYS.add(connection, [(owner, None) for owner in sorted(set(owners))])


def seal(keys: Keys, owners: Iterable[str], text: bytes) -> bytes:
    """`text` sealed so that reading it takes the keys of all its owners.

    If one of the owners was erased, nobody can ever read it: it is sealed with a key that is not stored.
    """
    names, nonce = sorted(set(owners)), os.urandom(_NONCE_BYTES)
    key = _combine_keys([keys[name] for name in names]) or os.urandom(KEY_BYTES)
    return _SEALED_PREFIX + msgpack.encode((names, nonce, AESGCM(key).encrypt(nonce, text, None)))


def is_sealed(text: bytes) -> bool:
    """Whether a text of the ledger is sealed; texts written by the first versions are not."""
    return text.startswith(_SEALED_PREFIX)


def owners_of_sealed(text: bytes) -> list[str]:
    """The owners whose keys unseal a text; none if it is not sealed."""
    return _parse_sealed(text)[0] if is_sealed(text) else []


def unseal(keys: Keys, text: bytes) -> bytes | None:
    """The text unsealed; None if a key was destroyed. Raises Integrity if the sealed text was changed."""
    if not is_sealed(text):
        return text
    names, nonce, ciphertext = _parse_sealed(text)
    key = _combine_keys([keys.get(name) for name in names])
    if key is None:
        return None
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, None)
    except (InvalidTag, ValueError):
        raise Integrity(f"a text of {', '.join(names)} is not what was sealed") from None


def _parse_sealed(text: bytes) -> tuple[list[str], bytes, bytes]:
    try:
        return msgpack.decode(text[len(_SEALED_PREFIX) :], type=tuple[list[str], bytes, bytes])
    except ValueError:  # the base class of msgspec's errors
        raise Integrity("a sealed text can't be read") from None


def _combine_keys(keys: Sequence[bytes | None]) -> bytes | None:
    """One key made of the keys of all owners; None if one of them is missing."""
    existing = [key for key in keys if key is not None]
    if len(existing) < len(keys):
        return None
    return existing[0] if len(existing) == 1 else sha256(b"".join(existing)).digest()

"""Sealing: a person's data is ciphertext in the ledger, under a key of that person's own.

The keys are in the ledger's database, themselves sealed by the master key, which is in no database.
Destroying a person's key erases their data in every copy of the ledger; the chain covers the ciphertext,
so it stays unbroken.
"""

import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

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
# These begin a sealed text, and never a JSON text. A bound one opens only beside what it was sealed with.
_SEALED_PREFIX, _BOUND_PREFIX = b"\0", b"\1"

Keys = Mapping[str, bytes | None]  # by owner; None once it was destroyed

_NO_GENERAL_KEY = "the key of general is gone from the table keys: what it seals can't be read"

_keys = tables.Key.__table__  # type: ignore[attr-defined]
_deliveries = tables.Delivery.__table__  # type: ignore[attr-defined]
_quarantine = tables.Quarantine.__table__  # type: ignore[attr-defined]
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


class StoredBody(NamedTuple):
    """A delivery as it is stored, with its body sealed or not."""

    headers: bytes
    body: bytes
    proof: bytes

    @property
    def context(self) -> bytes:
        """What the sealed body is bound to: nobody can put it under another proof."""
        return b"%d:%b%d:%b" % (len(self.headers), self.headers, len(self.proof), self.proof)


class OtherKey(Integrity):
    """A key was sealed with another master key, or was changed."""


class Vault:
    """Seals and unseals owners' keys with the master key, and texts with these keys. `master` is 32 bytes."""

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._key_cipher = AESGCM(self.derive(b"daybook keys"))
        self._keyed_digest = hmac.new(self.derive(b"daybook content"), digestmod="sha256")

    def derive(self, info: bytes) -> bytes:
        """A key of 32 bytes for another purpose (HKDF-SHA256)."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._master)

    def digest(self, content: bytes) -> bytes:
        """A digest against which nobody without the key can test guesses."""
        digest = self._keyed_digest.copy()  # to begin with the key takes longer than to digest
        digest.update(content)
        return digest.digest()

    def read_keys(self, connection: Connection, owners: Iterable[str]) -> dict[str, bytes | None]:
        """The keys of these owners, as far as they have or had one; None for a destroyed key.

        Raises Integrity if a key can't be unsealed.
        """
        rows = _FIND_KEYS.run(connection, sorted(set(owners)))
        return {owner: None if sealed is None else self._unseal_key(owner, sealed) for owner, sealed in rows}

    def make_keys(self, connection: Connection, owners: Iterable[str]) -> dict[str, bytes | None]:
        """The keys of these owners; missing ones are made in the caller's write transaction.

        Raises Integrity for `GENERAL` without a key: each start makes one, and nobody is ever erased by it.
        """
        wanted = set(owners)
        existing = self.read_keys(connection, wanted)
        if GENERAL in wanted and existing.get(GENERAL) is None:
            raise Integrity(_NO_GENERAL_KEY)
        return existing | self._make(connection, wanted - existing.keys())

    def prepare_general_key(self, connection: Connection) -> None:
        """Make the key of `GENERAL` for a ledger in which nothing is sealed.

        Raises Integrity if it is gone, or can't be unsealed.
        """
        if is_keyed(connection):
            self.make_keys(connection, [GENERAL])
        elif _holds_sealed(connection):
            raise Integrity(_NO_GENERAL_KEY)
        else:
            self._make(connection, [GENERAL])

    def _make(self, connection: Connection, owners: Iterable[str]) -> dict[str, bytes]:
        new = {owner: os.urandom(KEY_BYTES) for owner in sorted(owners)}
        if new:
            _ADD_KEYS.add(connection, [(owner, self._seal_key(owner, key)) for owner, key in new.items()])
        return new

    def unseal_bodies(self, connection: Connection, stored: Sequence[StoredBody]) -> list[bytes | None]:
        """The bodies unsealed, in the same order; None where a key was destroyed. Bodies not sealed stay.

        Raises Integrity if one, or a key, was changed, or if it was moved to other headers or another proof.
        """
        owners = {owner for each in stored for owner in owners_of_sealed(each.body)}
        keys = self.read_keys(connection, owners)
        return [unseal(keys, each.body, each.context) for each in stored]

    def _seal_key(self, owner: str, key: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._key_cipher.encrypt(nonce, key, owner.encode())

    def _unseal_key(self, owner: str, sealed: bytes) -> bytes:
        try:
            return self._key_cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner.encode())
        except (InvalidTag, ValueError):
            raise OtherKey(f"the key of {owner} can't be opened with this master key") from None


def is_keyed(connection: Connection) -> bool:
    """Whether this ledger has a key for data about nobody, destroyed or not: its first start makes one."""
    return bool(_FIND_KEYS.run(connection, [GENERAL]))


def _holds_sealed(connection: Connection) -> bool:
    """Whether something was sealed in this ledger: another key is left, or its newest bytes are sealed."""
    newest = (
        select(table.c.body).order_by(key.desc()).limit(1)
        for table, key in ((_deliveries, _deliveries.c.position), (_quarantine, _quarantine.c.id))
    )
    bodies = [body for query in newest for body in connection.execute(query).scalars()]
    if any(isinstance(body, bytes) and is_sealed(body) for body in bodies):  # SQLite holds any type
        return True
    return connection.execute(select(_keys.c.owner).limit(1)).first() is not None


def destroy_keys(connection: Connection, owners: Iterable[str]) -> None:
    """Destroy the keys of these owners for ever: no new ones will be made for them."""
    _CLEAR_KEYS.add(connection, [(owner, None) for owner in sorted(set(owners))])


def seal_body(keys: Keys, owners: Iterable[str], delivery: StoredBody) -> bytes:
    """The body of a delivery sealed as a text is, and bound to its headers and proof."""
    return _BOUND_PREFIX + _encrypt(keys, owners, delivery.body, delivery.context)


def seal(keys: Keys, owners: Iterable[str], text: bytes) -> bytes:
    """`text` sealed so that reading it takes the keys of all its owners.

    If one of the owners was erased, nobody can ever read it: it is sealed with a key that is not stored.
    """
    return _SEALED_PREFIX + _encrypt(keys, owners, text, None)


def _encrypt(keys: Keys, owners: Iterable[str], text: bytes, context: bytes | None) -> bytes:
    names, nonce = sorted(set(owners)), os.urandom(_NONCE_BYTES)
    key = _combine_keys([keys[name] for name in names]) or os.urandom(KEY_BYTES)
    return msgpack.encode((names, nonce, AESGCM(key).encrypt(nonce, text, context)))


def is_sealed(text: bytes) -> bool:
    """Whether a text of the ledger is sealed; texts written by the first versions are not."""
    return text.startswith((_SEALED_PREFIX, _BOUND_PREFIX))


def is_bound(text: bytes) -> bool:
    """Whether a sealed body is bound to its headers and proof; those of earlier versions are not."""
    return text.startswith(_BOUND_PREFIX)


def owners_of_sealed(text: bytes) -> list[str]:
    """The owners whose keys unseal a text; none if it is not sealed."""
    return _parse_sealed(text)[0] if is_sealed(text) else []


def unseal(keys: Keys, text: bytes, context: bytes = b"") -> bytes | None:
    """The text unsealed; None if a key was destroyed. Raises Integrity if the sealed text was changed.

    A bound one must stand beside its own `context`.
    """
    if not is_sealed(text):
        return text
    names, nonce, ciphertext = _parse_sealed(text)
    key = _combine_keys([keys.get(name) for name in names])
    if key is None:
        return None
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, context if is_bound(text) else None)
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

"""The master key: from the environment, or a file in the data directory that is made with the ledger."""

import os
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from service.core.errors import SettingsError
from service.ledger.vault import KEY_BYTES, Vault
from service.settings import Settings

NAME = "master.key"


def vault(settings: Settings) -> Vault:
    """What opens the ledger. Raises SettingsError where there is no master key, or it is none."""
    if settings.master_key:
        return Vault(b64decode(settings.master_key))
    path = settings.data_dir / NAME
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise SettingsError(
            f"there is no master key, neither DAYBOOK_MASTER_KEY nor {path}: nothing opens the ledger"
        ) from None
    if len(key) != KEY_BYTES:
        raise SettingsError(f"{path} is no master key: it does not hold {KEY_BYTES} bytes")
    return Vault(key)


def make(settings: Settings) -> None:
    """Make the file of a new ledger's key, unless the key is there; only its owner may read it."""
    path = settings.data_dir / NAME
    if settings.master_key or path.exists():
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{NAME}.{token_hex(4)}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(os.urandom(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):  # another process was first
        os.link(new, path)
    new.unlink()
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Have the directory's entries on disk, before anything is sealed with what they name."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

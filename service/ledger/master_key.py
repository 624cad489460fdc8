"""The master key: from the environment, or from a file in the data directory made with the ledger."""

import os
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from service.core.errors import SettingsError
from service.ledger.vault import KEY_BYTES, Vault
from service.settings import Settings

FILE_NAME = "master.key"


def open_vault(settings: Settings) -> Vault:
    """The vault that unseals the ledger. Raises SettingsError if the master key is missing or malformed."""
    if settings.master_key:
        return Vault(b64decode(settings.master_key))
    path = settings.data_dir / FILE_NAME
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise SettingsError(
            f"there is no master key, neither DAYBOOK_MASTER_KEY nor {path}: nothing opens the ledger"
        ) from None
    if len(key) != KEY_BYTES:
        raise SettingsError(f"{path} is no master key: it does not hold {KEY_BYTES} bytes")
    return Vault(key)


def create_key_file(settings: Settings) -> None:
    """Make the file with a new ledger's master key, unless there is one; only its owner may read it."""
    path = settings.data_dir / FILE_NAME
    if settings.master_key or path.exists():
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{FILE_NAME}.{token_hex(4)}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(os.urandom(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):  # another process was first
        os.link(new, path)
    new.unlink()
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Make the directory's entries durable, before anything is sealed with the new key."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

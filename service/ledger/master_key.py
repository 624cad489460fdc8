"""The master key: from the environment, or from a file in the data directory made with the ledger."""

import os
from base64 import b64decode

from service.core.errors import SettingsError
from service.ledger.vault import KEY_BYTES, Vault
from service.settings import Settings
from service.storage.files import create_file

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
    create_file(path, os.urandom(KEY_BYTES))  # the key that another process has just made stays

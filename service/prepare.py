"""Before anything runs: the ledger's schema and the books' layout, made once by whoever is first."""

import fcntl

from service.books.store import lay_out
from service.ledger.schema import migrate
from service.settings import Settings


def prepare(settings: Settings) -> None:
    """Bring both files in the data directory to what this version needs; quick when they are."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with open(settings.data_dir / "prepare.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        migrate(settings.data_dir)
        lay_out(settings.data_dir)

"""Read keys: each `key` or `key:scope+scope`."""

from msgspec import Struct

from service.core.scopes import DEFAULT_SCOPES, SCOPES
from service.settings.secrets import check_secret


class ReadKey(Struct, frozen=True):
    """A key that requests carry, and the scopes that it gives them."""

    key: str
    scopes: frozenset[str] = DEFAULT_SCOPES


def parse(text: str) -> ReadKey:
    """A key with its scopes. Raises ValueError for other scopes, and as `check_secret` does."""
    key, colon, names = text.partition(":")
    scopes = frozenset(names.split("+")) if colon else DEFAULT_SCOPES
    if not key or not scopes <= frozenset(SCOPES):
        raise ValueError(
            f"keys with commas between them, each `key` or `key:scope+scope` with scopes of "
            f"{', '.join(SCOPES)}; a key holds no colon"
        )
    check_secret(key)
    return ReadKey(key, scopes)

"""Room that clients share by address: who holds much of it leaves some to the others."""

from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

_SHARE = 7  # times what is free: one client gets 7/8 of all, two of them 7/15 each


@lru_cache(4_096)
def client_key(host: str) -> str:
    """The client that has an address: that itself, or in IPv6 the network of 64 bits, which is one's own.

    All that is no address, as a proxy might name it, is one client.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))


class Room:
    """So many units of something. A client holds at most `_SHARE` times what is still free.

    So a client that holds nothing finds room beside any other that takes all it can get.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._held: Counter[str] = Counter()

    def take(self, client: str, units: int = 1) -> bool:
        """Whether there was room for these units of a client, which are theirs then."""
        if units > self._free or self._held[client] + units > _SHARE * self._free:
            return False
        self._free -= units
        self._held[client] += units
        return True

    def give_back(self, client: str, units: int = 1) -> None:
        """Free units that a client took."""
        self._free += units
        self._held[client] -= units
        if not self._held[client]:
            del self._held[client]

"""How many failed credentials one address may show: a bucket per address, bounded in memory (T36, T45)."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections import OrderedDict

from tower.clock import Clock


class Throttle:
    """Failures empty an address's bucket, time refills it. What held a moment ago is let through regardless.

    People behind one address share its bucket; without the memory of good credentials a guesser there could
    lock the others out.
    """

    def __init__(
        self, clock: Clock, *, burst: int = 60, per_second: float = 2.0, capacity: int = 4096
    ) -> None:
        self._clock = clock
        self._burst = float(burst)
        self._rate = per_second
        self._capacity = capacity
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._salt = secrets.token_bytes(16)

    def wait(self, address: str, credential: bytes) -> float:
        """Seconds until this address may try an unknown credential again; 0 means now."""
        level = self._level(_network(address))
        if level >= 1.0 or self._digest(credential) in self._good:
            return 0.0
        return (1.0 - level) / self._rate

    def failed(self, address: str, credential: bytes) -> None:
        """Count a credential that did not hold."""
        self._good.pop(self._digest(credential), None)
        network = _network(address)
        self._buckets[network] = (max(0.0, self._level(network) - 1.0), self._clock.now())
        self._buckets.move_to_end(network)
        while len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)

    def held(self, credential: bytes) -> None:
        """Remember a credential that held."""
        digest = self._digest(credential)
        self._good[digest] = None
        self._good.move_to_end(digest)
        while len(self._good) > self._capacity:
            self._good.popitem(last=False)

    def _level(self, network: str) -> float:
        level, at = self._buckets.get(network, (self._burst, 0.0))
        return min(self._burst, level + max(0.0, self._clock.now() - at) * self._rate)

    def _digest(self, credential: bytes) -> bytes:
        return hashlib.blake2b(credential, key=self._salt, digest_size=16).digest()


def _network(address: str) -> str:
    """The address itself, or the /64 of an IPv6 address: one host has all of it."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address

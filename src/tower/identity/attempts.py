"""How often somebody may guess: failures per account and per source address, bounded in memory (T36).

A failure is counted before the guess is checked and taken back when it was right, so that guesses made at the
same moment count too. An account that nobody has is counted like one that somebody has.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from math import ceil

from tower.clock import Clock
from tower.errors import Exhausted


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` failures at once, then one in `seconds`."""

    burst: int
    seconds: float


ACCOUNT = Rate(burst=10, seconds=30.0)
SOURCE = Rate(burst=50, seconds=5.0)


class Attempts:
    """Counts failures under names such as an account and an address."""

    def __init__(
        self, *, clock: Clock, account: Rate = ACCOUNT, source: Rate = SOURCE, capacity: int = 8192
    ) -> None:
        self._clock = clock
        self._accounts = _Buckets(account, capacity)
        self._sources = _Buckets(source, capacity)
        self._salt = secrets.token_bytes(16)

    def begin(self, *, account: str, source: str) -> None:
        """Count a guess. Raises Exhausted, which says how long to wait and not whether the account exists."""
        now = self._clock.now()
        names = self._names(account, source)
        wait = max(self._sources.wait(names[1], now), self._accounts.wait(names[0], now))
        if wait > 0:
            minutes = ceil(wait / 60)
            raise Exhausted(
                "Too many attempts.",
                hint=f"Try again in {minutes} minute{'s' if minutes > 1 else ''}.",
                wait=wait,
            )
        self._accounts.take(names[0], now)
        self._sources.take(names[1], now)

    def succeeded(self, *, account: str, source: str) -> None:
        """Take back what `begin` counted: the guess was right."""
        now = self._clock.now()
        names = self._names(account, source)
        self._accounts.give(names[0], now)
        self._sources.give(names[1], now)

    def _names(self, account: str, source: str) -> tuple[bytes, bytes]:
        texts = account.casefold()[:256], network(source)
        return tuple(  # type: ignore[return-value]
            hashlib.blake2b(text.encode(errors="replace"), key=self._salt, digest_size=16).digest()
            for text in texts
        )


class _Buckets:
    """How many failures each name has left; a full bucket need not be remembered."""

    def __init__(self, rate: Rate, capacity: int) -> None:
        self._rate = rate
        self._capacity = capacity
        self._levels: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def wait(self, name: bytes, now: float) -> float:
        """Seconds until there is one left."""
        missing = 1.0 - self._level(name, now)
        return max(0.0, missing * self._rate.seconds)

    def take(self, name: bytes, now: float) -> None:
        self._put(name, self._level(name, now) - 1.0, now)

    def give(self, name: bytes, now: float) -> None:
        self._put(name, min(float(self._rate.burst), self._level(name, now) + 1.0), now)

    def _put(self, name: bytes, level: float, now: float) -> None:
        self._levels[name] = (level, now)
        self._levels.move_to_end(name)
        while len(self._levels) > self._capacity:
            self._levels.popitem(last=False)

    def _level(self, name: bytes, now: float) -> float:
        level, at = self._levels.get(name, (float(self._rate.burst), now))
        return min(float(self._rate.burst), level + max(0.0, now - at) / self._rate.seconds)


def network(address: str) -> str:
    """The address itself, or the /64 of an IPv6 address: one host has all of it."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address

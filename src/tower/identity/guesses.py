"""How often credentials may fail, per source and per key, the same at every door (T36, T45).

A failure empties the bucket of its source and that of the key whose id it named; time refills both. With an
empty one no unknown credential is looked at, so that a right guess is not told from a wrong one. What held
before, since Tower started, is let through: people behind one address share its bucket, and a guesser there
must not lock the others out.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from tower.clock import Clock
from tower.errors import Exhausted
from tower.identity.attempts import network


@dataclass(frozen=True, slots=True)
class Pace:
    """`burst` failures at once, then `per_second`."""

    burst: int
    per_second: float


SOURCE = Pace(burst=200, per_second=4.0)
KEY = Pace(burst=200, per_second=1.0)
"""Of one key, from all sources together: whoever is that many may not guess at it in turn."""

_REMEMBERED = 65_536


class Guesses:
    """Counts what failed and remembers what held, both by keyed hashes: no credential is kept here."""

    def __init__(self, *, clock: Clock, source: Pace = SOURCE, key: Pace = KEY, capacity: int = 8192) -> None:
        self._clock = clock
        self._sources = _Buckets(source, capacity)
        self._keys = _Buckets(key, capacity)
        self.good: set[int] = set()
        """The keyed hashes of credentials that held."""
        self.busy = False
        """Whether anybody has to wait: while nobody has, callers need not be looked at."""
        self._salt = secrets.token_bytes(16)

    def wait(self, *, source: str, values: Iterable[str], keys: Iterable[str] = ()) -> float:
        """Seconds until this source may try these credentials; 0 means now. `keys` are the ids they name."""
        if all(hash(value) in self.good for value in values):
            return 0.0
        now = self._clock.now()
        names = [self._sources.wait(self._name(network(source)), now)]
        names += [self._keys.wait(self._name(key), now) for key in keys]
        self._look()
        return max(names)

    def check(self, *, source: str, values: Iterable[str], keys: Iterable[str] = ()) -> None:
        """Raise Exhausted, with the time to wait, where these credentials are not to be looked at now."""
        wait = self.wait(source=source, values=list(values), keys=keys)
        if wait > 0:
            raise Exhausted(
                "Too many credentials failed from your address.", hint="Wait a moment.", wait=wait
            )

    def failed(self, *, source: str, values: Iterable[str], keys: Iterable[str] = ()) -> None:
        """Count credentials that did not hold."""
        now = self._clock.now()
        self.good.difference_update(map(hash, values))
        self._sources.take(self._name(network(source)), now)
        for key in keys:
            self._keys.take(self._name(key), now)
        self._look()

    def knows(self, value: str) -> bool:
        """Whether this credential held before, and not failed since."""
        return hash(value) in self.good

    def held(self, value: str) -> None:
        """Remember a credential that held; for the hot path, who is in `good` already is not told again."""
        if len(self.good) >= _REMEMBERED:
            self.good.clear()
        self.good.add(hash(value))

    def _look(self) -> None:
        self.busy = bool(self._sources.empty or self._keys.empty)

    def _name(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode(errors="replace"), key=self._salt, digest_size=16).digest()


class _Buckets:
    """How many failures each name has left; a full bucket need not be remembered."""

    def __init__(self, pace: Pace, capacity: int) -> None:
        self._pace = pace
        self._capacity = capacity
        self._levels: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self.empty: set[bytes] = set()

    def wait(self, name: bytes, now: float) -> float:
        if name not in self.empty:
            return 0.0
        missing = 1.0 - self._level(name, now)
        if missing <= 0:
            self.empty.discard(name)
            return 0.0
        return missing / self._pace.per_second

    def take(self, name: bytes, now: float) -> None:
        level = max(0.0, self._level(name, now) - 1.0)
        self._levels[name] = (level, now)
        self._levels.move_to_end(name)
        if level < 1.0:
            self.empty.add(name)
        while len(self._levels) > self._capacity:
            forgotten, _ = self._levels.popitem(last=False)
            self.empty.discard(forgotten)

    def _level(self, name: bytes, now: float) -> float:
        level, at = self._levels.get(name, (float(self._pace.burst), now))
        return min(float(self._pace.burst), level + max(0.0, now - at) * self._pace.per_second)

"""Time and names, injected everywhere so that tests drive them."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no letter that reads like a digit."""


class Clock(Protocol):
    """Where every room reads the time and draws its names."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def name(self, prefix: str) -> str:
        """A fresh sortable name: the prefix and 19 characters, at most 30 in all."""


class SystemClock:
    """The machine's clock and its random source."""

    def __init__(self) -> None:
        self._random = iter(b"")

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()

    def name(self, prefix: str) -> str:
        """A fresh sortable name: 9 characters of milliseconds, 10 (50 bits) of randomness."""
        return prefix + _base32(int(time.time() * 1000), 9) + self._letters(10)

    def _letters(self, count: int) -> str:
        """Random letters, drawn many at a time: at each draw a busy thread may take the interpreter away."""
        letters = [ALPHABET[byte & 31] for byte in islice(self._random, count)]
        if len(letters) < count:
            self._random = iter(secrets.token_bytes(4096))
            letters += [ALPHABET[byte & 31] for byte in islice(self._random, count - len(letters))]
        return "".join(letters)


def utc(seconds: float) -> datetime:
    """Seconds since the epoch as an aware datetime."""
    return datetime.fromtimestamp(seconds, UTC)


def _base32(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, rest = divmod(number, 32)
        digits.append(ALPHABET[rest])
    return "".join(reversed(digits))

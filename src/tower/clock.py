"""Time and names, injected everywhere so that tests drive them."""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
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
        self._random: Iterator[tuple[int, ...]] = iter(())

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()

    def name(self, prefix: str) -> str:
        """A fresh sortable name: 9 characters of milliseconds, 10 (50 bits) of randomness."""
        return prefix + _base32(int(time.time() * 1000)) + self._letters()

    def _letters(self) -> str:
        """Ten random letters; many are drawn at once, since each draw may cost the thread its turn."""
        while True:
            drawn = next(self._random, None)
            if drawn is not None:
                return f"{_PAIRS[drawn[0] & 1023]}{_PAIRS[drawn[1] & 1023]}{_PAIRS[drawn[2] & 1023]}" + (
                    f"{_PAIRS[drawn[3] & 1023]}{_PAIRS[drawn[4] & 1023]}"
                )
            self._random = struct.iter_unpack("5H", secrets.token_bytes(5120))


def utc(seconds: float) -> datetime:
    """Seconds since the epoch as an aware datetime."""
    return datetime.fromtimestamp(seconds, UTC)


_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]


def _base32(number: int) -> str:
    """45 bits as 9 digits."""
    return (
        f"{ALPHABET[(number >> 40) & 31]}{_PAIRS[(number >> 30) & 1023]}{_PAIRS[(number >> 20) & 1023]}"
        f"{_PAIRS[(number >> 10) & 1023]}{_PAIRS[number & 1023]}"
    )

"""The keys that sign Tower's tokens: the newest signs, older ones verify until nothing they signed is left.

Each key is a file `<milliseconds>-<kid>.pem` in one folder, so several processes over the same home agree: an
unknown `kid` makes a process look into the folder again, at most once a second. Rotating takes nothing away
from anybody: what was signed before goes on to hold until it expires.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tower.clock import Clock
from tower.identity.signing import SigningKey

ROTATE_SECONDS = 30 * 24 * 3600.0
RETIRE_SECONDS = 2 * 3600.0
"""How long a key verifies after another one took over: longer than any token lives."""

_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Dated:
    key: SigningKey
    made_at: float


class KeyRing:
    """The live keys, newest first."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        first: SigningKey | None = None,
        rotate: float = ROTATE_SECONDS,
        kind: type[SigningKey] = SigningKey,
    ) -> None:
        """`first` is the key to begin with when the folder is empty; without it one of `kind` is made."""
        self._kind = kind
        self._folder = folder
        self._clock = clock
        self._rotate = rotate
        self._keys: list[_Dated] = []
        self._looked = 0.0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._look()
        if not self._keys:
            self._add(first or kind.generate())

    @property
    def current(self) -> SigningKey:
        """The key to sign with; replaced when it is older than `rotate` seconds."""
        newest = self._keys[0]
        if self._clock.now() - newest.made_at >= self._rotate:
            self._look()
            if self._clock.now() - self._keys[0].made_at >= self._rotate:
                self.rotate()
        return self._keys[0].key

    def find(self, kid: str) -> SigningKey | None:
        """The live key of this id."""
        for dated in self._live():
            if dated.key.kid == kid:
                return dated.key
        now = self._clock.now()
        if not 0 <= now - self._looked < _LOOK_SECONDS:
            self._look()
            return next((dated.key for dated in self._live() if dated.key.kid == kid), None)
        return None

    def rotate(self) -> SigningKey:
        """Make a new key and sign with it from now on; keys that are over are removed."""
        return self._add(self._kind.generate())

    def _add(self, made: SigningKey) -> SigningKey:
        newest = self._keys[0].made_at if self._keys else 0.0
        at = round(
            max(self._clock.now(), newest + 0.001), 3
        )  # the order of the names is the order of the keys
        self._keep(made, at)
        self._keys.insert(0, _Dated(made, at))
        live = {dated.key.kid for dated in self._live()}
        for path, _ in self._files():
            if path.stem.partition("-")[2] not in live:
                path.unlink(missing_ok=True)
        self._keys = [dated for dated in self._keys if dated.key.kid in live]
        return made

    def jwks(self) -> dict[str, Any]:
        """The public halves of all live keys (RFC 7517 section 5), for whoever verifies our tokens."""
        if self._clock.now() - self._looked >= _LOOK_SECONDS:
            self._look()
        return {"keys": [_public(dated.key) for dated in self._live()]}

    def _live(self) -> Iterator[_Dated]:
        """The newest key, and each older one until RETIRE_SECONDS after its successor was made."""
        now = self._clock.now()
        successor: float | None = None
        for dated in self._keys:
            if successor is None or now - successor < RETIRE_SECONDS:
                yield dated
            successor = dated.made_at

    def _look(self) -> None:
        known = {dated.key.kid: dated.key for dated in self._keys}
        found = []
        for path, at in self._files():
            kid = path.stem.partition("-")[2]
            try:
                found.append(_Dated(known.get(kid) or self._kind.load(path), at))
            except FileNotFoundError:  # pragma: no cover - another process removed it meanwhile
                continue
        self._keys = sorted(found, key=lambda dated: -dated.made_at) or self._keys
        self._looked = self._clock.now()

    def _files(self) -> list[tuple[Path, float]]:
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                at, _, kid = stem.partition("-")
                if suffix == ".pem" and at.isdigit() and kid:
                    found.append((Path(entry.path), int(at) / 1000))
        return found

    def _keep(self, key: SigningKey, at: float) -> None:
        key.save(self._folder / f"{round(at * 1000):015d}-{key.kid}.pem")


def _public(key: SigningKey) -> dict[str, Any]:
    return {**key.key.as_dict(private=False), "kid": key.kid, "use": "sig", "alg": key.algorithm}

"""Tickets: signed texts that stand in a URL and allow one thing for minutes, such as one upload.

A JWS with HS256 and a secret derived for this purpose alone, one `typ` per purpose, so that no ticket opens
another door and none can be mistaken for a caller's token.
"""

from __future__ import annotations

import json
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from tower.clock import Clock
from tower.errors import Denied
from tower.identity.signing import SigningKey

ALGORITHM = "HS256"
MAX_TEXT = 4096


class Tickets:
    """Makes and opens tickets of one purpose."""

    def __init__(self, *, key: SigningKey, clock: Clock, purpose: str) -> None:
        self._secret = OctKey.import_key(key.derive(f"ticket {purpose}"))
        self._header = {"alg": ALGORITHM, "typ": f"tower-{purpose}+jws"}
        self._clock = clock

    def seal(self, fields: dict[str, str | int], *, life: float) -> tuple[str, float]:
        """A ticket that says `fields` for `life` seconds, and when it ends (seconds since the epoch)."""
        ends = self._clock.now() + life
        payload = json.dumps({"fields": fields, "exp": ends}, separators=(",", ":")).encode()
        return jws.serialize_compact(self._header, payload, self._secret, algorithms=[ALGORITHM]), ends

    def open(self, text: str) -> dict[str, Any]:
        """The fields of a genuine ticket that has not ended. Raises Denied for every other text."""
        if len(text) > MAX_TEXT:
            raise _refused("too long")
        try:
            signed = jws.deserialize_compact(text, self._secret, algorithms=[ALGORITHM])
            if signed.protected != self._header:
                raise _refused("foreign header")
            content = json.loads(signed.payload or b"")
        except (JoseError, ValueError) as error:
            raise _refused(repr(error)) from error
        if content["exp"] <= self._clock.now():
            raise Denied("The link has ended.", hint="Ask for a new one.")
        fields = content["fields"]
        assert isinstance(fields, dict)
        return fields


def _refused(cause: str) -> Denied:
    return Denied("The link does not hold.", hint="Ask for a new one.", cause=cause)

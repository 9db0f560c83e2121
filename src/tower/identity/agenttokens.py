"""What the agent of an attempt holds on another node: a token of minutes, of worth only with the agent's key.

A JWS like Tower's other tokens, with a type of its own so that no door takes it for one of those. It names
the attempt and the agent's public key, never a right: who the attempt acts for is looked up at each use. With
it comes a proof of possession (`tower.possession`) for this one call; numbers of calls do not come twice.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from tower.clock import Clock
from tower.errors import Counterfeit
from tower.identity.signed import SignedTokens
from tower.identity.signing import Signing
from tower.possession import Half, Proof, Secret, public_key, text_of

TYPE = "tower-agent+jwt"
AUDIENCE = "tower"
PROOF_SECONDS = 60.0
"""How far the clocks of agent and Tower may be apart."""

_WINDOW = 1024
"""How many calls may overtake one another."""

_REMEMBERED = 16_384
_HINT = "It is good for one attempt, from its own agent."


@dataclass(frozen=True, slots=True)
class AgentClaims:
    """What an agent's token says; `key` is the agent's public half."""

    id: str
    attempt: str
    subject: str
    key: bytes
    issued_at: float
    expires_at: float


@dataclass(slots=True)
class _Numbers:
    """Which numbers of calls were seen of one key."""

    highest: int
    seen: set[int] = field(default_factory=set)


class AgentTokens:
    """Makes tokens and checks calls. `secret` is Tower's half of the agreement, 32 bytes."""

    def __init__(self, *, keys: Signing, secret: bytes, clock: Clock, issuer: str) -> None:
        self._half = Half.of(secret)
        self._clock = clock
        self._issuer = issuer
        self._signed: SignedTokens[AgentClaims] = SignedTokens(
            keys=keys,
            clock=clock,
            typ=TYPE,
            parse=self._parse,
            what="agent's token",
            hint=_HINT,
            expired="The agent renews it.",
            remember=_REMEMBERED,
        )
        self._secrets: OrderedDict[bytes, Secret] = OrderedDict()
        self._numbers: OrderedDict[bytes, _Numbers] = OrderedDict()
        self._floor = int(
            clock.now() * 1000
        )  # of keys whose numbers are not remembered, nothing older counts

    @property
    def public(self) -> bytes:
        """Tower's half of the agreement."""
        return self._half.public

    def mint(self, *, attempt: str, subject: str, key: bytes, life: float) -> tuple[str, AgentClaims]:
        """A token for the agent of an attempt; `life` in seconds."""
        now = self._clock.now()
        claims = AgentClaims(secrets.token_urlsafe(12), attempt, subject, key, now, now + life)
        payload = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "sub": claims.subject,
            "attempt": claims.attempt,
            "jti": claims.id,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
            "cnf": {"x25519": text_of(key)},
        }
        token = self._signed.sign(payload)
        self._signed.keep(token, claims)
        return token, claims

    def admit(self, token: str, proof: str, *, method: str, target: bytes) -> AgentClaims:
        """The claims of a token that comes from its holder, in this call. Raises Unauthenticated."""
        claims = self.verify(token)
        self.possessed(claims.key, proof, method=method, target=target, token=token)
        return claims

    def possessed(
        self, key: bytes, proof: str, *, method: str, target: bytes, token: str, body: bytes = b""
    ) -> None:
        """Raise Unauthenticated unless the proof is the key holder's, of this call, of now, and fresh."""
        try:
            given = Proof.read(proof)
            secret = self._secret(key)
        except ValueError as error:
            raise _refused("no proof of possession") from error
        if not secret.holds(given, method=method, target=target, token=token, body=body):
            raise _refused("a proof of another call")
        now = self._clock.now() * 1000
        if abs(given.at - now) > PROOF_SECONDS * 1000:
            raise _refused("an old proof, or clocks that differ")
        if not self._fresh(key, given):
            raise _refused("a proof that was used before")

    def verify(self, token: str) -> AgentClaims:
        """The claims of a genuine token that has not expired. Raises Unauthenticated for every other text."""
        return self._signed.verify(token)

    def _parse(self, payload: Any) -> AgentClaims:
        if payload["iss"] != self._issuer or payload["aud"] != AUDIENCE:
            raise ValueError("foreign issuer or audience")
        return AgentClaims(
            id=str(payload["jti"]),
            attempt=str(payload["attempt"]),
            subject=str(payload["sub"]),
            key=public_key(payload["cnf"]["x25519"]),
            issued_at=float(payload["iat"]),
            expires_at=float(payload["exp"]),
        )

    def _fresh(self, key: bytes, proof: Proof) -> bool:
        numbers = self._numbers.get(key)
        if numbers is None:
            if proof.at < self._floor:
                return False
            self._numbers[key] = _Numbers(proof.number, {proof.number})
            if len(self._numbers) > _REMEMBERED:
                self._numbers.popitem(last=False)
                self._floor = int(self._clock.now() * 1000)
            return True
        self._numbers.move_to_end(key)
        if proof.number in numbers.seen or proof.number <= numbers.highest - _WINDOW:
            return False
        numbers.seen.add(proof.number)
        if proof.number > numbers.highest:
            numbers.highest = proof.number
            if len(numbers.seen) > 2 * _WINDOW:
                oldest = numbers.highest - _WINDOW
                numbers.seen = {number for number in numbers.seen if number > oldest}
        return True

    def _secret(self, key: bytes) -> Secret:
        known = self._secrets.get(key)
        if known is None:
            known = self._secrets[key] = self._half.agree(key, self._half.public)
            if len(self._secrets) > _REMEMBERED:
                self._secrets.popitem(last=False)
        return known


def _refused(cause: str) -> Counterfeit:
    return Counterfeit(
        "The agent's token does not hold.",
        hint=_HINT,
        cause=cause,
    )

"""Run tokens: what an attempt shows where the kernel cannot vouch for it, over TLS instead of its socket.

A JWS with Tower's own Ed25519 key and the type `run+jwt`, good for minutes and bound to one attempt of one
action of one run. It says whose attempt it is and nothing about rights: the attempt is looked up at each use,
and with its end, or that of the person or of the key behind it, the token is refused. Whatever stands between
a process and Tower uses this kind: the command that the official SDK asks for its credential, and the agent
of another machine.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any

from tower.clock import Clock
from tower.errors import Unauthenticated
from tower.identity.directory import Attempts
from tower.identity.offers import Offer, Presented, Source
from tower.identity.principal import Principal
from tower.identity.signed import SignedTokens, claims_shape, type_of
from tower.identity.signing import Signing

TYPE = "run+jwt"
AUDIENCE = "tower"


@dataclass(frozen=True, slots=True)
class RunClaims:
    """What a run token says. `attempt` is `project/domain/run/action/attempt`; times are whole seconds."""

    id: str
    subject: str
    attempt: str
    issued_at: int
    expires_at: int


class RunTokens:
    """Makes and reads run tokens. What was verified once is remembered by its hash until it expires."""

    def __init__(self, *, keys: Signing, clock: Clock, issuer: str, remember: int = 4096) -> None:
        self._clock = clock
        self._issuer = issuer
        self._signed: SignedTokens[RunClaims] = SignedTokens(
            keys=keys,
            clock=clock,
            typ=TYPE,
            parse=self._parse,
            what="run token",
            hint="Ask the agent for another.",
            expired="Ask the agent for another.",
            remember=remember,
        )

    def mint(self, *, subject: str, attempt: str, life: float) -> tuple[str, RunClaims]:
        """A token for an attempt that acts for `subject`, for `life` seconds at most."""
        now = int(self._clock.now())
        claims = RunClaims(
            id=secrets.token_urlsafe(12),
            subject=subject,
            attempt=attempt,
            issued_at=now,
            expires_at=now + int(life),
        )
        payload = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "attempt": attempt,
            "jti": claims.id,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
        }
        return self._signed.sign(payload), claims

    def recognises(self, text: str) -> bool:
        """Whether the text presents itself as a run token, genuine or not."""
        return claims_shape(text) and type_of(text) == TYPE

    def verify(self, token: str) -> RunClaims:
        """The claims of a genuine token that has not expired. Raises Unauthenticated for every other text."""
        return self._signed.verify(token)

    def _parse(self, payload: Any) -> RunClaims:
        if payload["aud"] != AUDIENCE or payload["iss"] != self._issuer:
            raise ValueError("foreign issuer or audience")
        texts = [payload[name] for name in ("jti", "sub", "attempt")]
        times = [payload["iat"], payload["exp"]]
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError("a claim is missing")
        if not all(isinstance(time, int) and not isinstance(time, bool) for time in times):
            raise ValueError("a time is missing")
        return RunClaims(*texts, *times)


class RunTokenBearers:
    """A run token in `authorization`, over TLS. Good where the socket of the attempt is good."""

    def __init__(self, *, tokens: RunTokens, attempts: Attempts) -> None:
        self._tokens = tokens
        self._attempts = attempts

    async def authenticate(self, offer: Offer, presented: Presented) -> Principal | None:
        """The executor of the attempt, as its own socket names it."""
        if offer.source is not Source.AUTHORIZATION or not self._tokens.recognises(offer.value):
            return None
        if presented.audience == "console":
            raise Unauthenticated("The console is for browsers.")
        if presented.workload is not None:
            raise Unauthenticated("A run token is not for sockets of this machine.")
        if not presented.secure:
            raise Unauthenticated("A run token is good over TLS only.", hint="Start Tower with --tls.")
        claims = self._tokens.verify(offer.value)
        principal = await self._attempts.attempt(claims.attempt)
        if principal is None or principal.subject != claims.subject:
            raise Unauthenticated(
                "This attempt is over, and its identity with it.", hint="Nothing can be done from here."
            )
        credential = replace(principal.credential, attested=False, expires_at=float(claims.expires_at))
        return replace(principal, credential=credential)

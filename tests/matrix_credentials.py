"""What the callers of the matrix show: an issuer's tokens, a third party's deliveries, an agent's proofs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey
from tests.tower.identity.test_webhook_signatures import signed

from tower.control.agents import Agents
from tower.identity.webhooks import Scheme
from tower.possession import PROOF_HEADER, TOKEN_HEADER, TOKEN_PATH, Half, Secret, public_key

Headers = tuple[tuple[bytes, bytes], ...]
ISSUER, API = "https://id.example.com", "https://tower.example.com"
FOREIGN, STRANGER = (ECKey.generate_key("P-256", {"kid": "k", "alg": "ES256"}) for _ in range(2))


def access(claims: dict[str, Any], key: ECKey) -> str:
    """An access token as an identity provider makes it (RFC 9068)."""
    now = int(time.time())
    content = {
        "sub": "maker",
        "client_id": "cli",
        "groups": ["makers"],
        "iat": now,
        "exp": now + 600,
        **claims,
    }
    header = {"alg": "ES256", "typ": "at+jwt", "kid": "k"}
    return jws.serialize_compact(header, json.dumps(content).encode(), key, algorithms=["ES256"])


async def provider(url: str, *, bearer: str = "") -> dict[str, Any]:
    """What the identity provider answers."""
    if url == f"{ISSUER}/jwks":
        return {"keys": [FOREIGN.as_dict(private=False)]}
    assert url == f"{ISSUER}/.well-known/openid-configuration"
    names = ("jwks_uri", "authorization_endpoint", "token_endpoint")
    return {"issuer": ISSUER, **{name: f"{ISSUER}/{name.removesuffix('_uri')}" for name in names}}


def delivery(secret: bytes) -> Callable[[str, bytes, bytes], Headers]:
    """Each a moment later than the one before: none is a repetition."""
    numbers = iter(range(10_000))

    def sign(method: str, target: bytes, body: bytes) -> Headers:
        return tuple(signed(Scheme.HMAC, body, secret=secret, at=time.time() - 200 + next(numbers) % 400))

    return sign


class Agent:
    """The agent of an attempt on another machine, as far as its calls are concerned."""

    def __init__(self, agents: Agents, attempt: str) -> None:
        self.half = Half.generate()
        self.ticket = agents.ticket(attempt)
        self.secret: Secret = self.half.agree(self.half.public, public_key(agents.public))
        self.number = 0
        self.token = ""

    async def begin(self, agents: Agents) -> None:
        """Exchange the ticket."""
        proof = self.proof("POST", TOKEN_PATH.encode(), b"", token="")
        held = await agents.exchange(self.ticket, self.half.public, proof, b"", request_id="q")
        self.token = held.token

    def proof(self, method: str, target: bytes, body: bytes = b"", *, token: str) -> str:
        self.number += 1
        at = int(time.time() * 1000)
        made = self.secret.prove(
            method=method, target=target, token=token, at=at, number=self.number, body=body
        )
        return str(made)

    def sign(self, method: str, target: bytes, body: bytes) -> Headers:
        """The headers of one call."""
        if target == TOKEN_PATH.encode():
            return ((PROOF_HEADER, self.proof(method, target, body, token="").encode()),)
        proof = self.proof(method, target, token=self.token)
        return ((TOKEN_HEADER, self.token.encode()), (PROOF_HEADER, proof.encode()))

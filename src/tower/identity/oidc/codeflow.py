"""Signing in with a browser at an identity provider: the code flow with PKCE (RFC 7636), state and nonce.

The server keeps nothing of a flow that is under way. The browser keeps one random text in a cookie, and
state, nonce and code verifier are derived from it with a secret of Tower's: who has not that cookie can
finish no flow, and who has it learns nothing that the browser does not have anyway (T41).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from tower.clock import Clock
from tower.errors import Denied, Unauthenticated
from tower.identity.oidc import claims as said
from tower.identity.oidc import fetch
from tower.identity.oidc.claims import Person
from tower.identity.oidc.provider import Metadata, Provider
from tower.issuers import IssuerSettings

FLOW_SECONDS = 600
"""How long a person may take at the provider."""

_FLOW = re.compile(r"(\d{1,12})\.[A-Za-z0-9_-]{43}")
_MAX_CODE = 4096


@dataclass(frozen=True, slots=True)
class Begun:
    """Where to send the browser, and what it has to keep for `FLOW_SECONDS`."""

    location: str
    flow: str = field(repr=False)


class CodeFlow:
    """The relying party's half. `secret` is 32 bytes for this purpose alone."""

    def __init__(self, *, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    async def begin(self, provider: Provider, *, redirect_uri: str) -> Begun:
        """Start a flow. Raises Unavailable while the provider's metadata cannot be had."""
        metadata = await provider.metadata()
        flow = f"{int(self._clock.now())}.{secrets.token_urlsafe(32)}"
        derived = self._derived(flow, provider.settings)
        challenge = hashlib.sha256(derived["verifier"].encode()).digest()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": provider.settings.client_id,
                "redirect_uri": redirect_uri,
                "scope": " ".join(provider.settings.scopes),
                "state": derived["state"],
                "nonce": derived["nonce"],
                "code_challenge": _text(challenge),
                "code_challenge_method": "S256",
            }
        )
        endpoint = metadata.authorization_endpoint
        return Begun(f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}", flow)

    async def finish(
        self, provider: Provider, answer: Mapping[str, str], *, flow: str, redirect_uri: str
    ) -> Person:
        """Who signed in, by what the provider sent the browser back with.

        Raises Denied for an answer to a flow of another browser, Unauthenticated for one that does not hold,
        Unavailable while the provider does not answer.
        """
        settings = provider.settings
        begun = _FLOW.fullmatch(flow)
        if begun is None:
            raise _foreign()
        derived = self._derived(flow, settings)
        if not hmac.compare_digest(answer.get("state", "").encode(), derived["state"].encode()):
            raise _foreign()
        if not 0 <= self._clock.now() - int(begun[1]) <= FLOW_SECONDS:
            raise Denied("Signing in took too long.", hint="Begin again.")
        metadata = await provider.metadata()
        # the answer of one provider must not be taken to another one (RFC 9207)
        sender = answer.get("iss")
        if (sender is None and metadata.says_issuer) or (sender is not None and sender != settings.issuer):
            raise said.refused("the answer of another issuer")
        code = answer.get("code", "")
        if "error" in answer or not 0 < len(code) <= _MAX_CODE:
            raise Unauthenticated(
                f"{settings.shown} did not sign you in.",
                hint="Begin again.",
                cause=answer.get("error", "")[:200],
            )
        return await self._redeem(
            provider,
            metadata,
            code,
            verifier=derived["verifier"],
            nonce=derived["nonce"],
            redirect_uri=redirect_uri,
        )

    async def _redeem(
        self,
        provider: Provider,
        metadata: Metadata,
        code: str,
        *,
        verifier: str,
        nonce: str,
        redirect_uri: str,
    ) -> Person:
        settings = provider.settings
        secret = settings.client_secret()
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        basic = (settings.client_id, secret) if secret and metadata.basic else None
        if basic is None:
            fields["client_id"] = settings.client_id
            if secret:
                fields["client_secret"] = secret
        status, granted = await fetch.post(metadata.token_endpoint, fields, basic=basic)
        token, access = granted.get("id_token"), granted.get("access_token", "")
        if status != 200 or not isinstance(token, str) or not isinstance(access, str):
            cause = f"token endpoint: {status} {str(granted.get('error'))[:100]}"
            raise Unauthenticated(f"{settings.shown} did not sign you in.", hint="Begin again.", cause=cause)
        signed = await provider.verify(token)
        person = said.id_token(
            signed.header,
            signed.claims(),
            settings=settings,
            token=token,
            nonce=nonce,
            access=access,
            now=self._clock.now(),
        )
        lacking = not person.email or (person.groups is None and settings.groups_claim)
        if lacking and access and metadata.userinfo_endpoint:
            found = await fetch.get(metadata.userinfo_endpoint, bearer=access)
            person = said.add(person, found, settings=settings)
        return person

    def _derived(self, flow: str, settings: IssuerSettings) -> dict[str, str]:
        """Of one flow with one issuer; another issuer's would all be different (mix-up)."""
        return {
            name: _text(hmac.digest(self._secret, f"{name}\0{settings.issuer}\0{flow}".encode(), "sha256"))
            for name in ("state", "nonce", "verifier")
        }


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _foreign() -> Denied:
    return Denied("This sign-in was not begun in this browser.", hint="Begin again on the sign-in page.")

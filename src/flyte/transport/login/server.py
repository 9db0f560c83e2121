"""The OAuth endpoints of a control plane, as a client sees them.

Discovered at the endpoint itself (RFC 8414), and only used when they are at that very endpoint: what a server
says cannot send a credential to another host. Nothing is followed elsewhere and nothing is tried twice.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpcore

from flyte._config import Endpoint
from flyte.errors import FlyteError, InitializationError, ServerError, UnauthenticatedError, UnavailableError
from flyte.transport._pool import Pools
from flyte.transport.login.cache import Entry

CLIENT = "flyte"
SECONDS = 30.0
_MAX_BYTES = 256 * 1024
_WELL_KNOWN = "/.well-known/oauth-authorization-server"
_ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "device_authorization_endpoint",
    "revocation_endpoint",
)


class Refused(FlyteError):
    """An answer of the OAuth server that is no; `code` is the error of the RFC."""

    default_code = "oauth"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the endpoints are, all of them at the control plane itself."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    device_authorization_endpoint: str
    revocation_endpoint: str


class AuthServer:
    """Requests to the OAuth endpoints of one control plane."""

    def __init__(self, endpoint: Endpoint, *, ca_file: str | None = None) -> None:
        self.endpoint = endpoint
        self._pools = Pools(ca_file=ca_file)
        self._places: Places | None = None

    async def places(self) -> Places:
        """The endpoints. Raises FlyteError for a server without them, or with them elsewhere."""
        if self._places is None:
            status, told = await self._request("GET", self.endpoint.url + _WELL_KNOWN)
            if status != 200 or not isinstance(told, dict):
                raise ServerError(
                    f"{self.endpoint} signs nobody in.",
                    hint="Use an API key: set FLYTE_API_KEY, or `flyte login --key`.",
                )
            found = {name: self._own(told, name) for name in ("issuer", *_ENDPOINTS)}
            self._places = Places(**found)
        return self._places

    async def token(self, **fields: str) -> dict[str, Any]:
        """One request to the token endpoint. Raises Refused with the server's error code."""
        places = await self.places()
        return await self._post(places.token_endpoint, fields)

    async def device(self, **fields: str) -> dict[str, Any]:
        """Begin the device grant."""
        places = await self.places()
        return await self._post(places.device_authorization_endpoint, fields)

    async def refresh(self, entry: Entry) -> Entry:
        """New tokens for a login. Raises UnauthenticatedError when it has ended."""
        try:
            told = await self.token(grant_type="refresh_token", refresh_token=entry.refresh_token)
        except Refused as refused:
            if refused.code != "invalid_grant":
                raise
            raise UnauthenticatedError(
                f"The login of {entry.subject} at {entry.endpoint} has ended.",
                hint="Sign in again: flyte login.",
            ) from refused
        return self.entry(told, subject=entry.subject)

    async def revoke(self, entry: Entry) -> None:
        """End a login at the server, with every token that it has."""
        places = await self.places()
        fields = {"token": entry.refresh_token or entry.access_token}
        await self._post(places.revocation_endpoint, fields)

    async def subject(self, bearer: str) -> str:
        """Whom the server takes this credential for."""
        headers = [(b"authorization", b"Bearer " + bearer.encode("ascii"))]
        status, told = await self._request("GET", f"{self.endpoint.url}/api/v1/whoami", headers=headers)
        if status == 401:
            raise UnauthenticatedError("The control plane does not accept that credential.")
        if status != 200 or not isinstance(told, dict) or not isinstance(told.get("subject"), str):
            raise ServerError(f"{self.endpoint} does not say whom it signed in.")
        return str(told["subject"])

    def entry(self, told: dict[str, Any], *, subject: str) -> Entry:
        """The answer of the token endpoint as a login. Raises ServerError for one that is none."""
        access, lasting = told.get("access_token"), told.get("expires_in", 300)
        refresh, kind = told.get("refresh_token", ""), told.get("token_type", "")
        good = isinstance(access, str) and access.isascii() and access.isprintable() and " " not in access
        if not good or not isinstance(lasting, int | float) or not isinstance(refresh, str):
            raise ServerError(f"{self.endpoint} answered the login with no token.")
        if str(kind).lower() != "bearer":
            raise ServerError(f"{self.endpoint} gives out tokens of a kind that is not known here.")
        return Entry(
            endpoint=self.endpoint.url,
            subject=subject,
            access_token=str(access),
            refresh_token=refresh,
            expires_at=time.time() + float(lasting),
            scope=str(told.get("scope", "")),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pools.aclose()

    def _own(self, told: dict[str, Any], name: str) -> str:
        url = told.get(name)
        try:
            scheme, _, rest = str(url).partition("://")
            place = Endpoint.parse(f"{scheme}://{rest.partition('/')[0]}", insecure=scheme == "http")
        except InitializationError:
            place = None
        odd = (
            not isinstance(url, str) or not url.isascii() or not url.isprintable() or set(url) & set(" @\\#")
        )
        if (
            odd
            or place is None
            or place.scheme != self.endpoint.scheme
            or not place.same_place(self.endpoint)
        ):
            raise ServerError(
                f"{self.endpoint} names a place for logins that is not its own; nothing was sent there.",
                hint="Check the endpoint. Over a proxy, the control plane must know its public name.",
            )
        return str(url)

    async def _post(self, url: str, fields: dict[str, str]) -> dict[str, Any]:
        body = urlencode({"client_id": CLIENT, **fields}).encode()
        headers = [(b"content-type", b"application/x-www-form-urlencoded")]
        status, told = await self._request("POST", url, headers=headers, content=body)
        if status == 200:
            return told if isinstance(told, dict) else {}
        error = told.get("error") if isinstance(told, dict) else None
        if isinstance(error, str):
            description = told.get("error_description")
            raise Refused(str(description or error), code=error)
        if status in {429, 502, 503, 504}:
            raise UnavailableError(f"{self.endpoint} cannot sign anybody in at the moment.")
        raise ServerError(f"{self.endpoint} answered the login with HTTP {status}.")

    async def _request(
        self,
        method: str,
        url: str,
        *,
        headers: list[tuple[bytes, bytes]] | None = None,
        content: bytes = b"",
    ) -> tuple[int, Any]:
        sent = [
            (b"accept", b"application/json"),
            (b"user-agent", b"flyte-tower/1"),
            *(headers or ()),
        ]
        try:
            async with self._pools.request(
                "unary", method, url, headers=sent, content=content, read_seconds=SECONDS
            ) as answer:
                raw = bytearray()
                async for chunk in answer.aiter_stream():
                    raw += chunk
                    if len(raw) > _MAX_BYTES:
                        raise ServerError(f"{self.endpoint} answers with more than a login needs.")
                status = answer.status
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            from flyte.transport.connect import unreachable

            raise unreachable(self.endpoint.url, error) from error
        try:
            return status, json.loads(raw) if raw else None
        except ValueError:
            return status, None

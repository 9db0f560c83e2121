"""The endpoints that programs call: token, device, revocation, introspection, user information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tower.control.oauth import Authorisations, Devices, Issued, Refusal, Tokens, discovery
from tower.identity import clients
from tower.identity.chain import Chain, Presented
from tower.identity.directory import KeyFacts
from tower.oauth.requests import client_credentials, device, form, host, secure, source

_CONFIRM = "/device"
_SUBJECT_TOKEN_TYPES = frozenset(
    {
        "urn:ietf:params:oauth:token-type:access_token",
        "urn:ietf:params:oauth:token-type:jwt",
    }
)


class Endpoints:
    """The handlers."""

    def __init__(
        self,
        *,
        chain: Chain,
        authorisations: Authorisations,
        devices: Devices,
        tokens: Tokens,
        issuer: Callable[[str], str],
    ) -> None:
        self._chain = chain
        self._authorisations = authorisations
        self._devices = devices
        self._tokens = tokens
        self._issuer = issuer

    async def token(self, request: Request) -> Response:
        """RFC 6749 section 3.2: one grant each."""
        fields = await form(request)
        client, secret = client_credentials(request, fields)
        issuer = self._issuer(host(request))
        request_id = request.state.request_id
        grant = fields.get("grant_type", "")
        if grant not in discovery.GRANTS:
            raise Refusal("unsupported_grant_type", f"The grants are {', '.join(discovery.GRANTS)}.")
        key = await self._key(request, client, secret)
        if grant == discovery.CLIENT_CREDENTIALS:
            if key is None:
                raise Refusal("invalid_client", "An API key's id and secret are needed.", status=401)
            _check_audience(fields, issuer)
            issued = await self._tokens.of_client(
                key, scope=fields.get("scope", ""), issuer=issuer, request_id=request_id
            )
        elif grant == discovery.TOKEN_EXCHANGE:
            if key is None:
                raise Refusal("invalid_client", "An API key's id and secret are needed.", status=401)
            issued = await self._exchange(request, fields, key)
        elif client != clients.PUBLIC or key is not None:
            raise Refusal("unauthorized_client", "This grant is for people's command lines.")
        elif grant == discovery.AUTHORIZATION_CODE:
            issued = await self._authorisations.redeem(
                client=client,
                code=_needed(fields, "code"),
                redirect_uri=fields.get("redirect_uri", ""),
                verifier=_needed(fields, "code_verifier"),
                device=device(request, fields),
                place=source(request),
                issuer=issuer,
                request_id=request_id,
            )
        elif grant == discovery.REFRESH_TOKEN:
            issued = await self._tokens.refresh(
                client=client,
                refresh_token=_needed(fields, "refresh_token"),
                scope=fields.get("scope", ""),
                issuer=issuer,
                request_id=request_id,
            )
        else:
            issued = await self._devices.poll(
                client=client,
                device_code=_needed(fields, "device_code"),
                issuer=issuer,
                request_id=request_id,
            )
        return JSONResponse(_shown(issued))

    async def device(self, request: Request) -> Response:
        """RFC 8628 section 3.1: a device asks to be confirmed."""
        fields = await form(request)
        client, secret = client_credentials(request, fields)
        if secret is not None:
            raise Refusal("unauthorized_client", "This grant is for people's command lines.")
        waiting = await self._devices.begin(
            client=client,
            scope=fields.get("scope", ""),
            device=device(request, fields),
            place=source(request),
        )
        page = self._issuer(host(request)) + _CONFIRM
        return JSONResponse(
            {
                "device_code": waiting.device_code,
                "user_code": waiting.user_code,
                "verification_uri": page,
                "verification_uri_complete": f"{page}?code={waiting.user_code}",
                "expires_in": waiting.expires_in,
                "interval": waiting.interval,
            }
        )

    async def revoke(self, request: Request) -> Response:
        """RFC 7009 section 2: 200 also for a token that does not hold."""
        fields = await form(request)
        client, secret = client_credentials(request, fields)
        key = await self._key(request, client, secret)
        if key is None and client != clients.PUBLIC:
            raise Refusal("invalid_client", "There is no such client.", status=401)
        await self._tokens.revoke(
            _needed(fields, "token"), client=client, key=key, request_id=request.state.request_id
        )
        return Response(status_code=200)

    async def introspect(self, request: Request) -> Response:
        """RFC 7662 section 2: for programs with a key."""
        fields = await form(request)
        client, secret = client_credentials(request, fields)
        if await self._key(request, client, secret) is None:
            raise Refusal("invalid_client", "An API key's id and secret are needed.", status=401)
        return JSONResponse(await self._tokens.introspect(_needed(fields, "token")))

    async def userinfo(self, request: Request) -> Response:
        """OpenID Connect Core section 5.3: who the bearer of the token is."""
        presented = Presented(
            headers=tuple(request.scope["headers"]),
            secure=secure(request),
            host=host(request),
            audience="rest",
            client=source(request),
        )
        caller = await self._chain.authenticate(presented)
        told = {"sub": caller.subject, "preferred_username": caller.subject}
        if caller.name:
            told["name"] = caller.name
        if caller.email:
            told["email"] = caller.email
        return JSONResponse(told)

    async def _exchange(self, request: Request, fields: dict[str, str], client: KeyFacts) -> Issued:
        if fields.get("subject_token_type") not in _SUBJECT_TOKEN_TYPES or "actor_token" in fields:
            raise Refusal("invalid_request", "The subject token is the caller's credential, an access token.")
        return await self._tokens.exchange(
            client,
            subject_token=_needed(fields, "subject_token"),
            audience=_needed(fields, "audience"),
            secure=secure(request),
            host=host(request),
            source=source(request),
            request_id=request.state.request_id,
        )

    async def _key(self, request: Request, client: str, secret: str | None) -> KeyFacts | None:
        if secret is None:
            return None
        return await self._tokens.authenticate_client(client, secret, source=source(request))


def _needed(fields: dict[str, str], name: str) -> str:
    value = fields.get(name, "")
    if not value or len(value) > 8192 or not value.isascii():
        raise Refusal("invalid_request", f"The field {name} is needed.")
    return value


def _check_audience(fields: dict[str, str], issuer: str) -> None:
    """Tokens are for Tower alone; a client that names somebody else would be told a lie."""
    if fields.get("audience", "") not in {"", "tower", issuer, f"{issuer}/"}:
        raise Refusal("invalid_target", "Tokens for another audience are not given out.")


def _shown(issued: Issued) -> dict[str, Any]:
    told = {
        "access_token": issued.access_token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
        "scope": issued.scope,
        "refresh_token": issued.refresh_token,
        "id_token": issued.id_token,
        "issued_token_type": issued.issued_token_type,
    }
    return {name: value for name, value in told.items() if value != ""}

"""What a client learns before it begins: RFC 8414 and OpenID Connect Discovery 1.0, one document for both."""

from __future__ import annotations

from typing import Any

from tower.identity.clients import SCOPES

PREFIX = "/oauth2"
AUTHORIZE = f"{PREFIX}/authorize"
TOKEN = f"{PREFIX}/token"
DEVICE = f"{PREFIX}/device"
REVOKE = f"{PREFIX}/revoke"
INTROSPECT = f"{PREFIX}/introspect"
USERINFO = f"{PREFIX}/userinfo"
JWKS = f"{PREFIX}/jwks"

AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"  # noqa: S105  (a name of a grant)
CLIENT_CREDENTIALS = "client_credentials"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  (a name of a grant)
GRANTS = (AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS, DEVICE_CODE, TOKEN_EXCHANGE)

_METHODS = ["client_secret_basic", "client_secret_post"]


def metadata(issuer: str) -> dict[str, Any]:
    """The document for clients that know this Tower as `issuer`."""
    return {
        "issuer": issuer,
        "authorization_endpoint": issuer + AUTHORIZE,
        "token_endpoint": issuer + TOKEN,
        "device_authorization_endpoint": issuer + DEVICE,
        "revocation_endpoint": issuer + REVOKE,
        "introspection_endpoint": issuer + INTROSPECT,
        "userinfo_endpoint": issuer + USERINFO,
        "jwks_uri": issuer + JWKS,
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANTS),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", *_METHODS],
        "revocation_endpoint_auth_methods_supported": ["none", *_METHODS],
        "introspection_endpoint_auth_methods_supported": _METHODS,
        "authorization_response_iss_parameter_supported": True,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["Ed25519", "RS256"],
        "claims_supported": ["sub", "name", "email", "auth_time", "nonce"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }

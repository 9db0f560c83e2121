"""Who the caller is, and how to become one: IdentityService and AuthMetadataService."""

from __future__ import annotations

from typing import Any

from flyteidl2.auth import auth_service_pb2, identity_pb2

from tower.control.oauth import discovery
from tower.identity import clients
from tower.rpc.caller import base_url, current

METADATA_KEY = "authorization"
"""The header that carries a credential. Clients take an empty answer for an empty header name."""


class IdentityService:
    """flyteidl2.auth.IdentityService."""

    async def user_info(self, request: Any, ctx: Any) -> Any:
        """The caller: the same subject that a run of theirs records (R3)."""
        principal = current().principal
        first, _, last = principal.name.partition(" ")
        answer = identity_pb2.UserInfoResponse(
            subject=principal.subject,
            name=principal.name,
            preferred_username=principal.subject,
            given_name=first,
            family_name=last,
            email=principal.email,
        )
        answer.additional_claims.update(
            {
                "kind": principal.kind.value,
                "credential_kind": principal.credential.kind.value,
                "credential_id": principal.credential.root,
                "via_app": principal.via_app,
                "actors": [str(actor) for actor in principal.actors],
            }
        )
        return answer


class AuthMetadataService:
    """flyteidl2.auth.AuthMetadataService: open to anyone, and says no more than a client needs."""

    async def get_o_auth2_metadata(self, request: Any, ctx: Any) -> Any:
        """Where tokens come from: the document of RFC 8414 as a message."""
        told = discovery.metadata(base_url())
        names = auth_service_pb2.GetOAuth2MetadataResponse.DESCRIPTOR.fields_by_name
        return auth_service_pb2.GetOAuth2MetadataResponse(
            **{name: value for name, value in told.items() if name in names}
        )

    async def get_public_client_config(self, request: Any, ctx: Any) -> Any:
        """What a command line needs to sign a person in, and which header carries the credential."""
        return auth_service_pb2.GetPublicClientConfigResponse(
            client_id=clients.PUBLIC,
            redirect_uri=clients.REDIRECT_URI,
            scopes=[clients.ALL],
            authorization_metadata_key=METADATA_KEY,
        )

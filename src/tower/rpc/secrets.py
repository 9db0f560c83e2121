"""SecretService: translates, decides nothing. No answer has a value."""

from __future__ import annotations

from typing import Any

from flyteidl2.secret import definition_pb2, payload_pb2

from tower.control.secrets import SecretPlace, SecretRow, Secrets
from tower.errors import Invalid, Unsupported
from tower.rpc.caller import current
from tower.rpc.messages import stamp

_GENERIC = definition_pb2.SECRET_TYPE_GENERIC


class SecretService:
    """flyteidl2.secret.SecretService. Personal secrets have no form here: the administration API has them."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def create_secret(self, request: Any, ctx: Any) -> Any:
        """Keep a new secret."""
        call = current()
        await self._secrets.create(
            call.principal, _place(request.id), _value(request.secret_spec), request_id=call.request_id
        )
        return payload_pb2.CreateSecretResponse()

    async def update_secret(self, request: Any, ctx: Any) -> Any:
        """Put another value in place of the former one."""
        call = current()
        await self._secrets.update(
            call.principal, _place(request.id), _value(request.secret_spec), request_id=call.request_id
        )
        return payload_pb2.UpdateSecretResponse()

    async def get_secret(self, request: Any, ctx: Any) -> Any:
        """One secret, without its value."""
        call = current()
        row = await self._secrets.get(call.principal, _place(request.id), request_id=call.request_id)
        return payload_pb2.GetSecretResponse(secret=_secret(row))

    async def list_secrets(self, request: Any, ctx: Any) -> Any:
        """Those that the caller may know of, within the project and domain where the request names them."""
        if request.token and not (request.token.isdecimal() and len(request.token) < 9):
            raise Invalid("The page token does not belong to this list.")
        page = await self._secrets.page(
            current().principal,
            project=request.project,
            domain=request.domain,
            after=int(request.token or 0),
            limit=request.limit,
        )
        return payload_pb2.ListSecretsResponse(secrets=[_secret(row) for row in page.rows], token=page.token)

    async def delete_secret(self, request: Any, ctx: Any) -> Any:
        """Forget a secret."""
        call = current()
        await self._secrets.delete(call.principal, _place(request.id), request_id=call.request_id)
        return payload_pb2.DeleteSecretResponse()


def _place(identity: definition_pb2.SecretIdentifier) -> SecretPlace:
    return SecretPlace(identity.name, identity.project, identity.domain)


def _value(spec: definition_pb2.SecretSpec) -> bytes:
    if spec.type != _GENERIC:
        raise Unsupported("Secrets for pulling images are not offered: nothing is pulled here.")
    if spec.WhichOneof("value") == "binary_value":
        return bytes(spec.binary_value)
    return str(spec.string_value).encode()


def _secret(row: SecretRow) -> definition_pb2.Secret:
    return definition_pb2.Secret(
        id=definition_pb2.SecretIdentifier(name=row.name, project=row.project, domain=row.domain),
        secret_metadata=definition_pb2.SecretMetadata(
            created_time=stamp(row.created_at),
            secret_status=definition_pb2.SecretStatus(overall_status=definition_pb2.FULLY_PRESENT),
            type=_GENERIC,
        ),
    )

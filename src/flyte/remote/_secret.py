"""Secrets by name: kept, listed and forgotten as the caller. A value goes in and never comes out."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from flyteidl2.secret import definition_pb2, payload_pb2

from flyte._init import current_session
from flyte._syncify import syncify_class
from flyte.errors import RemoteNotFoundError, RemoteSecretNotFoundError
from flyte.remote._wire import instant, pages

_SERVICE = "/flyteidl2.secret.SecretService/"


class Secret:
    """A secret that the caller may know of. Personal ones are for the command line: `--personal`."""

    def __init__(self, secret: definition_pb2.Secret) -> None:
        self.pb2 = secret

    @syncify_class
    @classmethod
    async def create(
        cls,
        name: str,
        value: str | bytes,
        type: Literal["regular"] = "regular",  # noqa: A002 - as in the official SDK
        *,
        project: str | None = None,
        domain: str | None = None,
    ) -> None:
        """Keep a secret for a domain of a project, the session's unless given; "" is for all there are.

        Raises AlreadyExistsError, PermissionDeniedError, RemoteSecretNotFoundError, RemoteUsageError.
        """
        if type != "regular":
            raise ValueError("Secrets for pulling images are not offered.")
        spec = definition_pb2.SecretSpec(
            **({"string_value": value} if isinstance(value, str) else {"binary_value": value})
        )
        request = payload_pb2.CreateSecretRequest(id=_place(name, project, domain), secret_spec=spec)
        await _ask("CreateSecret", request, payload_pb2.CreateSecretResponse)

    @syncify_class
    @classmethod
    async def get(cls, name: str, *, project: str | None = None, domain: str | None = None) -> Secret:
        """All about a secret but its value. Raises RemoteSecretNotFoundError."""
        request = payload_pb2.GetSecretRequest(id=_place(name, project, domain))
        answer = await _ask("GetSecret", request, payload_pb2.GetSecretResponse, idempotent=True)
        return cls(answer.secret)

    @syncify_class
    @classmethod
    async def listall(
        cls, limit: int | None = None, *, project: str | None = None, domain: str | None = None
    ) -> AsyncIterator[Secret]:
        """The secrets there, `limit` of them at most, by name."""
        scope = _place("", project, domain)

        async def fetch(size: int, token: str) -> tuple[Sequence[definition_pb2.Secret], str]:
            request = payload_pb2.ListSecretsRequest(
                organization=scope.organization,
                project=scope.project,
                domain=scope.domain,
                limit=size,
                token=token,
            )
            answer = await _ask("ListSecrets", request, payload_pb2.ListSecretsResponse, idempotent=True)
            return answer.secrets, answer.token

        async for each in pages(fetch, limit=limit):
            yield cls(each)

    @syncify_class
    @classmethod
    async def delete(cls, name: str, *, project: str | None = None, domain: str | None = None) -> None:
        """Forget a secret. Raises PermissionDeniedError, RemoteSecretNotFoundError."""
        request = payload_pb2.DeleteSecretRequest(id=_place(name, project, domain))
        await _ask("DeleteSecret", request, payload_pb2.DeleteSecretResponse)

    @property
    def name(self) -> str:
        """What `flyte.Secret` is given."""
        return str(self.pb2.id.name)

    @property
    def project(self) -> str:
        """Its project; empty for one of the whole installation."""
        return str(self.pb2.id.project)

    @property
    def domain(self) -> str:
        """Its domain; empty for one of the whole project."""
        return str(self.pb2.id.domain)

    @property
    def type(self) -> str:
        """As the official SDK calls it."""
        return "regular"

    @property
    def created_at(self) -> dt.datetime | None:
        """When it was created, in UTC."""
        return instant(self.pb2.secret_metadata.created_time)

    def to_dict(self) -> dict[str, Any]:
        """Name, place and time."""
        return {
            "name": self.name,
            "project": self.project,
            "domain": self.domain,
            "created_at": self.created_at,
        }

    def __repr__(self) -> str:
        return f"<Secret {self.name}>"


def _place(name: str, project: str | None, domain: str | None) -> definition_pb2.SecretIdentifier:
    """Where: what is named, else the session's; a project that is named alone means all of it."""
    session = current_session()
    if project is None:
        project = session.project or ""
        domain = (session.domain or "") if domain is None else domain
    return definition_pb2.SecretIdentifier(
        name=name, organization=session.org, project=project, domain=domain or ""
    )


async def _ask(method: str, request: Any, response: Any, *, idempotent: bool = False) -> Any:
    session = current_session()
    try:
        return await session.unary(f"{_SERVICE}{method}", request, response, idempotent=idempotent)
    except RemoteNotFoundError as error:
        raise RemoteSecretNotFoundError(error.message, hint=error.hint) from None

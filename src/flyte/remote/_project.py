"""Projects and their domains."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from flyteidl2.project import project_service_pb2 as wire

from flyte._init import current_session
from flyte._syncify import syncify_class
from flyte.remote._wire import pages

_SERVICE = "/flyteidl2.project.ProjectService/"


class Project:
    """A project that the caller may see."""

    def __init__(self, project: wire.Project) -> None:
        self.pb2 = project

    @syncify_class
    @classmethod
    async def get(cls, name: str, *, org: str | None = None) -> Project:
        """One project. Raises RemoteNotFoundError when there is none that the caller may see."""
        session = current_session()
        request = wire.GetProjectRequest(id=name, org=org or session.org)
        answer = await session.unary(
            f"{_SERVICE}GetProject", request, wire.GetProjectResponse, idempotent=True
        )
        return cls(answer.project)

    @syncify_class
    @classmethod
    async def create(cls, name: str, *, description: str = "", org: str | None = None) -> Project:
        """Make a project. Raises AlreadyExistsError, PermissionDeniedError."""
        session = current_session()
        project = wire.Project(id=name, name=name, description=description, org=org or session.org)
        await session.unary(
            f"{_SERVICE}CreateProject",
            wire.CreateProjectRequest(project=project),
            wire.CreateProjectResponse,
            deduplicated=session.is_tower,
        )
        return await cls.get.aio(name, org=org)

    @syncify_class
    @classmethod
    async def listall(cls, *, org: str | None = None, limit: int | None = None) -> AsyncIterator[Project]:
        """The projects that the caller may see."""
        session = current_session()

        async def fetch(size: int, token: str) -> tuple[Sequence[wire.Project], str]:
            request = wire.ListProjectsRequest(limit=size, token=token, org=org or session.org)
            answer = await session.unary(
                f"{_SERVICE}ListProjects", request, wire.ListProjectsResponse, idempotent=True
            )
            return answer.projects.projects, answer.projects.token

        async for each in pages(fetch, limit=limit):
            yield cls(each)

    @property
    def name(self) -> str:
        """The identifier, as used in every other call."""
        return str(self.pb2.id)

    @property
    def display_name(self) -> str:
        """The name for people."""
        return str(self.pb2.name)

    @property
    def description(self) -> str:
        """What it is for."""
        return str(self.pb2.description)

    @property
    def domains(self) -> tuple[str, ...]:
        """The identifiers of its domains."""
        return tuple(str(domain.id) for domain in self.pb2.domains)

    def to_dict(self) -> dict[str, Any]:
        """Name, description and domains."""
        return {"name": self.name, "description": self.description, "domains": list(self.domains)}

    def __repr__(self) -> str:
        return f"<Project {self.name}>"

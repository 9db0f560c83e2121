"""Apps: what is served, where, and whether it is up."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from flyteidl2.app import app_definition_pb2 as wire
from flyteidl2.app import app_logs_payload_pb2 as logs
from flyteidl2.app import app_payload_pb2 as payload
from flyteidl2.common import identifier_pb2, list_pb2

from flyte._init import current_session
from flyte._syncify import syncify, syncify_class
from flyte.errors import DeploymentError, RemoteAppNotFoundError, RemoteNotFoundError
from flyte.remote._logs import LogLine, what_is_there
from flyte.remote._wire import newest_first, pages, subject
from flyte.transport.session import Session

_SERVICE = "/flyteidl2.app.AppService/"
_LOGS = "/flyteidl2.app.AppLogsService/TailLogs"
_Desired = wire.Spec.DesiredState
_Status = wire.Status.DeploymentStatus
_UP = frozenset({"ACTIVE", "STARTED"})


class App:
    """An app as it stood when it was last asked for.

    :ivar pb2: everything that the control plane says.
    """

    def __init__(self, session: Session, app: wire.App) -> None:
        self._console = session.console_url
        self.pb2 = app

    @syncify_class
    @classmethod
    async def get(cls, name: str, project: str | None = None, domain: str | None = None) -> App:
        """One app. Raises RemoteAppNotFoundError when there is none that the caller may see."""
        session = current_session()
        project, domain = session.scope(project, domain)
        identity = wire.Identifier(org=session.org, project=project, domain=domain, name=name)
        return cls(session, await _get(session, identity))

    @syncify_class
    @classmethod
    async def listall(
        cls, *, project: str | None = None, domain: str | None = None, limit: int | None = 100
    ) -> AsyncIterator[App]:
        """The apps that the caller may see, newest first."""
        session = current_session()
        project, domain = session.scope(project, domain)
        place = identifier_pb2.ProjectIdentifier(organization=session.org, name=project, domain=domain)

        async def fetch(size: int, token: str) -> tuple[Sequence[wire.App], str]:
            request = payload.ListRequest(
                request=list_pb2.ListRequest(limit=size, token=token, sort_by=newest_first()), project=place
            )
            answer = await session.unary(f"{_SERVICE}List", request, payload.ListResponse, idempotent=True)
            return answer.apps, answer.token

        async for each in pages(fetch, limit=limit):
            yield cls(session, each)

    @property
    def name(self) -> str:
        """The name, unique within project and domain."""
        return str(self.pb2.metadata.id.name)

    @property
    def project(self) -> str:
        """The project it belongs to."""
        return str(self.pb2.metadata.id.project)

    @property
    def domain(self) -> str:
        """The domain it belongs to."""
        return str(self.pb2.metadata.id.domain)

    @property
    def revision(self) -> int:
        """Counts up with each change."""
        return int(self.pb2.metadata.revision)

    @property
    def description(self) -> str:
        """What it is for."""
        return str(self.pb2.spec.profile.short_description)

    @property
    def status(self) -> str:
        """`ACTIVE`, `PENDING`, `STOPPED`, `FAILED` and so on, as of the last condition."""
        conditions = self.pb2.status.conditions
        number = conditions[-1].deployment_status if conditions else 0
        return str(_Status.Name(number)).removeprefix("DEPLOYMENT_STATUS_")

    @property
    def message(self) -> str:
        """What the last condition says about itself."""
        conditions = self.pb2.status.conditions
        return str(conditions[-1].message) if conditions else ""

    @property
    def desired_state(self) -> str:
        """`ACTIVE`, `STARTED` or `STOPPED`: what it is meant to be."""
        return str(_Desired.Name(self.pb2.spec.desired_state)).removeprefix("DESIRED_STATE_")

    @property
    def endpoint(self) -> str:
        """Where it is served."""
        return str(self.pb2.status.ingress.public_url)

    @property
    def url(self) -> str:
        """Its page in the console."""
        return f"{self._console}/v2/domain/{self.domain}/project/{self.project}/apps/{self.name}"

    @property
    def requires_auth(self) -> bool:
        """Whether the gateway lets known callers through only."""
        return not self.pb2.spec.security_context.allow_anonymous

    @property
    def deployed_by(self) -> str:
        """The subject of who deployed it."""
        return subject(self.pb2.spec.creator)

    @property
    def created_at(self) -> dt.datetime | None:
        """When it was first deployed, in UTC."""
        from flyte.remote._wire import instant

        return instant(self.pb2.status.created_at)

    @syncify
    async def sync(self) -> App:
        """Ask how it stands, as the caller of this moment. Gives the app itself."""
        self.pb2 = await _get(current_session(), self.pb2.metadata.id)
        return self

    @syncify
    async def start(self, *, wait: bool = False) -> App:
        """Let it serve. Gives the app itself; with `wait`, once it is up."""
        await self._want(_Desired.DESIRED_STATE_ACTIVE)
        if wait:
            await self.wait.aio()
        return self

    @syncify
    async def stop(self, *, wait: bool = False) -> App:
        """Take it down; requests do not wake it. Gives the app itself; with `wait`, once it is down."""
        await self._want(_Desired.DESIRED_STATE_STOPPED)
        if wait:
            await self.wait.aio(stopped=True)
        return self

    activate = start
    deactivate = stop

    @syncify
    async def wait(self, *, stopped: bool = False, timeout: float | None = None) -> App:  # noqa: ASYNC109
        """Wait until it is up, or down. Raises DeploymentError when it cannot come up.

        :param timeout: seconds; TimeoutError afterwards.
        """
        wanted = frozenset({"STOPPED"}) if stopped else _UP
        async with asyncio.timeout(timeout), contextlib.aclosing(self.watch.aio()) as changes:
            async for _ in changes:
                if self.status in wanted:
                    return self
                if self.status == "FAILED" and not stopped:
                    raise DeploymentError(f"The app {self.name} does not come up: {self.message}")
        return self

    @syncify
    async def watch(self) -> AsyncIterator[App]:
        """The app itself, at once and after each change, until it is deleted."""
        session = current_session()
        identity = self.pb2.metadata.id
        events = session.stream(
            f"{_SERVICE}Watch", payload.WatchRequest(app_id=identity), payload.WatchResponse
        )
        with _as_app(identity):
            async with contextlib.aclosing(events):
                async for event in events:
                    match event.WhichOneof("event"):
                        case "create_event":
                            self.pb2 = event.create_event.app
                        case "update_event":
                            self.pb2 = event.update_event.updated_app
                        case "delete_event":
                            return
                    yield self

    @syncify
    async def logs(self, *, follow: bool = True) -> AsyncIterator[LogLine]:
        """What it wrote, line by line; without `follow` what there is now."""
        identity = self.pb2.metadata.id
        session = current_session()
        if not follow and not session.has_answered:
            await self.sync.aio()
        source = session.stream(_LOGS, logs.TailLogsRequest(app_id=identity), logs.TailLogsResponse)
        now = what_is_there(source, session, lines=lambda each: len(each.batches.logs))
        with _as_app(identity):
            async for answer in source if follow else now:
                for batch in answer.batches.logs:
                    for line in batch.structured_lines:
                        yield LogLine.of(line)
                    if not batch.structured_lines:
                        for text in batch.lines:
                            yield LogLine(text.removesuffix("\n"))

    @syncify
    async def delete(self) -> None:
        """Delete it, with all its revisions."""
        identity = self.pb2.metadata.id
        with _as_app(identity):
            await current_session().unary(
                f"{_SERVICE}Delete",
                payload.DeleteRequest(app_id=identity),
                payload.DeleteResponse,
                idempotent=True,
            )

    def to_dict(self) -> dict[str, Any]:
        """What scripts ask for."""
        return {
            "name": self.name,
            "project": self.project,
            "domain": self.domain,
            "status": self.status,
            "message": self.message,
            "description": self.description,
            "endpoint": self.endpoint,
            "url": self.url,
            "revision": self.revision,
            "requires_auth": self.requires_auth,
            "deployed_by": self.deployed_by,
            "created_at": self.created_at.isoformat() if self.created_at is not None else None,
        }

    def __repr__(self) -> str:
        return f"<App {self.name} {self.status}>"

    async def _want(self, state: wire.Spec.DesiredState) -> None:
        session = current_session()
        app = await _get(session, self.pb2.metadata.id)
        if app.spec.desired_state != state:
            app.spec.desired_state = state
            request = payload.UpdateRequest(app=app)
            answer = await session.unary(f"{_SERVICE}Update", request, payload.UpdateResponse)
            app = answer.app
        self.pb2 = app


async def _get(session: Session, identity: wire.Identifier) -> wire.App:
    with _as_app(identity):
        answer = await session.unary(
            f"{_SERVICE}Get", payload.GetRequest(app_id=identity), payload.GetResponse, idempotent=True
        )
    return answer.app


@contextlib.contextmanager
def _as_app(identity: wire.Identifier) -> Iterator[None]:
    """Say of what is not found that it is this app."""
    try:
        yield
    except RemoteNotFoundError as error:
        raise RemoteAppNotFoundError(
            f"There is no app {identity.name} in {identity.project}/{identity.domain}, "
            "or none that you may see.",
            code=error.code,
        ) from error

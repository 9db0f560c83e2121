"""`remote.default()`: the control plane as whoever this code runs as."""

from __future__ import annotations

from flyte._init import own_session, use_session
from flyte._syncify import syncify
from flyte.remote._app import App
from flyte.remote._execution import Execution
from flyte.remote._project import Project
from flyte.remote._run import Run
from flyte.remote._task import Task, TaskDetails
from flyte.remote._user import User


class Remote:
    """The control plane, as the identity of the moment in which it is asked.

    In a task that is the person whom the task runs as, over the socket of the attempt and in no other way. In
    an app it is the caller. Elsewhere it is the session that `flyte.init` made, or else the developer's own:
    `FLYTE_API_KEY`, what `flyte login` kept, the configuration file.

    Every method has a second call to be awaited: `await remote.default().fetch_execution.aio(...)`.
    """

    @syncify
    async def fetch_execution(
        self, execution: str, project: str | None = None, domain: str | None = None
    ) -> Execution:
        """A run by its name, or by `project/domain/name`. Raises RemoteRunNotFoundError."""
        return Execution(await _run(execution, project, domain))

    @syncify
    async def fetchExecution(  # noqa: N802 - the name in the RFC
        self, execution: str, project: str | None = None, domain: str | None = None
    ) -> Execution:
        """The same as `fetch_execution`."""
        return Execution(await _run(execution, project, domain))

    @syncify
    async def fetch_run(self, name: str, project: str | None = None, domain: str | None = None) -> Run:
        """A run as `flyte.remote.Run`. Raises RemoteRunNotFoundError."""
        return await _run(name, project, domain)

    @syncify
    async def fetch_task(
        self, name: str, project: str | None = None, domain: str | None = None, version: str | None = None
    ) -> TaskDetails:
        """A deployed task as the caller may see it. Raises RemoteTaskNotFoundError."""
        with use_session(own_session()):
            return await Task.get(name, project=project, domain=domain, version=version).fetch.aio()

    @syncify
    async def fetch_app(self, name: str, project: str | None = None, domain: str | None = None) -> App:
        """A deployed app. Raises RemoteAppNotFoundError."""
        with use_session(own_session()):
            return await App.get.aio(name, project=project, domain=domain)

    @syncify
    async def create_project(self, name: str, *, description: str = "") -> Project:
        """Make a project. Raises AlreadyExistsError, PermissionDeniedError."""
        with use_session(own_session()):
            return await Project.create.aio(name, description=description)

    @syncify
    async def user(self) -> User:
        """Who calls."""
        with use_session(own_session()):
            return await User.get.aio()

    def __repr__(self) -> str:
        return "<Remote: the control plane as whoever asks>"


_DEFAULT = Remote()


def default() -> Remote:
    """The control plane as whoever this code runs as. Until it is used it needs neither network nor login."""
    return _DEFAULT


async def _run(name: str, project: str | None, domain: str | None) -> Run:
    parts = str(name).split("/")
    if len(parts) == 3:
        project, domain, name = parts
    with use_session(own_session()):
        return await Run.get.aio(name, project=project, domain=domain)

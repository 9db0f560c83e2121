"""`flyte.deploy` and `flyte.serve`."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flyte._bundle import Bundle, CopyStyle, Selection, collect, pack
from flyte._deploy import steps
from flyte._deploy.planning import Place, Plan, TaskPlan, plan
from flyte._deploy.steps import OnProgress, Progress
from flyte._environment import Environment, TaskEnvironment
from flyte._init import current_session
from flyte._syncify import syncify
from flyte._task import Task
from flyte.errors import DeploymentError, FlyteError, RemoteNotFoundError
from flyte.remote import App, Trigger
from flyte.remote import Task as RemoteTask
from flyte.transport.session import Session

START_SECONDS = 600.0
IMAGE_LINE = "[image] "
"""So begins what a log says about the making of the image."""

_CLOCKS_DIFFER = dt.timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class DeployedTask:
    """A task as it was registered.

    :ivar url: the page of its runs in the console.
    :ivar triggers: those that came with it, as they are now.
    """

    name: str
    project: str
    domain: str
    version: str
    url: str
    triggers: tuple[Trigger, ...] = ()

    def remote(self) -> RemoteTask:
        """The name of this very version, to run it."""
        return RemoteTask(self.name, project=self.project, domain=self.domain, version=self.version)


@dataclass(frozen=True, slots=True)
class DeployedApp:
    """An app as it was created or updated.

    :ivar url: where it is served.
    :ivar page: its page in the console.
    :ivar status: `ACTIVE`, `PENDING` and so on.
    :ivar app: the remote object, to watch, stop or delete it.
    """

    name: str
    project: str
    domain: str
    revision: int
    url: str
    page: str
    status: str
    app: App = field(repr=False)

    @property
    def endpoint(self) -> str:
        """The same as `url`, under the name that `remote.App` has for it."""
        return self.url


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment did.

    :ivar version: of all its tasks.
    :ivar bundle: the digest of the code.
    :ivar files: what the bundle holds.
    :ivar left_out: files that stayed for safety, with the reasons.
    """

    version: str
    bundle: str
    files: tuple[str, ...]
    left_out: tuple[str, ...]
    tasks: tuple[DeployedTask, ...]
    apps: tuple[DeployedApp, ...]

    def to_dict(self) -> dict[str, Any]:
        """What scripts ask for."""
        return {
            "version": self.version,
            "bundle": self.bundle,
            "files": list(self.files),
            "left_out": list(self.left_out),
            "tasks": [{"name": each.name, "version": each.version, "url": each.url} for each in self.tasks],
            "triggers": [trigger.to_dict() for each in self.tasks for trigger in each.triggers],
            "apps": [
                {"name": each.name, "url": each.url, "page": each.page, "status": each.status}
                for each in self.apps
            ],
        }


@syncify
async def deploy(
    *environments: Environment,
    version: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    copy_style: CopyStyle = "loaded_modules",
    root_dir: str | Path | None = None,
    progress: OnProgress | None = None,
) -> Deployment:
    """Register the tasks of environments, and create or update apps without waiting for them to come up.

    What an environment depends on is deployed along with it. Nothing is sent before all is planned.

    :param version: of the tasks; unless given, it is decided by code and declarations, so that deploying the
        same twice changes nothing.
    :param copy_style: "loaded_modules" bundles what was imported from below the code root, "all" every file
        there that is neither hidden, ignored nor credential-like.
    :param root_dir: where the code begins; the directory of the first environment's file unless given.
    :raises DeploymentError: the code or a declaration cannot be deployed, or the server refuses it.
    :raises PermissionDeniedError: the caller may not deploy there.
    """
    return await _deploy(
        current_session(),
        environments,
        version=version,
        project=project,
        domain=domain,
        copy_style=copy_style,
        root=root_dir,
        progress=progress or _quiet,
    )


@syncify
async def serve(
    app_env: Environment,
    *,
    version: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    copy_style: CopyStyle = "loaded_modules",
    root_dir: str | Path | None = None,
    progress: OnProgress | None = None,
    wait: bool = True,
    timeout: float = START_SECONDS,  # noqa: ASYNC109 - it also bounds the synchronous call
) -> DeployedApp:
    """Deploy an app, with what it depends on, and wait until it serves.

    :param wait: False answers as soon as the app is accepted.
    :param timeout: seconds to wait.
    :raises DeploymentError: the app does not come up; the message is the server's.
    """
    if isinstance(app_env, TaskEnvironment):
        raise DeploymentError(f"{app_env.name!r} is no app.", hint="Use flyte.deploy for tasks.")
    report = progress or _quiet
    done = await _deploy(
        current_session(),
        (app_env,),
        version=version,
        project=project,
        domain=domain,
        copy_style=copy_style,
        root=root_dir,
        progress=report,
    )
    served = next(each for each in done.apps if each.name == app_env.name)
    return await _until_up(served, seconds=timeout, progress=report) if wait else served


async def register(
    task: Task[..., Any], *, project: str | None = None, domain: str | None = None
) -> RemoteTask:
    """Register a task of this process with those beside it, which it may call; answers its very version."""
    environment = task.environment
    assert isinstance(environment, TaskEnvironment)
    done = await _deploy(current_session(), (environment,), project=project, domain=domain, progress=_quiet)
    return next(each for each in done.tasks if each.name == task.name).remote()


async def _deploy(
    session: Session,
    environments: tuple[Environment, ...],
    *,
    project: str | None,
    domain: str | None,
    progress: OnProgress,
    version: str | None = None,
    copy_style: CopyStyle = "loaded_modules",
    root: str | Path | None = None,
) -> Deployment:
    place = Place(session.org, *session.scope(project, domain))
    planned = plan(environments, place=place, root=Path(root) if root is not None else None)
    selection, bundle = await asyncio.to_thread(_pack, planned, copy_style)
    progress(Progress("pack", bundle.filename, len(bundle.files), len(bundle.files)))
    chosen = version or planned.version(bundle.digest)
    uri = await steps.upload(session, bundle, place=place, progress=progress)
    tasks = await _tasks(session, planned, version=chosen, uri=uri, progress=progress)
    apps = []
    for number, each in enumerate(planned.apps, start=1):
        app = await steps.deploy_app(session, each, bundle=uri)
        progress(Progress("app", each.name, number, len(planned.apps)))
        apps.append(_served(App(session, app)))
    return Deployment(
        version=chosen,
        bundle=bundle.digest,
        files=bundle.files,
        left_out=selection.left_out,
        tasks=tasks,
        apps=tuple(apps),
    )


async def _tasks(
    session: Session, planned: Plan, *, version: str, uri: str, progress: OnProgress
) -> tuple[DeployedTask, ...]:
    done: list[DeployedTask] = []
    place = planned.place
    for number, each in enumerate(planned.tasks, start=1):
        await steps.deploy_task(session, each, place=place, version=version, bundle=uri)
        progress(Progress("task", each.name, number, len(planned.tasks)))
        runs = f"{session.console_url}/v2/domain/{place.domain}/project/{place.project}/runs"
        page = f"{runs}?{urlencode({'task': each.name})}"
        triggers = await _triggers(each, place) if session.is_tower else ()
        done.append(DeployedTask(each.name, place.project, place.domain, version, page, triggers))
    return tuple(done)


async def _triggers(plan: TaskPlan, place: Place) -> tuple[Trigger, ...]:
    """What became of the triggers of a task: one that is somebody else's stays as it was."""
    where = {"project": place.project, "domain": place.domain}
    try:
        return tuple([await Trigger.get.aio(each.name, plan.name, **where) for each in plan.triggers])
    except RemoteNotFoundError:  # who may register the task need not be one who may view it
        return ()


def _pack(planned: Plan, style: CopyStyle) -> tuple[Selection, Bundle]:
    selection = collect(planned.root, style=style, entries=planned.entries)
    return selection, pack(selection)


async def _until_up(served: DeployedApp, *, seconds: float, progress: OnProgress) -> DeployedApp:
    """Wait until the app serves. Raises DeploymentError."""
    progress(Progress("wait", served.name, 0, 1))
    if not steps.is_up(served.app.pb2):
        telling = asyncio.ensure_future(_tell_image(served.app, progress))
        try:
            await served.app.wait.aio(timeout=seconds)
        except TimeoutError:
            raise DeploymentError(
                f"The app {served.name} did not come up within {seconds:.0f} seconds "
                f"(it is {served.app.status}). {served.app.message}".strip(),
                hint=f"Look at its log: flyte logs --app {served.name}",
            ) from None
        finally:
            telling.cancel()
            await asyncio.wait([telling])
    if not steps.is_up(served.app.pb2):
        raise DeploymentError(
            f"The app {served.name} does not come up: it is {served.app.status}. {served.app.message}".strip()
        )
    progress(Progress("wait", served.name, 1, 1))
    return _served(served.app)


async def _tell_image(app: App, progress: OnProgress) -> None:
    """Pass on what is said about the making of the image, from now on."""
    if progress is _quiet:
        return
    since = dt.datetime.now(dt.UTC) - _CLOCKS_DIFFER
    with suppress(FlyteError):
        async for line in app.logs.aio():
            if line.text.startswith(IMAGE_LINE) and (line.time is None or line.time >= since):
                progress(Progress("image", line.text.removeprefix(IMAGE_LINE), 0, 0))


def _served(app: App) -> DeployedApp:
    return DeployedApp(
        name=app.name,
        project=app.project,
        domain=app.domain,
        revision=app.revision,
        url=app.endpoint,
        page=app.url,
        status=app.status,
        app=app,
    )


def _quiet(_progress: Progress) -> None:
    """Nobody looks."""

"""The plan of a deployment: pure, made before anything is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flyteidl2.app import app_definition_pb2
from flyteidl2.task import task_definition_pb2

from flyte import _environment
from flyte._deploy import specs
from flyte._deploy.triggers import trigger_message
from flyte._environment import Declaration, Environment, TaskEnvironment
from flyte._requirements import Image, Resources, Secret
from flyte._task import Task
from flyte.errors import DeploymentError

VERSION_LENGTH = 20


@runtime_checkable
class AppLike(Protocol):
    """What a deployment needs to know of an app's environment."""

    @property
    def name(self) -> str: ...
    @property
    def image(self) -> Image: ...
    @property
    def resources(self) -> Resources: ...
    @property
    def env_vars(self) -> Mapping[str, str]: ...
    @property
    def description(self) -> str: ...
    @property
    def requires_auth(self) -> bool: ...
    @property
    def public_paths(self) -> tuple[str, ...]: ...
    @property
    def webhooks(self) -> tuple[specs.WebhookLike, ...]: ...
    @property
    def command(self) -> tuple[str, ...]: ...
    @property
    def passthrough(self) -> str: ...
    @property
    def secrets(self) -> tuple[Secret, ...]: ...
    @property
    def scaling(self) -> specs.ScalingLike: ...
    @property
    def links(self) -> tuple[specs.LinkLike, ...]: ...
    @property
    def type(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are deployed."""

    org: str
    project: str
    domain: str


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task to register; the specification lacks its version and its bundle."""

    name: str
    spec: task_definition_pb2.TaskSpec
    task: Task[..., Any]
    triggers: tuple[task_definition_pb2.TaskTrigger, ...] = ()


@dataclass(frozen=True, slots=True)
class AppPlan:
    """An app to create or update; the message lacks its bundle."""

    name: str
    app: app_definition_pb2.App
    environment: AppLike


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a deployment sends, but for what depends on the upload.

    :ivar root: the directory that the code is bundled from.
    :ivar entries: the files that declare what is deployed; they are always in the bundle.
    """

    place: Place
    root: Path
    entries: tuple[Path, ...]
    tasks: tuple[TaskPlan, ...]
    apps: tuple[AppPlan, ...]

    def version(self, bundle: str) -> str:
        """The version for a bundle of that digest: the same declarations and code give the same one."""
        digest = hashlib.sha256(bundle.encode())
        bodies = [each.spec.SerializeToString(deterministic=True) for each in self.tasks]
        bodies += [each.app.SerializeToString(deterministic=True) for each in self.apps]
        for body in bodies:
            digest.update(len(body).to_bytes(8, "big"))
            digest.update(body)
        return digest.hexdigest()[:VERSION_LENGTH]


def plan(
    environments: Iterable[Environment],
    *,
    place: Place,
    root: Path | None = None,
) -> Plan:
    """Plan a deployment of environments and of what they depend on. Raises DeploymentError, DeclarationError.

    :param root: where the code begins; the directory of the first environment's file unless given. Modules
        are named from there.
    """
    ordered = _with_dependencies(environments)
    if not ordered:
        raise DeploymentError("There is nothing to deploy.")
    declarations = [_declaration(environment) for environment in ordered]
    start = root.resolve() if root is not None else _root(declarations[0])
    entries = dict.fromkeys(_file(declaration) for declaration in declarations)
    tasks: list[TaskPlan] = []
    apps: list[AppPlan] = []
    for declaration in declarations:
        environment = declaration.environment
        if isinstance(environment, TaskEnvironment):
            for task in environment.tasks.values():
                file = Path(task.function.__code__.co_filename).absolute()
                entries[file] = None
                module = module_name(file, start, what=task.name)
                triggers = tuple(
                    trigger_message(each, interface=task.interface, task=task.name) for each in task.triggers
                )
                tasks.append(TaskPlan(task.name, specs.task_spec(task, module=module), task, triggers))
        elif isinstance(environment, AppLike):
            module = module_name(_file(declaration), start, what=environment.name)
            app = specs.app_message(environment, module=module)
            identity = app.metadata.id
            identity.org, identity.project, identity.domain = place.org, place.project, place.domain
            apps.append(AppPlan(environment.name, app, environment))
        else:
            raise DeploymentError(f"{environment.name!r} is not an environment that can be deployed.")
    if not tasks and not apps:
        raise DeploymentError(f"The environment {ordered[0].name!r} has no tasks.")
    return Plan(place, start, tuple(entries), tuple(tasks), tuple(apps))


def module_name(file: Path, root: Path, *, what: str) -> str:
    """What a file is imported as when `root` is first on `sys.path`. Raises DeploymentError."""
    try:
        relative = (file.parent.resolve() / file.name).relative_to(root)
    except ValueError:
        raise DeploymentError(
            f"{what} is declared in {file}, which is outside of the code root {root}.",
            hint="Put both below one directory and deploy a file at its top.",
        ) from None
    parts = [*relative.parent.parts, *([] if relative.stem == "__init__" else [relative.stem])]
    if not parts or not all(part.isidentifier() for part in parts):
        raise DeploymentError(
            f"{relative} is not the path of a module, so {what} cannot be imported from it."
        )
    return ".".join(parts)


def _with_dependencies(environments: Iterable[Environment]) -> list[Environment]:
    """Each environment once, dependencies after what asked for them."""
    found: list[Environment] = []
    waiting = list(environments)
    while waiting:
        environment = waiting.pop(0)
        if any(environment is known for known in found):
            continue
        if any((known.name, type(known)) == (environment.name, type(environment)) for known in found):
            raise DeploymentError(f"Two environments are called {environment.name!r}.")
        found.append(environment)
        waiting.extend(getattr(environment, "depends_on", ()))
    return found


def _declaration(environment: Environment) -> Declaration:
    for known in _environment.declared():
        if known.environment is environment:
            return known
    raise DeploymentError(
        f"{getattr(environment, 'name', environment)!r} is not an environment of this process.",
        hint="Pass a TaskEnvironment or an AppEnvironment.",
    )


def _file(declaration: Declaration) -> Path:
    if declaration.file is None or not declaration.file.is_file():
        raise DeploymentError(
            f"The environment {declaration.name!r} is not declared in a file.",
            hint="Write it into a .py file: a process elsewhere has to import it.",
        )
    return declaration.file


def _root(declaration: Declaration) -> Path:
    """The directory from which the module's dotted name leads to its file."""
    file = _file(declaration)
    root = file.parent.resolve()
    if declaration.module == "__main__":
        return root
    depth = declaration.module.count(".") + (1 if file.stem == "__init__" else 0)
    return root.parents[depth - 1] if depth else root

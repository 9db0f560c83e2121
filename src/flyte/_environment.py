"""TaskEnvironment and `@env.task`: declarations only; and the list of what this process has declared."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, overload

from flyte._requirements import (
    Image,
    Resources,
    RetryStrategy,
    Secret,
    Timeout,
    Trigger,
    as_image,
    as_secrets,
    check_description,
    check_name,
    check_variables,
    origin,
)
from flyte._task import Task
from flyte.errors import DeclarationError

if TYPE_CHECKING:
    from datetime import timedelta

P = ParamSpec("P")
R = TypeVar("R")
Kind = Literal["task", "app"]
_ACTION = re.compile(r"[a-z]+:[a-z-]+")


class Environment(Protocol):
    """What every environment has: a name."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Declaration:
    """An environment as it was declared: its kind and name, the module and file that hold it."""

    kind: Kind
    name: str
    environment: Environment
    module: str
    file: Path | None


_declared: list[Declaration] = []


def declare(environment: Environment, *, kind: Kind) -> Declaration:
    """Note an environment that user code has just made; the module is the first one outside of this package.

    A module that is loaded again replaces its own declaration. Two modules with the same name and kind are an
    error when they are looked up, not here: one of them may never be used.
    """
    where = origin()
    made = Declaration(kind, environment.name, environment, where.module, where.file)
    _declared[:] = [
        known
        for known in _declared
        if (known.kind, known.name, known.module) != (made.kind, made.name, made.module)
    ]
    _declared.append(made)
    return made


def declared(*, kind: Kind | None = None, module: str | None = None) -> tuple[Declaration, ...]:
    """What was declared in this process, oldest first."""
    return tuple(
        known
        for known in _declared
        if (kind is None or known.kind == kind) and (module is None or known.module == module)
    )


def find(name: str, *, kind: Kind, module: str | None = None) -> Declaration:
    """The declaration of a name, in one module or in any. Raises DeclarationError unless one fits."""
    known = declared(kind=kind, module=module)
    matching = [declaration for declaration in known if declaration.name == name]
    if len(matching) == 1:
        return matching[0]
    where = f" in {module}" if module else ""
    if matching:
        modules = ", ".join(sorted(declaration.module for declaration in matching))
        raise DeclarationError(f"Several modules declare the {kind} environment {name!r}: {modules}.")
    names = ", ".join(sorted({declaration.name for declaration in known})) or "none"
    raise DeclarationError(f"There is no {kind} environment {name!r}{where}; declared: {names}.")


def find_task(name: str, *, module: str | None = None) -> Task[..., Any]:
    """The task of a full name `<environment>.<function>`. Raises DeclarationError."""
    home, _, function = name.partition(".")
    environment = find(home, kind="task", module=module).environment
    assert isinstance(environment, TaskEnvironment)
    task = environment.tasks.get(function)
    if task is None:
        names = ", ".join(sorted(environment.tasks)) or "none"
        raise DeclarationError(f"The environment {home!r} has no task {function!r}; it has: {names}.")
    return task


@dataclass(frozen=True, eq=False)
class TaskEnvironment:
    """Tasks that share an image, resources and variables.

    ::

        env = flyte.TaskEnvironment("reports", resources=flyte.Resources(cpu=1, memory="512Mi"))

        @env.task
        async def monthly(month: int) -> str: ...

    :param name: the first part of the name of each task.
    :param image: an Image, the URI of one, or "auto".
    :param secrets: what `flyte create secret` keeps and the tasks may read: names or flyte.Secret(...).
    :param privileges: what the tasks may do to people, keys, policies and secrets as whom they run, such as
        "secret:create"; nothing by default. Whoever deploys them must be allowed to do it there themselves.
    :param depends_on: environments that are deployed along with this one.
    """

    name: str
    _: KW_ONLY
    image: Image = "auto"  # type: ignore[assignment]  # strings are accepted and made an Image
    resources: Resources = field(default_factory=Resources)
    env_vars: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    secrets: tuple[Secret, ...] = ()
    privileges: tuple[str, ...] = ()
    depends_on: tuple[Environment, ...] = ()
    tasks: dict[str, Task[..., Any]] = field(default_factory=dict, init=False, repr=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            name: str,
            *,
            image: Image | str = "auto",
            resources: Resources | None = None,
            env_vars: Mapping[str, str] | None = None,
            description: str | None = None,
            secrets: str | Secret | Iterable[str | Secret] | None = None,
            privileges: str | Iterable[str] = (),
            depends_on: Iterable[Environment] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        what = f"the environment {self.name!r}"
        check_name(self.name, what="an environment")
        if self.resources is not None and not isinstance(self.resources, Resources):
            raise DeclarationError(f"resources of {what} must be flyte.Resources(...).")
        self._set("image", as_image(self.image))
        self._set("resources", self.resources or Resources())
        self._set("env_vars", check_variables(self.env_vars, what=what))
        self._set("description", check_description(self.description, what=what))
        self._set("secrets", as_secrets(self.secrets, what=what))
        self._set("privileges", _privileges(self.privileges, what=what))
        self._set("depends_on", _environments(self.depends_on, what=what))
        declare(self, kind="task")

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        retries: int | RetryStrategy = 0,
        timeout: float | timedelta | Timeout | None = None,
        short_name: str | None = None,
        docs: str | None = None,
        triggers: Trigger | Iterable[Trigger] = (),
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        retries: int | RetryStrategy = 0,
        timeout: float | timedelta | Timeout | None = None,
        short_name: str | None = None,
        docs: str | None = None,
        triggers: Trigger | Iterable[Trigger] = (),
    ) -> Task[..., Any] | Callable[[Callable[..., Any]], Task[..., Any]]:
        """Make a function a task of this environment; as `@env.task` or `@env.task(retries=3)`.

        :param retries: further attempts after a failed one.
        :param timeout: the longest run time of one attempt: seconds, a timedelta, or a Timeout.
        :param short_name: what lists show; the function's name unless given.
        :param docs: documentation; the function's docstring unless given.
        :param triggers: what starts it without a caller, deployed along with it.
        """

        def make(function: Callable[..., Any]) -> Task[..., Any]:
            task = Task(
                function,
                environment=self,
                retries=retries,
                timeout=timeout,
                short_name=short_name,
                docs=docs,
                triggers=triggers,
            )
            known = self.tasks.get(function.__name__)
            if known is not None and known.module != task.module:
                raise DeclarationError(f"{task.name} is declared in {known.module} and in {task.module}.")
            self.tasks[function.__name__] = task
            return task

        return make if function is None else make(function)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _privileges(value: object, *, what: str) -> tuple[str, ...]:
    """Each once, in order. Which ones there are is for the control plane to say."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Iterable) or isinstance(names, bytes):
        raise DeclarationError(f"privileges of {what} must be a list of actions.")
    listed = tuple(names)
    for name in listed:
        if not isinstance(name, str) or not _ACTION.fullmatch(name):
            raise DeclarationError(f"privileges of {what}: {name!r} is no action such as 'secret:create'.")
    return tuple(sorted(set(listed)))


def _environments(value: object, *, what: str) -> tuple[Environment, ...]:
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        raise DeclarationError(f"depends_on of {what} must be a list of environments.")
    environments = tuple(value)
    if not all(isinstance(getattr(each, "name", None), str) for each in environments):
        raise DeclarationError(f"depends_on of {what} must be a list of environments.")
    return environments

"""`@task` and `@eager`: functions of a module as tasks of an environment that is named after the module."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, overload

import flyte
from flyte import RetryStrategy, Task, TaskEnvironment, Timeout
from flyte.errors import DeclarationError

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

_environments: dict[tuple[str, str], TaskEnvironment] = {}


class FaceTask(Task[P, R_co], Generic[P, R_co]):
    """A task that is awaited where an event loop runs, also when its function is a plain one.

    So `await say_hello(...)` works in an eager function, in a run and on your own machine alike. In a plain
    function, a call of a plain task is a call of its function.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The result, or in an event loop what gives it when awaited."""
        if self.is_async or _in_loop():
            return self.aio(*args, **kwargs)
        return self.function(*args, **kwargs)


@overload
def task(function: Callable[P, R_co], /) -> FaceTask[P, R_co]: ...
@overload
def task(
    *,
    retries: int | RetryStrategy = 0,
    timeout: float | timedelta | Timeout | None = None,
    docs: str | None = None,
) -> Callable[[Callable[P, R_co]], FaceTask[P, R_co]]: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task: `@task` or `@task(retries=3)`.

    It belongs to an environment that is named after the module. What concerns the environment, such as the
    image and resources, is declared by `flyte.TaskEnvironment` instead.

    :param retries: further attempts after a failed one.
    :param timeout: the longest run time of one attempt: seconds, a timedelta, or a Timeout.
    :param docs: documentation; the function's docstring unless given.
    """
    _known(options, "@task")
    return _declare(options) if function is None else _declare(options)(function)


@overload
def eager(function: Callable[P, R_co], /) -> FaceTask[P, R_co]: ...
@overload
def eager(
    *,
    remote: Any = None,
    retries: int | RetryStrategy = 0,
    timeout: float | timedelta | Timeout | None = None,
    docs: str | None = None,
) -> Callable[[Callable[P, R_co]], FaceTask[P, R_co]]: ...
def eager(function: Callable[..., Any] | None = None, /, *, remote: Any = None, **options: Any) -> Any:
    """Make an async function a workflow: the tasks that it awaits run as actions of its run.

    :param remote: tolerated. Project, domain and identity are those of the run, there is nothing to choose.
    """
    del remote
    _known(options, "@eager")

    def make(function: Callable[..., Any]) -> Any:
        if not inspect.iscoroutinefunction(function):
            name = getattr(function, "__name__", function)
            raise DeclarationError(f"@eager stands above `async def`; {name} is no async function.")
        return _declare(options)(function)

    return make if function is None else make(function)


def _declare(options: dict[str, Any]) -> Callable[[Callable[..., Any]], FaceTask[..., Any]]:
    def make(function: Callable[..., Any]) -> FaceTask[..., Any]:
        module = getattr(function, "__module__", None) or "__main__"
        environment = _environment(module)
        made: FaceTask[..., Any] = FaceTask(function, environment=environment, **options)
        environment.tasks[function.__name__] = made
        return made

    return make


def _environment(module: str) -> TaskEnvironment:
    """The environment of a module; a module that is loaded again gets a fresh one."""
    place = sys.modules.get(module)
    key = (module, str(id(place)))
    if key not in _environments:
        for old in [known for known in _environments if known[0] == module]:
            del _environments[old]
        _environments[key] = TaskEnvironment(_name(module, place), image=flyte.Image.from_debian_base())
    return _environments[key]


def _name(module: str, place: Any) -> str:
    """The module's own name, without its packages: the same from wherever its code is rooted."""
    name = module.rpartition(".")[2]
    if name == "__main__":
        name = Path(getattr(place, "__file__", None) or "main").stem
    return name


def _known(options: dict[str, Any], what: str) -> None:
    unknown = sorted(options.keys() - {"retries", "timeout", "docs"})
    if unknown:
        raise DeclarationError(
            f"{what} does not take {', '.join(unknown)} here.",
            hint="Declare it on a flyte.TaskEnvironment and use its @env.task.",
        )


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

"""The task object: a declared function, what it asks for, and the name it is known by."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast

from flyte import _context
from flyte._requirements import (
    Image,
    Resources,
    RetryStrategy,
    Timeout,
    Trigger,
    as_retry,
    as_timeout,
    as_triggers,
    check_name,
)
from flyte.errors import DeclarationError

if TYPE_CHECKING:
    from datetime import timedelta

    from flyte._interface import Interface
    from flyte._requirements import Secret

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Home(Protocol):
    """What a task needs to know of its environment."""

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
    def secrets(self) -> tuple[Secret, ...]: ...
    @property
    def privileges(self) -> tuple[str, ...]: ...


class Task(Generic[P, R_co]):
    """A function that can run as a task. Calling it is a plain call of the function.

    :ivar environment: the TaskEnvironment that it was declared in.
    :ivar function: the function itself.
    :ivar name: `<environment>.<function>`, the name it is deployed under.
    """

    def __init__(
        self,
        function: Callable[P, R_co],
        *,
        environment: Home,
        retries: int | RetryStrategy = 0,
        timeout: float | timedelta | Timeout | None = None,
        short_name: str | None = None,
        docs: str | None = None,
        triggers: Trigger | Iterable[Trigger] = (),
    ) -> None:
        if not inspect.isfunction(function):
            raise DeclarationError(
                f"A task is made of a function, not of {type(function).__name__}.",
                hint="Put @env.task directly above `def` or `async def`, outside of a class.",
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DeclarationError(f"{function.__name__} is a generator; a task returns its result.")
        self.environment = environment
        self.function: Callable[P, R_co] = function
        self.name = f"{environment.name}.{check_name(function.__name__, what='a task')}"
        self.short_name = check_name(short_name or function.__name__, what="a task")
        self.retries = as_retry(retries)
        self.timeout = as_timeout(timeout)
        self.docs = docs if docs is not None else (inspect.getdoc(function) or "")
        self.triggers = as_triggers(triggers, what=self.name)
        functools.update_wrapper(self, function)

    @property
    def module(self) -> str:
        """The name of the module that declares it."""
        return self.function.__module__

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    @functools.cached_property
    def interface(self) -> Interface:
        """Inputs and outputs by type. Raises DeclarationError for a signature that cannot be a task's."""
        from flyte._interface import Interface

        return Interface.of(self.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function. In a running task it becomes an action of that run, with a process of its own.

        An async task gives a coroutine, another one blocks until there is the result.
        """
        context = _context.task()
        if context is None or context.submitter is None:
            return self.function(*args, **kwargs)
        if self.is_async:
            return cast("R_co", context.submitter.submit(self, args, kwargs))
        return cast("R_co", _blocking()(context.submitter, self, args, kwargs))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The same, to be awaited whether the function is async or not."""
        context = _context.task()
        if context is not None and context.submitter is not None:
            return await context.submitter.submit(self, args, kwargs)
        result: Any = self.function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


@functools.cache
def _blocking() -> Callable[..., Any]:
    """The blocking way to submit; made when first used, since declaring tasks needs no event loop."""
    from flyte._syncify import syncify

    async def submit(
        submitter: _context.Submitter, task: Task[..., Any], args: tuple[Any, ...], inputs: Mapping[str, Any]
    ) -> Any:
        return await submitter.submit(task, args, inputs)

    return syncify(submit)

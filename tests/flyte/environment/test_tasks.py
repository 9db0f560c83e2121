"""Declaring tasks, calling them as functions, and finding them again."""

from __future__ import annotations

from typing import Any

import pytest

import flyte
from flyte import _context, _environment
from flyte.errors import DeclarationError

env = flyte.TaskEnvironment("declared-tasks", description="for this test")


@env.task
async def double(x: int) -> int:
    """Double it."""
    return 2 * x


@env.task(retries=2, timeout=30, short_name="tr", docs="Three times.")
def triple(x: int, *, y: int = 0) -> int:
    return 3 * x + y


async def test_a_task_is_still_its_function() -> None:
    assert await double(21) == 42
    assert triple(2, y=1) == 7
    assert double.__name__ == "double"
    assert double.__doc__ == double.docs == "Double it."
    assert double.is_async
    assert not triple.is_async


def test_names_and_settings() -> None:
    assert double.name == "declared-tasks.double"
    assert double.short_name == "double"
    assert triple.short_name == "tr"
    assert triple.docs == "Three times."
    assert triple.retries.count == 2
    assert triple.timeout.max_runtime is not None
    assert double.module == __name__
    assert double.environment is env
    assert env.tasks == {"double": double, "triple": triple}


def test_found_by_name() -> None:
    assert _environment.find_task("declared-tasks.triple") is triple
    assert _environment.find("declared-tasks", kind="task").module == __name__
    with pytest.raises(DeclarationError, match="no task 'quadruple'"):
        _environment.find_task("declared-tasks.quadruple")
    with pytest.raises(DeclarationError, match="no task environment"):
        _environment.find_task("undeclared.x")


def declare_in(module: str, name: str) -> Any:
    scope: dict[str, Any] = {"__name__": module, "__file__": f"/code/{module}.py", "flyte": flyte}
    exec(f"env = flyte.TaskEnvironment({name!r})", scope)
    return scope["env"]


def test_a_module_that_is_loaded_again_replaces_its_declarations() -> None:
    declare_in("again", "twice")
    latest = declare_in("again", "twice")
    assert _environment.find("twice", kind="task").environment is latest


def test_two_modules_with_one_name_are_told_apart_by_module() -> None:
    one, other = declare_in("mod_a", "shared"), declare_in("mod_b", "shared")
    assert _environment.find("shared", kind="task", module="mod_a").environment is one
    assert _environment.find("shared", kind="task", module="mod_b").environment is other
    with pytest.raises(DeclarationError, match="mod_a, mod_b"):
        _environment.find("shared", kind="task")


def test_what_is_no_task() -> None:
    class Callable:
        def __call__(self) -> None: ...

    def generator() -> Any:
        yield 1

    async def agenerator() -> Any:
        yield 1

    for wrong in (Callable(), len, generator, agenerator, lambda: 1):
        with pytest.raises(DeclarationError):
            env.task(wrong)


async def test_a_call_inside_a_run_goes_through_the_submitter() -> None:
    class Submitter:
        async def submit(self, task: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
            return task.name, args, dict(kwargs)

    context = _context.TaskContext(project="p", domain="d", run="r", submitter=Submitter())
    with _context.task_scope(context):
        assert await double(1) == ("declared-tasks.double", (1,), {})  # type: ignore[comparison-overlap]
        assert triple(1) == ("declared-tasks.triple", (1,), {})  # type: ignore[comparison-overlap]
        assert await triple.aio(1) == ("declared-tasks.triple", (1,), {})
    with _context.task_scope(_context.TaskContext(project="p", domain="d", run="r")):
        assert await double(1) == await double.aio(1) == 2
        assert triple(1) == await triple.aio(1) == 3

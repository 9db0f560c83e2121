"""The face of flytekit: declaring, calling at home, and what it refuses."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

import flyte
from flyte import _context, _environment
from flyte._deploy import load_file, plan
from flyte._deploy.planning import Place
from flyte.errors import DeclarationError

CODE = """
from flytekit import task, remote, eager

@task
def plain(x: int) -> int:
    return x + 1

@task(retries=2)
async def other(x: int) -> int:
    return x + 10

@eager(remote=remote.default())
async def flow(x: int = 1) -> int:
    return await other(await plain(x=x))

@eager
async def bare() -> int:
    return await flow()
"""


@pytest.fixture
def module(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    name = f"face_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    yield load_file(tmp_path / f"{name}.py").module
    sys.modules.pop(name)
    sys.path.remove(str(tmp_path))


def test_the_tasks_belong_to_an_environment_named_after_the_module(module: Any) -> None:
    name = module.__name__
    environment = _environment.find(name, kind="task", module=name).environment
    assert isinstance(environment, flyte.TaskEnvironment)
    assert sorted(environment.tasks) == ["bare", "flow", "other", "plain"]
    assert environment.image == flyte.Image.from_debian_base()
    assert module.flow.name == f"{name}.flow"
    assert module.other.retries.count == 2
    planned = plan([environment], place=Place("", "p", "d"))
    assert {each.name.partition(".")[2] for each in planned.tasks} == {"bare", "flow", "other", "plain"}
    assert planned.tasks[0].spec.task_template.container.args[3] == name


def test_at_home_they_are_functions_that_can_be_awaited(module: Any) -> None:
    assert module.plain(1) == 2
    assert asyncio.run(module.flow()) == 12
    assert asyncio.run(module.bare()) == 12


async def test_in_a_run_what_is_awaited_is_submitted_and_what_is_called_is_not(module: Any) -> None:
    class Submitter:
        async def submit(self, task: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
            return task.name, args, dict(kwargs)

    context = _context.TaskContext(project="p", domain="d", run="r", submitter=Submitter())
    with _context.task_scope(context):
        assert await module.plain(x=1) == (module.plain.name, (), {"x": 1})
        assert await asyncio.to_thread(module.plain, 1) == 2


def test_what_it_refuses(module: Any) -> None:
    from flytekit import eager, task

    with pytest.raises(DeclarationError, match="async def"):

        @eager
        def plain() -> None: ...

    with pytest.raises(DeclarationError, match="container_image"):
        task(container_image="x")  # type: ignore[call-overload]


def test_a_module_that_is_loaded_again_replaces_its_tasks(module: Any, tmp_path: Path) -> None:
    name = module.__name__
    del sys.modules[name]
    again = load_file(tmp_path / f"{name}.py").module
    assert _environment.find_task(f"{name}.flow", module=name) is again.flow

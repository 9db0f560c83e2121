"""The published example declares what its text says, and refuses strangers (W13)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.flyte.app.callers import get

from flyte._deploy import load_file

APPS = Path(__file__).resolve().parents[3] / "examples" / "apps"


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    path, modules = list(sys.path), ("run_webhook", "tasks")
    for name in modules:
        sys.modules.pop(name, None)
    yield
    sys.path[:] = path
    for name in modules:
        sys.modules.pop(name, None)


async def test_w13_the_example_answers_health_and_refuses_strangers() -> None:
    loaded = load_file(APPS / "run_webhook.py")
    app = loaded.module.app
    assert (await get(app, "/health")).json() == {"status": "healthy"}
    assert (await get(app, "/me")).status_code == 401
    environment = loaded.environment("app_env", kind="app")
    assert environment.name == "webhook-runner"


def test_w13_the_task_of_the_example_takes_what_the_webhook_sends() -> None:
    loaded = load_file(APPS / "tasks.py")
    task = loaded.module.my_task
    assert task.name == "my_env.my_task"
    assert set(task.interface.by_name) == {"x", "y"}

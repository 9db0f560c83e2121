"""The published example declares what its text says, and refuses strangers (W13)."""

from __future__ import annotations

from pathlib import Path

from tests.flyte.app.callers import get

from flyte._deploy import load_file

APPS = Path(__file__).resolve().parents[3] / "examples" / "apps"


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

"""S0's webhook and a task, deployed once to a real Tower."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.seeds import documents
from tests.tower_process import Tower

TASK = """
import flyte
import flyte.remote as remote

env = flyte.TaskEnvironment(name="my_env", image=flyte.Image.from_debian_base())


@env.task
async def my_task(x: int, y: str) -> str:
    user = await remote.User.get.aio()
    return f"{y} {x} as {user.subject()}"


@env.task
def double(x: int = 2) -> int:
    return 2 * x


@env.task
def patient(seconds: int) -> int:
    import time

    time.sleep(seconds)
    return seconds
"""


@dataclass(frozen=True, slots=True)
class Webhook:
    """The deployed webhook: how to call it as somebody."""

    tower: Tower
    path: str
    host: str

    def call(
        self, method: str, path: str, *, user: str | None, key: str | None = None, **options: object
    ) -> httpx.Response:
        """Call the webhook through the gateway by its path."""
        credential = key or (self.tower.keys[user] if user else None)
        headers = {"authorization": f"Bearer {credential}"} if credential else {}
        headers |= options.pop("headers", {})  # type: ignore[arg-type]
        with self.tower.http() as client:
            return client.request(method, self.path + path, headers=headers, **options)  # type: ignore[arg-type]

    def run_task(
        self, user: str, name: str = "my_env.my_task", inputs: object = None, **options: object
    ) -> httpx.Response:
        """POST the inputs to /run-task as somebody."""
        body = {"x": 42, "y": "hello"} if inputs is None else inputs
        return self.call("POST", f"/run-task/flytesnacks/development/{name}", user=user, json=body, **options)


@pytest.fixture(scope="session")
def webhook(tower: Tower, tmp_path_factory: pytest.TempPathFactory) -> Webhook:
    """The seed's webhook with the endpoint value alone changed, and the task it runs."""
    folder = tmp_path_factory.mktemp("webhook")
    (folder / "webhook.py").write_text(documents.webhook(tower.url))
    (folder / "tasks.py").write_text(TASK)
    deploy(tower, folder)
    return Webhook(
        tower=tower,
        path="/apps/flytesnacks/development/webhook-runner",
        host="webhook-runner-flytesnacks-development.localhost",
    )


def deploy(tower: Tower, folder: Path) -> None:
    tower.flyte(
        "--project", "flytesnacks", "--domain", "development", "deploy", "tasks.py", "env", cwd=folder
    )
    tower.flyte(
        "--project", "flytesnacks", "--domain", "development", "serve", "webhook.py", "app_env", cwd=folder
    )


@pytest.fixture
def outcome(tower: Tower):  # type: ignore[no-untyped-def]
    """Wait for a run's end and answer what `flyte get run` prints."""

    def wait(name: str, user: str = "alice") -> dict[str, object]:
        tower.flyte("logs", name, "--follow", user=user, check=False)
        printed = tower.flyte("get", "run", name, "-o", "json", user=user).json()
        assert isinstance(printed, dict)
        return printed

    return wait

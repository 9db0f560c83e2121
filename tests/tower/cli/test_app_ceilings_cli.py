"""`flyte get|update|delete app-ceiling`: what administrators let an app do for people at most."""

from __future__ import annotations

from typing import Any

import pytest
from tests.tower_process import Finished, Tower

pytestmark = pytest.mark.xdist_group("login")


@pytest.fixture(scope="module")
def root(tower: Tower) -> Tower:
    tower.keys["admin"] = (tower.home / "admin-key").read_text().strip()
    return tower


def limits(root: Tower, app: str) -> list[dict[str, Any]]:
    found = root.flyte("get", "app-ceiling", app, "-o", "json", user="admin").json()
    assert isinstance(found, list)
    return found


def test_limits_are_set_shown_replaced_and_lifted(root: Tower) -> None:
    def flyte(*arguments: str) -> Finished:
        return root.flyte(*arguments, user="admin")

    assert limits(root, "hook") == []
    task = "flytesnacks/development/env.f"
    flyte("update", "app-ceiling", "hook", "--action", "task:run", "--task", task)
    [one] = limits(root, "hook")
    assert (one["source"], one["actions"], one["projects"], one["tasks"], one["updated_by"]) == (
        "admin", ["task:run"], None, [task], "admin",
    )  # fmt: skip
    flyte("update", "app-ceiling", "hook", "--in-project", "flytesnacks", "--no-action")
    [one] = limits(root, "hook")
    assert (one["actions"], one["projects"], one["tasks"]) == ([], ["flytesnacks"], None)
    header, row = flyte("get", "app-ceiling", "hook").out.splitlines()
    assert header.split() == ["SOURCE", "ACTIONS", "PROJECTS", "TASKS", "UPDATED", "BY", "UPDATED", "AT"]
    assert row.split()[:4] == ["admin", "none", "flytesnacks", "any"]
    assert limits(root, "other") == []
    flyte("delete", "app-ceiling", "hook")
    assert limits(root, "hook") == []
    events = flyte("get", "audit", "--resource", "app:flytesnacks/development/hook", "-o", "json").json()
    assert isinstance(events, list)
    changes = [each["event"] for each in events if each["event"].startswith("ceiling.")]
    assert changes == ["ceiling.delete", "ceiling.update", "ceiling.update"]


@pytest.mark.parametrize(
    ("user", "arguments", "status", "told"),
    [
        ("admin", ("update", "app-ceiling", "hook"), 2, "flyte delete app-ceiling hook"),
        ("admin", ("update", "app-ceiling", "hook", "--action", "task:eat"), 2, "task:eat"),
        ("admin", ("update", "app-ceiling", "hook", "--task", "env.f"), 2, "PROJECT/DOMAIN"),
        ("admin", ("update", "app-ceiling", "hook", "--no-action", "--action", "task:run"), 2, "--no-action"),
        ("admin", ("delete", "app-ceiling", "hook"), 5, ""),
        ("alice", ("update", "app-ceiling", "hook", "--action", "task:run"), 4, ""),
        ("dave", ("get", "app-ceiling", "hook"), 5, ""),
    ],
)
def test_what_is_refused(root: Tower, user: str, arguments: tuple[str, ...], status: int, told: str) -> None:
    done = root.flyte(*arguments, user=user, check=False)
    assert done.status == status, done.err
    assert told in done.err

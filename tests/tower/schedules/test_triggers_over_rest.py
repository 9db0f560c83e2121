"""The routes of triggers: what is shown to whom, and who switches and deletes."""

from __future__ import annotations

import pytest
from flyteidl2.task import common_pb2, run_pb2
from tests.tower.schedules.conftest import cron
from tests.tower.secrets.conftest import PLACE, TASK, Den, den

from tower.control.schedules import Declared

__all__ = ["den"]

ONE = "/triggers/flytesnacks/development/t/daily"


@pytest.fixture
async def due(den: Den) -> Den:
    """Alice's task `t` with a trigger, which is active and hers."""
    await den.deploy("alice")
    declared = Declared(
        name="daily",
        automation=cron("0 9 * * *", "Europe/Berlin"),
        inputs=common_pb2.Inputs(),
        inputs_uri="",
        run_spec=run_pb2.RunSpec(),
        active=True,
        description="every day",
    )
    await den.house.schedules.deploy(await den.who("alice"), TASK, "1", declared, request_id="q")
    return den


async def test_who_may_view_the_task_sees_its_triggers(due: Den) -> None:
    (shown,) = (await due.call("carol", "GET", "/triggers", params=PLACE)).json()["triggers"]
    assert (shown["name"], shown["task"], shown["state"], shown["version"]) == ("daily", "t", "active", "1")
    assert (shown["owner"], shown["run_as"], shown["description"]) == ("alice", "alice", "every day")
    assert "Europe/Berlin" in shown["schedule"]
    assert shown["next_at"]
    assert (await due.call("carol", "GET", ONE)).json() == shown
    assert (await due.call("dave", "GET", "/triggers")).json() == {"triggers": [], "next": None}
    hidden = await due.call("dave", "GET", ONE)
    absent = await due.call("dave", "GET", "/triggers/flytesnacks/development/t/nightly")
    assert hidden.status_code == absent.status_code == 404
    assert (await due.call("carol", "GET", "/triggers", params={"task": "u"})).json()["triggers"] == []


async def test_lists_come_in_pages(due: Den) -> None:
    first = (await due.call("alice", "GET", "/triggers", params={"limit": 1})).json()
    assert (len(first["triggers"]), first["next"]) == (1, None)
    assert (await due.call("alice", "GET", "/triggers", params={"limit": 0})).status_code == 400


async def test_its_person_pauses_and_activates_it(due: Den) -> None:
    paused = await due.call("alice", "POST", f"{ONE}/pause")
    assert (paused.status_code, paused.json()["state"], paused.json()["next_at"]) == (200, "inactive", None)
    active = await due.call("alice", "POST", f"{ONE}/activate")
    assert (active.status_code, active.json()["state"], active.json()["run_as"]) == (200, "active", "alice")
    events = [each.event for each in await due.records(subject="alice")]
    assert events[:2] == ["trigger.activate", "trigger.deactivate"]


async def test_another_contributor_pauses_and_does_not_take_it_over(due: Den) -> None:
    """T40: nobody is made to run what somebody else chose, nor runs as somebody else."""
    assert (await due.call("bob", "POST", f"{ONE}/pause")).status_code == 200
    assert (await due.call("bob", "POST", f"{ONE}/activate")).status_code == 403
    assert (await due.call("bob", "DELETE", ONE)).status_code == 403
    taken = await due.call("root", "POST", f"{ONE}/activate")
    assert (taken.status_code, taken.json()["run_as"]) == (200, "root")


async def test_a_viewer_switches_nothing(due: Den) -> None:
    for verb in ("pause", "activate"):
        assert (await due.call("carol", "POST", f"{ONE}/{verb}")).status_code == 403
    assert (await due.call("carol", "DELETE", ONE)).status_code == 403
    assert (await due.call("carol", "GET", ONE)).json()["state"] == "active"


async def test_deleting_one_leaves_nothing_to_see(due: Den) -> None:
    assert (await due.call("alice", "DELETE", ONE)).status_code == 204
    assert (await due.call("alice", "GET", ONE)).status_code == 404
    assert (await due.call("alice", "DELETE", ONE)).status_code == 404


async def test_a_running_task_activates_nothing(due: Den) -> None:
    """It would outlive the run."""
    await due.call("alice", "POST", f"{ONE}/pause")
    work = await due.attempt("alice")
    assert (await due.call(work, "POST", f"{ONE}/activate")).status_code == 403

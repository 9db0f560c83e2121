"""A schedule from its declaration to the run that it starts: the SDK, the server, the command line."""

from __future__ import annotations

import json
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import Lab
from tests.tower_process import Tower

from flyte.transport._envelope import Unwrapper, envelope

pytestmark = pytest.mark.xdist_group("tower")

CODE = """
import json
from datetime import datetime
import flyte
import flyte.remote as remote

env = flyte.TaskEnvironment(name="clockwork")

@env.task(
    triggers=[
        flyte.Trigger(
            "soon",
            flyte.FixedRate(1, start_time=datetime.fromisoformat("{start}")),
            inputs={"at": flyte.TriggerTime, "text": "tick"},
            env_vars={"MOOD": "calm"},
        ),
        flyte.Trigger("weekdays", flyte.Cron("0 9 * * MON-FRI", timezone="Europe/Berlin"),
                      inputs={"at": flyte.TriggerTime}, auto_activate=False),
    ]
)
async def tick(at: datetime, text: str = "tock") -> str:
    import os
    user = await remote.User.get.aio()
    return json.dumps([at.isoformat(), text, os.environ["MOOD"], user.subject()])
"""


def started(tower: Tower, task: str) -> str:
    """The name of the first run of a task, as soon as there is one."""
    request = runs.WatchRunsRequest()
    request.project_id.name, request.project_id.domain = "flytesnacks", "development"
    unwrapper = Unwrapper()
    with (
        tower.http("alice") as client,
        client.stream(
            "POST",
            "/flyteidl2.workflow.RunService/WatchRuns",
            content=envelope(request.SerializeToString()),
            headers={"content-type": "application/connect+proto"},
        ) as answer,
    ):
        for chunk in answer.iter_bytes():
            for data in unwrapper.feed(chunk):
                for run in runs.WatchRunsResponse.FromString(data).runs:
                    if run.action.metadata.task.id.name == task:
                        return str(run.action.id.run.name)
    raise AssertionError("the stream ended")


def test_a_schedule_from_the_declaration_to_the_run(tower: Tower, tmp_path: Path) -> None:
    start = datetime.now(UTC) + timedelta(seconds=6)
    (tmp_path / "clockwork.py").write_text(textwrap.dedent(CODE).replace("{start}", start.isoformat()))
    tower.flyte("deploy", "clockwork.py", "env", cwd=tmp_path)
    listed = {each["name"]: each for each in json.loads(tower.flyte("get", "trigger", "-o", "json").out)}
    assert (listed["soon"]["state"], listed["weekdays"]["state"]) == ("active", "inactive")
    assert listed["soon"]["owner"] == "alice"
    assert listed["weekdays"]["schedule"] == "0 9 * * MON-FRI Europe/Berlin"

    name = started(tower, "clockwork.tick")
    with tower.http() as client:
        Lab(tower, client, "").wait("alice", name)
    run = json.loads(tower.flyte("get", "run", name, "-o", "json").out)
    assert run["phase"] == "SUCCEEDED", run
    assert run["executed_by"] == "alice"
    assert run["via_trigger"] == "flytesnacks/development/clockwork.tick/soon"
    at, text, mood, subject = json.loads(run["outputs"]["o0"])
    assert (datetime.fromisoformat(at) - start) % timedelta(minutes=1) == timedelta(0)
    assert (text, mood, subject) == ("tick", "calm", "alice")
    trigger = json.loads(tower.flyte("get", "trigger", "soon", "clockwork.tick", "-o", "json").out)
    assert trigger["last_run"]
    assert (datetime.fromisoformat(trigger["next_at"]) - start) % timedelta(minutes=1) == timedelta(0)

    (tmp_path / "clockwork.py").write_text((tmp_path / "clockwork.py").read_text() + "# later\n")
    said = tower.flyte("deploy", "clockwork.py", "env", user="bob", cwd=tmp_path).err
    assert "Trigger soon of clockwork.tick: bob deployed the version" in said
    switch = ("update", "trigger", "weekdays", "clockwork.tick")
    assert tower.flyte(*switch, "--activate", user="carol", check=False).status == 4
    tower.flyte(*switch, "--activate")
    tower.flyte("update", "trigger", "soon", "clockwork.tick", "--deactivate", user="bob")
    assert tower.flyte("delete", "trigger", "soon", "clockwork.tick", user="bob", check=False).status == 4
    tower.flyte("delete", "trigger", "soon", "clockwork.tick")
    assert tower.flyte("get", "trigger", "soon", "clockwork.tick", check=False).status == 5
    assert tower.flyte("get", "trigger", "soon", "clockwork.tick", user="dave", check=False).status == 5
    tower.flyte("delete", "trigger", "weekdays", "clockwork.tick")

"""T5, T7: work is stopped when nobody is left for whom it could act, on a whole Tower."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab

pytestmark = pytest.mark.xdist_group("threats")

WAITS = """
import asyncio
async def main():
    print("begun", flush=True)
    await asyncio.Event().wait()
"""


def revoke(lab: Lab, who: str, run: str) -> None:
    place = ("--project", PROJECT, "--domain", DOMAIN)
    said = lab.tower.flyte(*place, "-o", "json", "delete", "grant", run, user=who).json()
    assert said["ended"].endswith(f"was revoked by {who}.")  # type: ignore[index]


def disable(lab: Lab, who: str, run: str) -> None:
    assert lab.rest("admin", "POST", f"/users/{who}/disable").status_code == 200


def delete_key(lab: Lab, who: str, run: str) -> None:
    assert lab.rest("admin", "DELETE", f"/keys/{who}-key").status_code in {200, 204}


@pytest.mark.parametrize("end", [revoke, disable, delete_key])
def test_t07_what_runs_for_nobody_is_stopped(lab: Lab, end: Callable[[Lab, str, str], None]) -> None:
    who = f"leaver-{secrets.token_hex(3)}"
    lab.tower.tower("users", "add", who, "--role", "contributor", "--project", PROJECT)
    lab.tower.keys[who] = lab.tower.new_key(f"{who}-key", who)
    started = lab.start(who, WAITS)
    assert started.status_code == 200, started.text
    name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
    place = ("--project", PROJECT, "--domain", DOMAIN)
    logs = lab.tower.flyte(*place, "get", "grant", "-o", "json", user=who).json()
    assert [each["run"] for each in logs] == [name]  # type: ignore[index]
    _begun(lab, name)
    end(lab, who, name)
    details = lab.wait("admin", name)
    assert details.action.status.phase == phase_pb2.ACTION_PHASE_FAILED
    said = details.action.error_info.message
    assert "revoked" in said or "does not hold any more" in said
    (record,) = lab.audit(event="run.finish", run=f"{PROJECT}/{DOMAIN}/{name}")
    assert (record["subject"], record["outcome"]) == (who, "failed")


def _begun(lab: Lab, name: str) -> None:
    """Return once the task has said its first line."""
    link = lab.tower.tower("users", "link", "admin").out.strip()
    path = f"/v2/domain/{DOMAIN}/project/{PROJECT}/runs/{name}/logs"
    with lab.tower.http() as browser:
        assert browser.get(link, follow_redirects=True).status_code == 200
        with browser.stream("GET", path) as answer:
            for line in answer.iter_lines():
                if "begun" in line:
                    return
    raise AssertionError("it did not begin")

"""What a user chose has no say before the process is closed off: the launcher runs as Tower does."""

from __future__ import annotations

from pathlib import Path

import pytest
from flyteidl2.task import task_definition_pb2, task_service_pb2
from tests.threats.conftest import DOMAIN, PROJECT, Lab

from tower.executors.process.isolation import Wanted, choose

pytestmark = pytest.mark.xdist_group("threats")


def test_t09_variables_of_a_task_do_not_reach_the_launcher(lab: Lab, tmp_path: Path) -> None:
    """The dynamic linker obeys them as a process starts: LD_AUDIT would load the user's library outside."""
    if not choose(Wanted.PREFERRED)[0].mode.namespaces:
        pytest.skip("this machine does not isolate")
    output = tmp_path / "linker"
    lab.inside_task("bob", "def main(): return 1")  # forked: what has other variables is not, from here on
    spec = deployed(lab)
    spec.task_template.container.env.add(key="LD_DEBUG", value="libs")
    spec.task_template.container.env.add(key="LD_DEBUG_OUTPUT", value=str(output))
    code = "import os\ndef main(): return [os.environ['LD_DEBUG_OUTPUT'], os.getppid()]"
    told = lab.inside_task("bob", code, task_spec=spec)
    assert told == [str(output), 1], "it has its variables, in a process of its own"
    assert list(tmp_path.iterdir()) == [], "a process outside has obeyed them"


def deployed(lab: Lab) -> task_definition_pb2.TaskSpec:
    """The specification of the attacker's task."""
    asked = task_service_pb2.GetTaskDetailsRequest()
    where = asked.task_id
    where.project, where.domain, where.name = PROJECT, DOMAIN, "lab.attack"
    found = lab.rpc("bob", "task.TaskService/GetTaskDetails", asked)
    spec: task_definition_pb2.TaskSpec
    spec = task_service_pb2.GetTaskDetailsResponse.FromString(found.content).details.spec
    return spec

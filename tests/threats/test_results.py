"""T29: what one person's run came to is not handed to another who asks for the same."""

from __future__ import annotations

from flyteidl2.task import task_service_pb2 as tasks
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab

CODE = "import os\ndef main(): return os.urandom(8).hex()"


def cached(lab: Lab) -> str:
    """A version of the attacker's task that declares its results cacheable."""
    asked = tasks.ListVersionsRequest()
    asked.task_name.project, asked.task_name.domain, asked.task_name.name = PROJECT, DOMAIN, "lab.attack"
    listed = tasks.ListVersionsResponse.FromString(
        lab.rpc("mallory", "task.TaskService/ListVersions", asked).content
    )
    details = tasks.GetTaskDetailsRequest()
    task = details.task_id
    task.project, task.domain, task.name = PROJECT, DOMAIN, "lab.attack"
    task.version = listed.versions[0].version
    found = tasks.GetTaskDetailsResponse.FromString(
        lab.rpc("mallory", "task.TaskService/GetTaskDetails", details).content
    )
    deploy = tasks.DeployTaskRequest(task_id=task, spec=found.details.spec)
    deploy.task_id.name = deploy.spec.task_template.id.name = "lab.cached"
    deploy.spec.task_template.metadata.discoverable = True
    deploy.spec.task_template.metadata.discovery_version = "1"
    answer = lab.rpc("mallory", "task.TaskService/DeployTask", deploy)
    assert answer.status_code == 200, answer.text
    return deploy.task_id.version


def test_t29_no_result_of_one_person_serves_another(lab: Lab) -> None:
    task = runs.CreateRunRequest().task_id
    task.name, task.version = "lab.cached", cached(lab)
    results = {lab.inside_task(who, CODE, task_id=task) for who in ("alice", "alice", "bob", "mallory")}
    assert len(results) == 4

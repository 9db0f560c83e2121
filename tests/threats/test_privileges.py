"""T1: privileges of work on a whole Tower: undeclared, given or run by the wrong one, and held."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab

pytestmark = pytest.mark.xdist_group("threats")

SCOPE = ("--project", PROJECT, "--domain", DOMAIN)
WRITE = """
import flyte, flyte.remote as remote
async def main():
    try:
        await remote.Secret.create.aio("NAME", "written by work")
    except Exception as error:
        return type(error).__name__ + ": " + str(error)
    return "written"
"""
DEPUTY = """
import flyte, flyte.remote as remote
WRITE = '''INNER'''
async def main():
    run = await flyte.run.aio(remote.Task.get(name="keeper.attack"), code=WRITE)
    await run.wait.aio()
    return (await run.outputs.aio())[0]
"""


def declared(folder: Path, name: str) -> None:
    text = (Path(__file__).parent / "lab" / "tasks.py").read_text()
    changed = text.replace('name="lab"', f'name="{name}", privileges=["secret:create"]')
    assert changed != text
    (folder / "tasks.py").write_text(changed)


@pytest.fixture(scope="module")
def keeper(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The lab with `keeper.attack`, which an administrator deployed with the privilege to write secrets."""
    folder = tmp_path_factory.mktemp("keeper")
    declared(folder, "keeper")
    lab.deploy(lab.admin_key, folder, "deploy", "tasks.py", "env")
    return lab


def run(lab: Lab, who: str, task: str, code: str = WRITE) -> tuple[str, str]:
    """What the code says in that task, and the name of the secret that it was to write."""
    name = f"by-work-{secrets.token_hex(4)}"
    named = runs.CreateRunRequest().task_id
    named.name = task
    said = lab.inside_task(who, code.replace("INNER", WRITE).replace("NAME", name), task_id=named)
    return str(said), name


def there(lab: Lab, name: str) -> bool:
    place = {"project": PROJECT, "domain": DOMAIN}
    answer = lab.client.get(f"/api/v1/secrets/{name}", params=place, headers=lab.bearer("admin"))
    return answer.status_code == 200


def test_t01_a_task_that_declares_nothing_writes_no_secret_for_an_administrator(lab: Lab) -> None:
    said, name = run(lab, "admin", "lab.attack")
    assert "secret:create" in said
    assert not there(lab, name)


def test_t01_nobody_deploys_a_privilege_that_they_do_not_have(lab: Lab, tmp_path: Path) -> None:
    declared(tmp_path, "bait")
    refused = lab.tower.flyte(*SCOPE, "deploy", "tasks.py", "env", user="mallory", cwd=tmp_path, check=False)
    assert refused.status != 0
    assert "secret:create" in refused.err
    record = lab.audit(event="access.refuse", subject="mallory")[0]
    assert (record["action"], record["detail"]["task"]) == ("secret:create", "bait.attack")
    assert lab.audit(resource=f"task:{PROJECT}/{DOMAIN}/bait.attack", event="task.deploy") == []


def test_t01_declared_and_held_it_writes_and_the_record_says_who_let_it(keeper: Lab) -> None:
    said, name = run(keeper, "admin", "keeper.attack")
    assert said == "written"
    assert there(keeper, name)
    record = keeper.audit(event="secret.create")[0]
    assert record["subject"] == "admin"
    assert f"privilege of task:{PROJECT}/{DOMAIN}/keeper.attack given by admin" in record["decision"]
    created = keeper.audit(event="run.create", run=record["run"])[0]
    assert (created["detail"]["privileges"], created["detail"]["given_by"]) == ("secret:create", "admin")
    shown = keeper.tower.flyte(*SCOPE, "-o", "json", "get", "task", "keeper.attack", user="alice").json()
    assert shown["privileges"] == ["secret:create"]


def test_t01_an_executor_without_the_right_gets_nothing_from_such_a_task(keeper: Lab) -> None:
    said, name = run(keeper, "alice", "keeper.attack")
    assert "secret:create" in said
    assert not there(keeper, name)
    record = keeper.audit(event="access.refuse", subject="alice")[0]
    assert record["action"] == "secret:create"


def test_t01_a_trojan_does_not_get_there_by_calling_such_a_task(keeper: Lab) -> None:
    """The confused deputy: Mallory's code, run by an administrator, asks the privileged task to do it."""
    said, name = run(keeper, "admin", "lab.attack", DEPUTY)
    assert "secret:create" in said
    assert not there(keeper, name)

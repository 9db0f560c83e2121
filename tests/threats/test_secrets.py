"""Secrets against code that others wrote and people who look around: T1, T31, T33, and where a value lies."""

from __future__ import annotations

import json
import re
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.app import app_payload_pb2
from flyteidl2.common import phase_pb2
from flyteidl2.project import project_service_pb2
from flyteidl2.task import task_service_pb2 as tasks
from flyteidl2.workflow import run_service_pb2 as runs
from tests.files import below
from tests.threats.conftest import DOMAIN, PROJECT, Lab

pytestmark = pytest.mark.xdist_group("threats")

SCOPE = ("--project", PROJECT, "--domain", DOMAIN)


@dataclass
class Vault:
    """The lab with a task that two secrets are given to: one in a variable, one in a file."""

    lab: Lab
    token: str = field(default_factory=lambda: f"canary-{secrets.token_hex(16)}", repr=False)
    pem: str = field(default_factory=lambda: f"-----{secrets.token_hex(16)}-----", repr=False)

    @property
    def values(self) -> tuple[bytes, ...]:
        return self.token.encode(), self.pem.encode()

    def run(self, who: str, code: str) -> tuple[str, Any]:
        """A run of the task, ended: its name and details."""
        started = self.lab.start(who, code, task_id=task("vault.attack"))
        assert started.status_code == 200, started.text
        name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
        return name, self.lab.wait(who, name)


def task(name: str) -> Any:
    named = runs.CreateRunRequest().task_id
    named.name = name
    return named


@pytest.fixture(scope="module")
def vault(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Vault:
    made = Vault(lab)
    folder = tmp_path_factory.mktemp("vault")
    for name, value in (("vault-token", made.token), ("vault-pem", made.pem)):
        file = folder / name
        file.write_text(value)
        lab.tower.flyte("create", "secret", name, "--value-file", str(file), *SCOPE, user=lab.admin_key)
        file.unlink()
    text = (Path(__file__).parent / "lab" / "tasks.py").read_text()
    declared = 'secrets=["vault-token", flyte.Secret("vault-pem", mount=True)]'
    (folder / "tasks.py").write_text(text.replace('name="lab"', f'name="vault", {declared}'))
    lab.deploy("alice", folder, "deploy", "tasks.py", "env")
    return made


def test_t33_specifications_hold_references_and_the_api_gives_no_value(vault: Vault) -> None:
    """What a task, a run, an app, a list and a record say of a secret is its name."""
    lab = vault.lab
    name, _ = vault.run("bob", "def main(): return 1")
    asked = tasks.GetTaskDetailsRequest()
    asked.task_id.project, asked.task_id.domain, asked.task_id.name = PROJECT, DOMAIN, "vault.attack"
    versions = tasks.ListVersionsRequest()
    named = versions.task_name
    named.project, named.domain, named.name = PROJECT, DOMAIN, "vault.attack"
    listed = lab.rpc("alice", "task.TaskService/ListVersions", versions).content
    asked.task_id.version = tasks.ListVersionsResponse.FromString(listed).versions[0].version
    details = runs.GetRunDetailsRequest()
    details.run_id.project, details.run_id.domain, details.run_id.name = PROJECT, DOMAIN, name
    answers = [
        lab.rpc("alice", "task.TaskService/GetTaskDetails", asked).content,
        lab.rpc("bob", "workflow.RunService/GetRunDetails", details).content,
        lab.rpc("admin", "app.AppService/List", app_payload_pb2.ListRequest()).content,
        lab.rest("admin", "GET", "/secrets").content,
        lab.rest("alice", "GET", f"/secrets/vault-token?project={PROJECT}&domain={DOMAIN}").content,
        lab.rest("admin", "GET", "/audit?limit=500").content,
        lab.client.get("/api/openapi.json").content,
    ]
    assert b"vault-token" in answers[0]
    assert b"vault-token" in answers[3]
    assert not any(value in answer for value in vault.values for answer in answers)
    # there is no way to ask for the value: the one route that gives it is for attempts and starting apps
    for who in ("admin", "alice", "bob"):
        assert lab.rest(who, "POST", "/workload/secrets", {}).status_code == 403
    described = lab.client.get("/api/openapi.json").json()
    fields = described["components"]["schemas"]["Secret"]["properties"]
    assert "value" not in fields
    read = lab.audit(event="secret.read", run=f"{PROJECT}/{DOMAIN}/{name}")
    assert {each["detail"]["secret"] for each in read} == {"vault-token", "vault-pem"}
    assert {each["subject"] for each in read} == {"bob"}


def test_t33_a_value_is_nowhere_while_the_task_runs_nor_afterwards(vault: Vault) -> None:
    """Canary: not in the start of any process, not on disk, in the database, a log, or memory left behind."""
    lab = vault.lab
    with socket.create_server(("127.0.0.1", 0)) as meeting:
        meeting.settimeout(60)
        started = lab.start(
            "bob",
            f"""
            import logging, os, socket, sys
            logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, force=True)
            def main():
                folder = os.environ["FLYTE_SECRETS_DIR"]
                path = os.path.join(folder, "vault-pem")
                pem = open(path).read()
                logging.debug("token %s, pem %r, all %s", os.environ["VAULT_TOKEN"], pem, dict(os.environ))
                print(os.environ["VAULT_TOKEN"], file=sys.stderr)
                modes = [oct(os.stat(each).st_mode & 0o777) for each in (folder, path)]
                at_start = open("/proc/self/environ").read() + open("/proc/self/cmdline").read()
                with socket.create_connection(("127.0.0.1", {meeting.getsockname()[1]})) as link:
                    link.sendall(b"!")
                    link.recv(1)
                return [len(os.environ["VAULT_TOKEN"]), len(pem), *modes,
                        os.environ["VAULT_TOKEN"] in at_start, pem in at_start]
            """,
            task_id=task("vault.attack"),
        )
        link, _ = meeting.accept()
        with link:
            assert link.recv(1) == b"!"
            assert leaks(vault) == []
            link.sendall(b"!")
    name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
    details = lab.wait("bob", name)
    assert details.action.status.phase == phase_pb2.ACTION_PHASE_SUCCEEDED, details.action.error_info.message
    told = json.loads(lab.output("bob", name))
    assert told == [len(vault.token), len(vault.pem), "0o700", "0o400", False, False]
    assert leaks(vault) == []
    log = next((lab.tower.home / "logs").rglob(f"{name}/a0/1.log")).read_text()
    assert log.count("[secret]") >= 4


def test_t31_a_result_that_holds_a_secret_is_not_kept(vault: Vault) -> None:
    """Its environment, the value itself, an exception with it, a token for outside: none of it is stored."""
    codes = {
        "environment": "import os\ndef main(): return dict(os.environ)",
        "value": "import os\ndef main(): return 'x' + os.environ['VAULT_TOKEN'] + 'x'",
        "file": "import os\ndef main(): return open(os.environ['FLYTE_SECRETS_DIR'] + '/vault-pem').read()",
        "error": "import os\ndef main(): raise ValueError('it is ' + os.environ['VAULT_TOKEN'])",
        "token": "import flyte\nasync def main(): return await flyte.identity_token.aio('https://x.test')",
        "key": "def main(): return 'twr_' + 'a' * 12 + '_' + 'B' * 43",
    }
    for what, code in codes.items():
        name, details = vault.run("bob", code)
        assert details.action.status.phase == phase_pb2.ACTION_PHASE_FAILED, what
        message = details.action.error_info.message
        assert ("[secret]" if what == "error" else "holds a secret") in message, what
        asked = runs.GetActionDataRequest()
        where = asked.action_id
        where.run.project, where.run.domain, where.run.name, where.name = PROJECT, DOMAIN, name, "a0"
        data = vault.lab.rpc("bob", "workflow.RunService/GetActionData", asked).content
        assert not any(value in data for value in vault.values)
    assert leaks(vault) == []
    # the SDK's own objects hold nothing to store
    name, details = vault.run(
        "bob",
        """
        import flyte.remote as remote
        from flyte._init import ambient_session
        async def main():
            session = ambient_session()
            await remote.User.get.aio()
            return [repr(session), str(vars(session)), str(session.credentials.headers())]
        """,
    )
    assert details.action.status.phase == phase_pb2.ACTION_PHASE_SUCCEEDED, details.action.error_info.message
    assert not re.search(r"twr_[A-Za-z0-9]{12}_|eyJ", vault.lab.output("bob", name))


def test_t01_a_trojan_reads_no_secret_of_another_project(vault: Vault, tmp_path: Path) -> None:
    """Mallory's task, run by an administrator, gets nothing that she may not use: declared or asked for."""
    lab, tower = vault.lab, vault.lab.tower
    (tmp_path / "v").write_text(f"canary-{secrets.token_hex(16)}")
    create = ("create", "secret", "crown-jewel", "--value-file", str(tmp_path / "v"))
    lab.rpc("admin", "project.ProjectService/CreateProject", _project("castle"))
    tower.flyte(*create, "--project", "castle", "--domain", DOMAIN, user=lab.admin_key)
    tower.flyte(
        *create, user=lab.admin_key
    )  # and one of the whole installation, which she may not use either
    text = (Path(__file__).parent / "lab" / "tasks.py").read_text()
    (tmp_path / "tasks.py").write_text(text.replace('name="lab"', 'name="greedy", secrets=["crown-jewel"]'))
    lab.deploy("mallory", tmp_path, "deploy", "tasks.py", "env")
    started = lab.start("admin", "def main(): return 1", task_id=task("greedy.attack"))
    name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
    details = lab.wait("admin", name)
    assert details.action.status.phase == phase_pb2.ACTION_PHASE_FAILED
    assert "crown-jewel" in details.action.error_info.message
    assert "organi" not in details.action.error_info.message
    refused = lab.audit(event="access.refuse", run=f"{PROJECT}/{DOMAIN}/{name}")
    assert [(each["subject"], each["action"]) for each in refused] == [("admin", "secret:use")]
    # nor by hand: only what this version declares is given, and nothing else has a value to give
    tried = lab.inside_task(
        "admin",
        """
        import json
        from flyte._init import ambient_session
        async def ask(method, path, body=None):
            try:
                return json.dumps(await ambient_session().json(method, path, body))
            except Exception as error:
                return type(error).__name__
        async def main():
            place = "?project=castle&domain=development"
            return [
                await ask("POST", "/api/v1/workload/secrets", {}),
                await ask("POST", "/api/v1/workload/secrets", {"ticket": "x"}),
                await ask("POST", "/api/v1/workload/secrets" + place, {}),
                await ask("GET", "/api/v1/secrets/crown-jewel" + place),
                await ask("PUT", "/api/v1/secrets/crown-jewel" + place, {"value": "eA=="}),
                await ask("POST", "/api/v1/secrets", {"name": "mine", "value": "eA=="}),
            ]
        """,
    )
    assert tried[:3] == ['{"secrets": []}'] * 3
    assert (tmp_path / "v").read_text() not in tried[3]
    assert tried[4:] == ["PermissionDeniedError"] * 2


def test_a_missing_secret_is_named_and_nothing_more(vault: Vault, tmp_path: Path) -> None:
    lab = vault.lab
    text = (Path(__file__).parent / "lab" / "tasks.py").read_text()
    (tmp_path / "tasks.py").write_text(text.replace('name="lab"', 'name="lacking", secrets=["not-there"]'))
    lab.deploy("alice", tmp_path, "deploy", "tasks.py", "env")
    started = lab.start("bob", "def main(): return 1", task_id=task("lacking.attack"))
    name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
    error = lab.wait("bob", name).action.error_info.message
    assert "There is no secret not-there here" in error
    assert "Traceback" not in error


def leaks(vault: Vault) -> list[tuple[int, str]]:
    """Where a planted value is found: files of the home, logs, and how every process was started."""
    tower = vault.lab.tower
    places = [path for path in below(tower.home) if not path.is_symlink()]
    places += [tower.home.parent / f"{tower.home.name}.log"]
    places += [file for each in Path("/proc").glob("[0-9]*") for file in (each / "cmdline", each / "environ")]
    found = []
    for place in places:
        try:
            content = place.read_bytes()
        except OSError:
            continue
        found += [(number, str(place)) for number, value in enumerate(vault.values) if value in content]
    return found


def _project(name: str) -> Any:
    return project_service_pb2.CreateProjectRequest(project=project_service_pb2.Project(id=name, name=name))


def test_t31_a_secret_is_not_handed_on_in_inputs(vault: Vault) -> None:
    """To no run and no child of a task that was given it: inputs are kept, and seen with the run."""
    told = vault.lab.inside_task(
        "bob",
        """
        import os, flyte, flyte.remote as remote
        async def attempt(call):
            try:
                await call
                return "done"
            except Exception as error:
                return f"{type(error).__name__}: {error}"
        async def main():
            task = remote.Task.get(name="vault.attack")
            code = "def main(): return 1 #" + os.environ["VAULT_TOKEN"]
            return [await attempt(flyte.run.aio(task, code=code)), await attempt(task(code=code)),
                    await attempt(task(code="def main(): return 1"))]
        """,
        task_id=task("vault.attack"),
    )
    assert [each.partition(":")[0] for each in told[:2]] == ["RemoteTaskUsageError", "RemoteUsageError"]
    assert all("hold a secret" in each for each in told[:2])
    assert told[2] == "done"
    assert leaks(vault) == []


APP = """
import os
from pathlib import Path
import flyte
from fastapi import FastAPI
from flyte.app.extras import FastAPIAppEnvironment
from flyte.runtime import secrets

app = FastAPI()
at_start = Path("/proc/self/environ").read_text()


@app.get("/")
def seen() -> list[int | bool]:
    pem = Path(os.environ["FLYTE_SECRETS_DIR"], "vault-pem").read_text()
    token = os.environ["VAULT_TOKEN"]
    print("the token is", token, flush=True)
    return [len(token), len(pem), token in at_start, pem in at_start]


@app.get("/again")
def again() -> str:
    os.environ.pop("VAULT_TOKEN")
    try:
        secrets.enter(os.environ, directory=Path.cwd())
    except Exception as error:
        return type(error).__name__
    return os.environ["VAULT_TOKEN"]


served = FastAPIAppEnvironment(
    name="keeper",
    app=app,
    image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn", "websockets"),
    secrets=["vault-token", flyte.Secret("vault-pem", mount=True)],
)
"""


def test_t33_an_app_has_its_secrets_and_nothing_shows_them(vault: Vault, tmp_path: Path) -> None:
    """Given when it starts and never again; not in the start of its process, its log, or what is stored."""
    (tmp_path / "apps.py").write_text(APP)
    vault.lab.deploy("alice", tmp_path, "serve", "apps.py", "served")
    seen = vault.lab.app("bob", "GET", "/", name="keeper")
    assert seen.json() == [len(vault.token), len(vault.pem), False, False]
    assert leaks(vault) == []
    assert vault.lab.app("bob", "GET", "/again", name="keeper").json() == "FailedPreconditionError"
    (record, *_) = vault.lab.audit(event="secret.read", subject="alice")
    assert record["detail"]["app"] == f"{PROJECT}/{DOMAIN}/keeper"

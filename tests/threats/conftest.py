"""A running Tower with a task and two apps that run whatever an attacker wants them to."""

from __future__ import annotations

import json
import secrets
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import run_service_pb2 as runs
from google.protobuf.message import Message
from tests.tower_process import Tower

from flyte.transport._envelope import Unwrapper, envelope

PROJECT, DOMAIN = "flytesnacks", "development"
M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class Lab:
    """The server and short ways to attack it. People are named; a text that is no name is a credential."""

    tower: Tower
    client: httpx.Client
    admin_key: str = field(repr=False)

    def bearer(self, who: str | None) -> dict[str, str]:
        """The header with somebody's key."""
        if who is None:
            return {}
        key = self.admin_key if who == "admin" else self.tower.keys.get(who, who)
        return {"authorization": f"Bearer {key}"}

    def rpc(
        self,
        who: str | None,
        method: str,
        request: Message | bytes = b"",
        *,
        kind: str = "application/proto",
        **headers: str,
    ) -> httpx.Response:
        """Call `flyteidl2.<method>`."""
        content = request if isinstance(request, bytes) else request.SerializeToString()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(
            f"/flyteidl2.{method}",
            content=content,
            headers={"content-type": kind, **self.bearer(who), **names},
        )

    def rest(
        self, who: str | None, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        """Call `/api/v1<path>`."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, f"/api/v1{path}", json=body, headers={**self.bearer(who), **names})

    def app(
        self, who: str | None, method: str, path: str, *, name: str = "probe", **options: Any
    ) -> httpx.Response:
        """Call an app by its path."""
        headers = {**self.bearer(who), **options.pop("headers", {})}
        return self.client.request(
            method, f"/apps/{PROJECT}/{DOMAIN}/{name}{path}", headers=headers, **options
        )

    def inside_app(self, who: str, code: str, *, name: str = "probe") -> Any:
        """Run code inside an app while it serves this person; the code defines `main`."""
        answer = self.app(who, "POST", "/attack", name=name, content=textwrap.dedent(code))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def start(self, who: str, code: str, *, request_id: str = "", **request: Any) -> httpx.Response:
        """Ask for a run of the attacker's task."""
        asked = runs.CreateRunRequest(**request)
        asked.project_id.name, asked.project_id.domain = PROJECT, DOMAIN
        if not asked.HasField("task_spec"):
            task = asked.task_id
            task.project, task.domain, task.name = PROJECT, DOMAIN, task.name or "lab.attack"
        literal = asked.inputs.literals.add(name="code")
        literal.value.scalar.primitive.string_value = textwrap.dedent(code)
        headers = {"x_request_id": request_id} if request_id else {}
        return self.rpc(who, "workflow.RunService/CreateRun", asked, **headers)

    def wait(self, who: str, name: str) -> Any:
        """The details of a run that has ended."""
        request = runs.WatchRunDetailsRequest()
        request.run_id.project, request.run_id.domain, request.run_id.name = PROJECT, DOMAIN, name
        unwrapper, last = Unwrapper(), None
        headers = {"content-type": "application/connect+proto", **self.bearer(who)}
        path = "/flyteidl2.workflow.RunService/WatchRunDetails"
        content = envelope(request.SerializeToString())
        with self.client.stream("POST", path, content=content, headers=headers) as answer:
            for chunk in answer.iter_bytes():
                for data in unwrapper.feed(chunk):
                    last = runs.WatchRunDetailsResponse.FromString(data)
        assert last is not None
        return last.details

    def inside_task(self, who: str, code: str, **request: Any) -> Any:
        """Run code inside a task that this person asked for; what its `main` answers."""
        started = self.start(who, code, **request)
        assert started.status_code == 200, started.text
        name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
        details = self.wait(who, name)
        status = details.action
        assert status.status.phase == phase_pb2.ACTION_PHASE_SUCCEEDED, status.error_info.message
        return json.loads(self.output(who, name))

    def output(self, who: str, name: str) -> str:
        """The text that a run of the attacker's task answered."""
        asked = runs.GetActionDataRequest()
        where = asked.action_id
        where.run.project, where.run.domain, where.run.name, where.name = PROJECT, DOMAIN, name, "a0"
        found = self.rpc(who, "workflow.RunService/GetActionData", asked)
        data = runs.GetActionDataResponse.FromString(found.content)
        return str(data.outputs.literals[0].value.scalar.primitive.string_value)

    def elsewhere(self) -> httpx.Client:
        """A client at another address of this machine: what it does wrong is not held against the others."""
        address = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}.{secrets.randbelow(250) + 1}"
        transport = httpx.HTTPTransport(local_address=address, verify=False)
        return httpx.Client(base_url=self.tower.url, transport=transport, timeout=120.0, trust_env=False)

    def audit(self, **filters: str) -> list[dict[str, Any]]:
        """Audit records, newest first."""
        answer = self.client.get("/api/v1/audit", params=filters, headers=self.bearer("admin"))
        assert answer.status_code == 200, answer.text
        return list(answer.json()["records"])

    def deploy(self, who: str, folder: Path, verb: str, file: str, name: str) -> None:
        """Deploy an environment of a file."""
        self.tower.flyte("--project", PROJECT, "--domain", DOMAIN, verb, file, name, user=who, cwd=folder)


def opened(tower: Tower) -> Iterator[Lab]:
    """A lab over a running Tower."""
    with tower.http() as client:
        yield Lab(tower, client, (tower.home / "admin-key").read_text().strip())


@pytest.fixture(scope="session")
def plain(tower: Tower) -> Iterator[Lab]:
    """A Tower in which nothing is deployed."""
    yield from opened(tower)


@pytest.fixture(scope="session")
def secure(tower_tls: Tower) -> Iterator[Lab]:
    """The same over TLS."""
    yield from opened(tower_tls)


@pytest.fixture(scope="session")
def lab(plain: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The Tower with the attacker's task and both apps. Mallory deployed them and contributes."""
    return furnished(plain, tmp_path_factory.mktemp("lab"))


def furnished(plain: Lab, folder: Path) -> Lab:
    """A lab, once the attacker has deployed there."""
    for file in ("tasks.py", "apps.py"):
        shutil.copy(Path(__file__).parent / "lab" / file, folder)
    tower = plain.tower
    tower.tower("users", "add", "mallory", "--role", "contributor", "--project", PROJECT)
    tower.keys["mallory"] = tower.new_key("mallory-key", "mallory")
    plain.deploy("mallory", folder, "deploy", "tasks.py", "env")
    for name in ("probe", "other"):
        plain.deploy("mallory", folder, "serve", "apps.py", name)
    return plain

"""A house over a home of its own, and people, attempts and apps that call its administration door."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flyteidl2.core import security_pb2
from flyteidl2.task import task_definition_pb2
from tests.identity_world import World

from tower.identity.authenticators import MACHINE
from tower.identity.chain import Presented
from tower.identity.principal import Principal
from tower.identity.workload import Workload
from tower.main.house import House, compose
from tower.settings import Settings
from tower.store import audit

PLACE = {"project": "flytesnacks", "domain": "development"}
TASK = ("flytesnacks", "development", "t")
HOST = "127.0.0.1:8080"


class Den:
    """The house with a client in front of it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.keys: dict[str, str] = {}
        self.workload: Workload | None = None

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await house.rest({**scope, "state": {"workload": self.workload}}, receive, send)

        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{HOST}")

    async def person(self, name: str, role: str | None = None, project: str = "*", domain: str = "*") -> None:
        await self.house.identities.add_user(MACHINE, subject=name, role=role, project=project, domain=domain)
        self.keys[name] = await self.key(f"{name}-key", name)

    async def key(self, name: str, user: str, **more: Any) -> str:
        return (await self.house.api_keys.create(MACHINE, name=name, subject=user, **more)).key.text

    async def call(self, who: str | Workload, method: str, path: str, **more: Any) -> httpx.Response:
        """A request of a person, of somebody with a key, or over the socket of a workload."""
        headers = dict(more.pop("headers", {}))
        self.workload = None if isinstance(who, str) else who
        if isinstance(who, str):
            headers["authorization"] = f"Bearer {self.keys.get(who, who)}"
        return await self.http.request(method, f"/api/v1{path}", headers=headers, **more)

    async def keep(self, who: str, name: str, value: bytes, **place: Any) -> httpx.Response:
        body = {"name": name, "value": base64.b64encode(value).decode(), **place}
        return await self.call(who, "POST", "/secrets", json=body)

    async def who(self, name: str, *, key: str = "") -> Principal:
        sent = (key or self.keys[name]).encode()
        return await self.house.chain.authenticate(
            Presented(headers=((b"authorization", b"Bearer " + sent),), host=HOST, audience="rest")
        )

    async def deploy(self, who: str | Principal, *declared: str, version: str = "1") -> None:
        """Deploy the task `t` that declares these secrets."""
        principal = await self.who(who) if isinstance(who, str) else who
        await self.house.tasks.deploy(
            principal, TASK, version, spec=spec_of(*declared), request_id=f"deploy-{version}"
        )

    async def attempt(self, who: str | Principal, *, run: str = "r1") -> Workload:
        """A running attempt of the task `t`, version 1, of this person."""
        principal = await self.who(who) if isinstance(who, str) else who
        return await World.running(self.house, principal, run=run)  # type: ignore[arg-type]

    async def given(self, workload: Workload) -> dict[str, str]:
        """What an attempt is given: the values of its secrets by name."""
        answer = await self.call(workload, "POST", "/workload/secrets", json={})
        assert answer.status_code == 200, answer.text
        return {each["name"]: base64.b64decode(each["value"]).decode() for each in answer.json()["secrets"]}

    async def records(self, **filters: Any) -> list[Any]:
        return await self.house.db.read(lambda reader: audit.page(reader, **filters))


def spec_of(*declared: str) -> task_definition_pb2.TaskSpec:
    spec = task_definition_pb2.TaskSpec()
    template = spec.task_template
    template.container.image = "x"
    template.container.args.extend(["flyte-runtime", "task", "--module", "m", "--task", "t"])
    for name in declared:
        variable = name.replace("-", "_").upper()
        kind = security_pb2.Secret.MountType.ENV_VAR
        template.security_context.secrets.add(key=name, env_var=variable, mount_requirement=kind)
    return spec


@pytest.fixture
async def den(tmp_path: Path) -> AsyncIterator[Den]:
    """A house with an administrator `root`, contributors `alice` and `bob` of flytesnacks, and a viewer."""
    async with compose(Settings(home=tmp_path / "home")) as house:
        made = Den(house)
        await made.person("root", "admin")
        for name in ("alice", "bob"):
            await made.person(name, "contributor", "flytesnacks")
        await made.person("carol", "viewer", "flytesnacks")
        await made.person("dave")
        async with made.http:
            yield made

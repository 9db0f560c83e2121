"""Webhooks over the administration API and the command line: set, listed and deleted, and never shown."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.tower.gateway.house import House, built
from tests.tower_process import BIN, Tower, clean_environment

from tower.identity.authenticators import MACHINE
from tower.identity.principal import Kind

SECRET = "a secret that is long enough"
WANTED = {
    "project": "flytesnacks",
    "domain": "development",
    "app": "hooks",
    "path": "/github",
    "scheme": "github",
    "secret": SECRET,
    "user": "robot",
    "senders": {"7": "robot"},
}
PLACE = {name: WANTED[name] for name in ("project", "domain", "app", "path")}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with built(tmp_path) as found:
        await found.identities.add_user(MACHINE, subject="robot", kind=Kind.SERVICE)
        config = {"flyte.webhooks": [{"path": "/github", "scheme": "github"}]}
        await found.deploy("hooks", config=config)
        yield found


async def caller(house: House, name: str, role: str, **scope: Any) -> httpx.AsyncClient:
    await house.identities.add_user(MACHINE, subject=name, role=role, **scope)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(house.rooms.rest),
        base_url="http://tower/api/v1",
        headers={"authorization": f"Bearer {await house.key(name)}"},
    )


async def test_an_administrator_sets_lists_and_deletes(house: House) -> None:
    async with await caller(house, "root", "admin") as root:
        made = await root.put("/webhooks", json=WANTED)
        listed = await root.get("/webhooks")
        gone = await root.delete("/webhooks", params=PLACE)
        again = await root.delete("/webhooks", params=PLACE)
        after = await root.get("/webhooks")

    assert made.status_code == 200
    (only,) = listed.json()["webhooks"]
    assert {name: only[name] for name in ("path", "scheme", "user", "senders")} == {
        "path": "/github",
        "scheme": "github",
        "user": "robot",
        "senders": {"7": "robot"},
    }
    assert SECRET not in made.text + listed.text
    assert (gone.status_code, again.status_code) == (204, 404)
    assert after.json() == {"webhooks": []}


async def test_a_viewer_sets_nothing_and_sees_nothing(house: House) -> None:
    async with await caller(house, "root", "admin") as root:
        await root.put("/webhooks", json=WANTED)
    async with await caller(house, "eve", "viewer", project="flytesnacks") as eve:
        assert (await eve.put("/webhooks", json=WANTED)).status_code == 403
        assert (await eve.delete("/webhooks", params=PLACE)).status_code == 403
        assert (await eve.get("/webhooks")).json() == {"webhooks": []}


async def test_a_refusal_does_not_repeat_the_secret(house: House) -> None:
    async with await caller(house, "root", "admin") as root:
        for change in ({"path": "nonsense"}, {"scheme": "md5"}, {"user": "nobody"}, {"secret": ["x" * 40]}):
            answer = await root.put("/webhooks", json={**WANTED, **change})
            assert answer.status_code in {400, 404}
            assert SECRET not in answer.text
            assert "x" * 40 not in answer.text


def run(tower: Tower, *arguments: str, secret: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "tower", "webhooks", *arguments],
        env=clean_environment({"TOWER_HOME": str(tower.home)}),
        input=secret,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_command_line_reads_the_secret_from_standard_input(tower: Tower) -> None:
    place = ("flytesnacks/development/absent", "/github")
    absent = run(tower, "set", *place, "--scheme", "github", "--user", "alice", secret=SECRET + "\n")
    short = run(tower, "set", *place, "--scheme", "github", "--user", "alice", secret="short\n")
    nameless = run(tower, "set", "absent", "/github", "--scheme", "github", secret=SECRET)
    listed = run(tower, "list", "-o", "json")

    assert (absent.returncode, short.returncode, nameless.returncode) == (4, 2, 2)
    assert "secret" in short.stderr
    assert SECRET not in absent.stderr + absent.stdout
    assert listed.returncode == 0
    assert "absent" not in {each["app"] for each in json.loads(listed.stdout)}

"""One Tower with the tasks of the official SDK, for every test of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.official.test_official_sdk import official  # noqa: F401 - a fixture
from tests.tower_process import ROOT, Tower, clean_environment

HERE = Path(__file__).parent
WORD = "open-sesame-1742"
PEM = "-----open-sesame-as-a-file-----\nsecond line of it\n"
KEPT = ROOT / ".cache" / "official-images"


def script(python: Path, tower: Tower, name: str, given: object) -> Any:
    done = subprocess.run(
        [python, HERE / name, tower.url.removeprefix("https://")],
        input=json.dumps(given),
        env=clean_environment(
            {
                "SSL_CERT_FILE": str(tower.ca),
                "DO_NOT_TRACK": "1",
                "HOME": str(tower.home.parent),
                "PYTHONPATH": str(HERE),
                "PYTHONDONTWRITEBYTECODE": "1",
            }
        ),
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr[-4000:]}\n{tower.log[-4000:]}"
    # the SDK writes lines of its own, from other threads and also after the script's
    return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])


@pytest.fixture(scope="session")
def hosting(official: Path, tower_tls: Tower) -> Iterator[Tower]:  # noqa: F811
    """Tower with the tasks of `hosted.py`; the environment that it makes for them is kept."""
    images = tower_tls.home / "images"
    _copy_new(KEPT, images)
    _add_secret(tower_tls)
    key = tower_tls.new_key("official-deployer", "alice")
    _, client, secret = key.split("_", 2)
    told = script(official, tower_tls, "deploy.py", {"client_id": client, "secret": secret})
    assert "official.hello" in told["names"]
    _add_runner(tower_tls, "erin")
    yield tower_tls
    _copy_new(images, KEPT)


def _add_secret(tower: Tower) -> None:
    tower.keys["admin"] = (tower.home / "admin-key").read_text().strip()
    value = tower.home.parent / "word"
    place = ("--project", "flytesnacks", "--domain", "development")
    for name, text in (("official-secret", WORD), ("official-file", PEM)):
        value.write_text(text)
        tower.flyte("create", "secret", name, "--value-file", str(value), *place, user="admin")
    value.unlink()


def _add_runner(tower: Tower, name: str) -> None:
    """Somebody who runs what is deployed in development, registers nothing, and may look elsewhere."""
    role = {"name": "runner", "actions": ["task:view", "task:run", "run:view", "data:upload", "project:view"]}
    with tower.http("admin") as client:
        made = client.post("/api/v1/roles", json=role)
    assert made.status_code < 300, made.text
    place = ("--project", "flytesnacks", "--domain")
    tower.tower("users", "add", name, "--role", "runner", *place, "development")
    tower.tower("users", "grant", name, "--role", "viewer", *place, "staging")
    tower.keys[name] = tower.new_key(f"{name}-key", name)


def _copy_new(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for marker in source.glob("*/tower-image.json"):
        place = target / marker.parent.name
        if json.loads(marker.read_text()).get("sdk") and not place.exists():
            draft = target / f".draft-{uuid.uuid4().hex}"
            shutil.copytree(marker.parent, draft, symlinks=True, copy_function=_link)
            os.rename(draft, place)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)

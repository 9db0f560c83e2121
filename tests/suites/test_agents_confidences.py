"""Secrets and identity tokens reach a task by its socket, whether Tower serves that or an agent beside."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path

import pytest
from tests.files import contents
from tests.tower_process import Tower

TASK = """
import os
import flyte

leaf = flyte.Secret("leaf", mount=True, as_env_var="LEAF")
env = flyte.TaskEnvironment(name="told", secrets=["word", leaf])


@env.task
async def tell(audience: str) -> list[str]:
    token = await flyte.identity_token.aio(audience)
    print("the word is", os.environ["WORD"])
    with open(os.environ["LEAF"]) as file:
        # turned around: what holds a secret as it is would not be kept
        return [os.environ["WORD"][::-1], file.read()[::-1], token[::-1]]
"""


@pytest.mark.parametrize("mode", ["inside", "beside"])
def test_a_task_is_told_in_confidence(mode: str, tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(TASK)
    word, leaf = secrets.token_hex(16), secrets.token_hex(16)
    place = ("--project", "flytesnacks", "--domain", "development")
    with Tower.started(tmp_path / "home", "--agent", mode) as tower:
        tower.add_people()
        admin = (tower.home / "admin-key").read_text().strip()
        for name, value in (("word", word), ("leaf", leaf)):
            file = tmp_path / "value"
            file.write_text(value)
            tower.flyte("create", "secret", name, "--value-file", str(file), *place, user=admin)
            file.unlink()
        audience = ("--audience", "https://vault.example.com")
        run = tower.flyte("-o", "json", "run", "--wait", "told.py", "tell", *audience, cwd=tmp_path).json()
        assert isinstance(run, dict)
        told = [text[::-1] for text in run["outputs"]["o0"]]
        assert told[:2] == [word, leaf]
        claims = json.loads(base64.urlsafe_b64decode(told[2].split(".")[1] + "=="))
        assert (claims["sub"], claims["run"], claims["iss"]) == ("alice", run["name"], tower.url)
        log = tower.flyte("logs", run["name"]).out
        assert "the word is [secret]" in log
        kept = list(contents(tower.home))
        assert len(kept) > 20
        assert not [path for path, text in kept if word.encode() in text or leaf.encode() in text]
    left = contents(Path("/dev/shm"))  # whose-ever it is
    assert not [path for path, text in left if word.encode() in text or leaf.encode() in text]

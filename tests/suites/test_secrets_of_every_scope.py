"""Secrets of each of the four scopes, as a variable and as a file, on a whole Tower, and never back."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from tests.files import contents
from tests.threats.conftest import DOMAIN, PROJECT, opened
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("inside-a-task")

SCOPES: dict[str, tuple[str, ...]] = {
    "org": (),
    "project": ("--project", PROJECT),
    "domain": ("--project", PROJECT, "--domain", DOMAIN),
    "personal": ("--personal",),
}
TASK = """
import os
from pathlib import Path

import flyte

SCOPES = ("org", "project", "domain", "personal")
given = [f"var-{scope}" for scope in SCOPES]
given += [flyte.Secret(f"file-{scope}", mount=True) for scope in SCOPES]
given += ["shared"]
env = flyte.TaskEnvironment(name="scopes", secrets=given)


@env.task
def tell() -> list[str]:
    folder = Path(os.environ["FLYTE_SECRETS_DIR"])
    told = [os.environ[f"VAR_{scope.upper()}"] for scope in SCOPES]
    told += [(folder / f"file-{scope}").read_text() for scope in SCOPES]
    return [each[::-1] for each in [*told, os.environ["SHARED"]]]
"""


def test_each_scope_both_ways_for_who_may_use_it(tmp_path: Path) -> None:
    (tmp_path / "scopes.py").write_text(TASK)
    with Tower.started(tmp_path / "home") as tower:
        tower.add_people()
        for lab in opened(tower):
            values: dict[str, dict[str, str]] = {"alice": {}, "bob": {}}

            def keep(name: str, scope: str, who: str) -> str:
                value = f"{scope}-{secrets.token_hex(16)}"
                (tmp_path / "value").write_text(value)
                words = ("create", "secret", name, "--value-file", str(tmp_path / "value"), *SCOPES[scope])
                tower.flyte(*words, user=who)
                (tmp_path / "value").unlink()
                return value

            for scope in SCOPES:
                for way in ("var", "file"):
                    name = f"{way}-{scope}"
                    if scope == "personal":
                        for who, own in values.items():
                            own[name] = keep(name, scope, who)
                    else:
                        value = keep(name, scope, lab.admin_key)
                        for own in values.values():
                            own[name] = value
            shared = {scope: keep("shared", scope, lab.admin_key) for scope in ("org", "project", "domain")}
            values["bob"]["shared"] = keep("shared", "personal", "bob")
            values["alice"]["shared"] = shared["domain"]  # the nearest that is hers to use

            admit(lab)
            place = ("--project", PROJECT, "--domain", DOMAIN, "-o", "json")
            for who, expected in values.items():
                run: Any = tower.flyte(
                    *place, "run", "--wait", "scopes.py", "tell", user=who, cwd=tmp_path, check=False
                ).json()
                assert run["phase"] == "SUCCEEDED", run
                told = [each[::-1] for each in run["outputs"]["o0"]]
                names = [f"{way}-{scope}" for way in ("var", "file") for scope in SCOPES] + ["shared"]
                assert dict(zip(names, told, strict=True)) == expected

            every = {*values["alice"].values(), *values["bob"].values(), *shared.values()}
            for who in ("admin", "alice", "bob"):
                user = lab.admin_key if who == "admin" else who
                listed = tower.flyte(*place[4:], "get", "secret", user=user).out
                one = lab.rest(who, "GET", "/secrets/var-org").text
                assert "var-org" in listed or who != "admin"
                assert not any(value in listed + one for value in every)
            kept = list(contents(tmp_path / "home"))
            assert not [path for path, data in kept if any(value.encode() in data for value in every)]
            records = lab.audit(event="secret.read", limit="100")
            assert {each["subject"] for each in records} == {"alice", "bob"}
            assert len(records) == 2 * 9
            assert not any(value in json.dumps(records) for value in every)


def admit(lab: Any) -> None:
    """Let the two use secrets that reach further than their project's domain."""
    role = {"name": "secret-user", "actions": ["secret:use"]}
    assert lab.rest("admin", "POST", "/roles", role).status_code == 201
    for who in ("alice", "bob"):
        given = lab.rest("admin", "POST", "/bindings", {"user": who, "role": "secret-user"})
        assert given.status_code == 201, given.text

"""T1: what code of others tries in an administrator's name is refused, and both names are on record."""

from __future__ import annotations

import json

import pytest
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab
from tests.threats.test_hosted_code import SOCKET

pytestmark = pytest.mark.xdist_group("threats")

TRIES = {
    "key:manage": ("POST", "/keys", {"name": "trojan", "user": "alice"}),
    "user:manage": ("POST", "/users/alice/disable", {}),
    "policy:manage": (
        "POST",
        "/policies",
        {"name": "trojan", "text": "permit (principal, action, resource);"},
    ),
    "role": ("POST", "/roles", {"name": "trojan", "actions": ["task:run"]}),
    "binding": ("POST", "/bindings", {"user": "mallory", "role": "admin"}),
    "group": ("POST", "/groups", {"name": "trojan"}),
    "ceiling": ("DELETE", f"/ceilings/{PROJECT}/{DOMAIN}/probe", None),
    "secret:create": ("POST", "/secrets", {"name": "trojan", "value": "eA=="}),
    "password": ("PUT", "/users/admin/password", {"password": "a password of the attacker's"}),
    "link": ("POST", "/links", {"user": "admin"}),
    "signing key": ("POST", "/signing-keys/rotate", {}),
    "trail": ("POST", "/audit/prune", {"before": 4_000_000_000}),
    "grant": ("GET", "/grants", None),
}


def test_t01_whatever_it_tries_is_refused_and_names_both(lab: Lab) -> None:
    """Keys, accounts, policies, roles, secrets, ways to sign in, the trail: by Mallory's task, as admin."""
    started = lab.start(
        "admin",
        SOCKET
        + f"""
import json
TRIES = {TRIES!r}
def main():
    said = {{}}
    for name, (method, path, body) in TRIES.items():
        content = b"" if body is None else json.dumps(body).encode()
        said[name] = ask(agent, "/api/v1" + path, method, content, JSON)[:3]
    return said
""",
    )
    name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
    lab.wait("admin", name)
    said = json.loads(lab.output("admin", name))
    assert said == dict.fromkeys(TRIES, "403")
    run = f"{PROJECT}/{DOMAIN}/{name}"
    refused = lab.audit(event="access.refuse", run=run)
    assert {each["subject"] for each in refused} == {"admin"}
    assert {"key:manage", "user:manage", "policy:manage", "secret:create"} <= {
        each["action"] for each in refused
    }
    (created,) = lab.audit(event="run.create", run=run)
    assert (created["subject"], created["detail"]["author"]) == ("admin", "mallory")
    assert created["detail"]["warning"]
    for path in ("/policies", "/roles", "/groups", "/secrets", "/keys"):
        assert "trojan" not in lab.rest("admin", "GET", path).text
    assert lab.rest("alice", "GET", "/whoami").status_code == 200

"""Roles, groups, policies, questions and the audit chain over both command lines and a real server."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("governance")

TASK = "task:flytesnacks/production/etl.load"


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tower]:
    with Tower.started(tmp_path_factory.mktemp("governance") / "home") as started:
        started.add_people()
        started.keys["admin"] = (started.home / "admin-key").read_text().strip()
        yield started


def can(tower: Tower, user: str, action: str, resource: str) -> bool:
    asked = tower.flyte("auth", "can-i", action, resource, user=user, check=False)
    assert (asked.status, asked.out.strip()) in {(0, "yes"), (4, "no")}, asked
    return asked.status == 0


def test_a_role_a_group_and_a_policy_from_the_command_line(tower: Tower, tmp_path: Path) -> None:
    flyte = lambda *arguments, **more: tower.flyte(*arguments, user="admin", **more)  # noqa: E731
    flyte("create", "role", "runner", "--action", "task:run", "--action", "task:view")
    flyte("create", "group", "nightshift", "--member", "dave")
    assert not can(tower, "dave", "task:run", TASK)
    flyte(
        "create",
        "binding",
        "--group",
        "nightshift",
        "--role",
        "runner",
        "--project",
        "flytesnacks",
        "--domain",
        "production",
        "--task",
        "etl.load",
    )
    assert can(tower, "dave", "task:run", TASK)
    assert not can(tower, "dave", "task:run", "task:flytesnacks/production/etl.drop")
    assert not can(tower, "dave", "task:register", TASK)
    why = tower.flyte("auth", "why", "task:run", TASK, user="dave").out
    assert (
        "role runner in flytesnacks/production for task etl.load through group nightshift: allows it" in why
    )
    text = tmp_path / "freeze.cedar"
    text.write_text(
        'forbid (principal, action == Action::"task:run", resource is Task)\n'
        'unless { principal in Group::"oncall" };\n'
    )
    freeze = ("create", "policy", "freeze", "--text-file", str(text))
    freeze += ("--project", "flytesnacks", "--domain", "production")
    assert "Nothing was changed" in flyte(*freeze, "--dry-run").err
    assert can(tower, "dave", "task:run", TASK)
    assert flyte(*freeze).err == ""
    assert not can(tower, "dave", "task:run", TASK)
    answer = tower.flyte("auth", "why", "task:run", TASK, "--as", "dave", "-o", "json", user="admin").json()
    assert isinstance(answer, dict)
    assert answer["policies"] == ["policy:freeze"]
    flyte("create", "group", "oncall")
    flyte("update", "group", "oncall", "--add", "dave")
    assert can(tower, "dave", "task:run", TASK)
    text.write_text("permit (principal, action, resource)\nwhen { resource.colour == 1 };\n")
    wrong = flyte("update", "policy", "freeze", "--text-file", str(text), check=False)
    assert wrong.status != 0
    assert "policy freeze, line 2" in wrong.err
    assert "colour" in wrong.err
    assert not can(tower, "alice", "task:run", TASK), "the old one is still in force"
    listed = flyte("get", "policy", "-o", "json").json()
    assert isinstance(listed, list)
    assert [each["name"] for each in listed] == ["freeze"]
    flyte("delete", "policy", "freeze")
    assert can(tower, "alice", "task:run", TASK)
    busy = flyte("delete", "role", "runner", check=False)
    assert busy.status != 0
    flyte(
        "delete",
        "binding",
        "--group",
        "nightshift",
        "--role",
        "runner",
        "--project",
        "flytesnacks",
        "--domain",
        "production",
        "--task",
        "etl.load",
    )
    flyte("delete", "role", "runner")
    flyte("delete", "group", "nightshift")
    assert not can(tower, "dave", "task:run", TASK)


def test_users_and_services_come_change_and_go(tower: Tower, tmp_path: Path) -> None:
    flyte = lambda *arguments, **more: tower.flyte(*arguments, user="admin", **more)  # noqa: E731
    file = tmp_path / "eve.yaml"
    file.write_text("name: eve\nemail: eve@example.org\nrole: viewer\n")
    made = flyte("create", "user", "-f", str(file), "--project", "flytesnacks", "-o", "json").json()
    assert isinstance(made, dict)
    assert made["email"] == "eve@example.org"
    flyte("update", "user", "eve", "--display-name", "Eve E.", "--disable")
    shown = flyte("get", "user", "eve", "-o", "json").json()
    assert isinstance(shown, dict)
    assert (shown["display_name"], shown["disabled"]) == ("Eve E.", True)
    flyte("create", "service", "robot")
    assert "robot" in flyte("get", "service").out
    assert "robot" not in flyte("get", "user").out
    flyte("create", "binding", "--user", "alice", "--role", "act-as", "--service", "robot")
    assert can(tower, "alice", "service:act-as", "user:robot")
    assert not can(tower, "admin", "service:act-as", "user:robot")
    flyte("delete", "user", "eve")
    again = flyte("create", "user", "eve", check=False)
    assert again.status != 0
    nobody = tower.flyte("create", "user", "mallory", user="alice", check=False)
    assert nobody.status == 4


def test_a_role_is_given_in_place_of_another(tower: Tower) -> None:
    def held() -> list[tuple[str, str]]:
        rows = tower.flyte("get", "binding", "--user", "rolf", "-o", "json", user="admin").json()
        assert isinstance(rows, list)
        return sorted((each["role"], each["project"]) for each in rows)

    def change(role: str, former: str, *more: str) -> int:
        words = ("update", "binding", "--user", "rolf", "--role", role, "--in-place-of", former, *more)
        return tower.flyte(*words, user="admin", check=False).status

    tower.flyte("create", "user", "rolf", "--role", "viewer", "--project", "flytesnacks", user="admin")
    assert change("contributor", "viewer", "--project", "flytesnacks") == 0
    assert held() == [("contributor", "flytesnacks")]
    # elsewhere, or not theirs, or no role: nothing is given and nothing is taken
    assert change("viewer", "contributor") == 5
    assert change("viewer", "admin", "--project", "flytesnacks") == 5
    assert change("emperor", "contributor", "--project", "flytesnacks") == 2
    assert change("contributor", "contributor", "--project", "flytesnacks") == 2
    assert held() == [("contributor", "flytesnacks")]
    # for an app is not for the task of the same name
    there = ("--project", "flytesnacks", "--domain", "development")
    given = ("--user", "rolf", "--role", "viewer", "--app", "shared", *there)
    tower.flyte("create", "binding", *given, user="admin")
    assert change("contributor", "viewer", "--task", "shared", *there) == 5
    assert held() == [("contributor", "flytesnacks"), ("viewer", "flytesnacks")]


def test_the_audit_is_filtered_exported_and_proved(tower: Tower, tmp_path: Path) -> None:
    tower.flyte("create", "role", "sly", "--action", "task:run", user="carol", check=False)
    listed = tower.flyte(
        "get",
        "audit",
        "--user",
        "carol",
        "--outcome",
        "refused",
        "--action",
        "policy:manage",
        "-o",
        "json",
        user="admin",
    ).json()
    assert isinstance(listed, list)
    assert listed
    assert {(each["subject"], each["outcome"], each["action"]) for each in listed} == {
        ("carol", "refused", "policy:manage")
    }
    assert tower.flyte("get", "audit", user="carol", check=False).status == 4
    whole = tower.tower("audit", "verify", "-o", "json").json()
    assert isinstance(whole, dict)
    assert whole["whole"] is True
    for name in ("sdk", "machine"):
        file = tmp_path / f"{name}.jsonl"
        if name == "sdk":
            tower.flyte("get", "audit", "--export", str(file), user="admin")
        else:
            tower.tower("audit", "export", "--to", str(file))
        assert tower.tower("audit", "verify", "--file", str(file)).status == 0
        assert file.stat().st_mode & 0o777 == 0o600
        for place, word in ((file, "already"), (tmp_path / "nowhere" / "x", "cannot be written")):
            before = file.read_bytes()
            if name == "sdk":
                again = tower.flyte("get", "audit", "--export", str(place), user="admin", check=False)
            else:
                again = tower.tower("audit", "export", "--to", str(place), check=False)
            assert (again.status, word in again.err) == (2, True), again.err
            assert file.read_bytes() == before
        lines = file.read_text().splitlines()
        edited = [line.replace('"subject":"admin"', '"subject":"alice"', 1) for line in lines]
        damaged = tmp_path / f"{name}-edited.jsonl"
        damaged.write_text("\n".join(edited) + "\n")
        found = tower.tower("audit", "verify", "--file", str(damaged), check=False)
        assert (found.status, "is broken at record" in found.err) == (6, True)
        damaged.write_text("\n".join(lines[:-1]) + "\n")
        assert tower.tower("audit", "verify", "--file", str(damaged), check=False).status == 6
    with tower.http("admin") as http:
        streamed = http.get("/api/v1/audit/export")
    assert streamed.headers["content-type"].startswith("application/x-ndjson")
    kinds = [json.loads(line)["type"] for line in streamed.text.splitlines()]
    assert (kinds[0], kinds[-1]) == ("export", "end")
    assert "checkpoint" in kinds


def test_policy_cases_are_tried_before_they_hold(tower: Tower, tmp_path: Path) -> None:
    policy = tmp_path / "weekend.cedar"
    policy.write_text('forbid (principal, action == Action::"app:deploy", resource);')
    cases = tmp_path / "cases.json"
    case = {
        "name": "contributors deploy",
        "bindings": [["contributor", "*", "*"]],
        "action": "app:deploy",
        "resource": "app:flytesnacks/development/hook",
        "allowed": True,
    }
    cases.write_text(json.dumps([case]))
    assert tower.tower("policy", "test", str(cases)).status == 0
    differs = tower.tower("policy", "test", str(cases), "--policy", str(policy), check=False)
    assert differs.status == 6
    assert "refused by policy:weekend" in differs.out


def test_a_process_killed_between_two_steps_leaves_no_change_without_its_record(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Tower.started(home) as tower:
        key = (home / "admin-key").read_text().strip()
        tower.keys["admin"] = key
        import concurrent.futures

        with tower.http("admin") as http, concurrent.futures.ThreadPoolExecutor(8) as pool:
            futures = [
                pool.submit(lambda number=number: http.post("/api/v1/users", json={"name": f"u{number}"}))
                for number in range(400)
            ]
            answered = next(concurrent.futures.as_completed(futures)).result()
            assert answered.status_code == 201
            os.kill(tower.process.pid, signal.SIGKILL)
            done = [future.result().status_code for future in futures if future.exception() is None]
    with sqlite3.connect(home / "tower.db") as database:
        users = {row[0] for row in database.execute("SELECT subject FROM users")}
        recorded = {
            json.loads(row[0])["user"]
            for row in database.execute("SELECT detail FROM audit WHERE event = 'user.create'")
        }
    database.close()
    assert users == recorded
    assert len(users) >= done.count(201)
    with Tower.started(home) as tower:
        assert tower.tower("audit", "verify").status == 0

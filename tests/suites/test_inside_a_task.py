"""What a task has and can do as its executor, on a whole Tower: X12, X13, X16, E10."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from tests.suites.rooms import House, Room, deploy
from tests.threats.conftest import DOMAIN, PROJECT, opened
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("inside-a-task")

PLACE = ("--project", PROJECT, "--domain", DOMAIN, "-o", "json")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tower]:
    """With `rita`, who may run tasks and look at runs, and nothing else."""
    folder = tmp_path_factory.mktemp("inside")
    with Tower.started(folder / "home") as running:
        running.add_people()
        running.tower("users", "add", "rita")
        running.keys["rita"] = running.new_key("rita-key", "rita")
        for lab in opened(running):
            deploy(lab, folder)
            role = {
                "name": "runner",
                "actions": ["task:run", "task:view", "run:view", "project:view", "data:upload"],
            }
            given = {"user": "rita", "role": "runner", "project": PROJECT, "domain": DOMAIN}
            assert lab.rest("admin", "POST", "/roles", role).status_code == 201
            assert lab.rest("admin", "POST", "/bindings", given).status_code == 201
        yield running


@pytest.fixture
def house(tower: Tower) -> Iterator[House]:
    for lab in opened(tower):
        with House.opened(lab, "inside") as made:
            yield made


def shown(house: House, run: str) -> dict[str, Any]:
    printed = house.tower.flyte(*PLACE, "get", "run", run, user=house.lab.admin_key).json()
    assert isinstance(printed, dict)
    return printed


FACTS = """
    import dataclasses
    facts = flyte.ctx()
    answer = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)
              if field.name not in ("submitter", "executor")}
    answer["subject"], answer["name"] = facts.executor.subject, facts.executor.name
    answer["refused"] = []
    for thing, name in ((facts, "run"), (facts, "version"), (facts.executor, "subject"), (facts, "more")):
        try:
            setattr(thing, name, "mine")
        except Exception:
            answer["refused"].append(name)
"""


def test_x12_the_facts_are_those_of_the_run_and_cannot_be_changed(house: House) -> None:
    named = house.lab.rest("admin", "PATCH", "/users/alice", {"display_name": "Alice Liddell"})
    assert named.status_code == 200, named.text
    room = house.room("alice")
    facts = room.do(FACTS)
    run = shown(house, room.run)
    place = {"project": PROJECT, "domain": DOMAIN, "task_project": PROJECT, "task_domain": DOMAIN}
    assert {name: facts[name] for name in place} == place
    assert (facts["run"], facts["action"], facts["attempt"]) == (room.run, "a0", 1)
    assert (facts["task"], facts["version"]) == ("room.stay", run["version"])
    assert (facts["subject"], facts["name"], facts["via_app"]) == ("alice", "Alice Liddell", "")
    (record,) = house.lab.audit(event="run.create", run=f"{PROJECT}/{DOMAIN}/{room.run}")
    assert facts["code_digest"] == record["detail"]["code_digest"]
    details = house.tower.flyte(*PLACE, "get", "task", "room.stay").json()
    assert isinstance(details, dict)
    assert facts["image"].startswith("tower/")
    assert facts["refused"] == ["run", "version", "subject", "more"]
    room.fail()
    again = house.next().do(FACTS)
    assert (again["run"], again["attempt"], again["version"]) == (room.run, 2, facts["version"])
    house.abort("alice", room.run)


MAKE = '''
import importlib.util, pathlib, tempfile
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "MADE.py").write_text("""
import flyte
env = flyte.TaskEnvironment(name="MADE", image=flyte.Image.from_debian_base().with_pip_packages("iniconfig"))

@env.task
def packed(x: int) -> str:
    import iniconfig
    return f"{iniconfig.__name__} {x} for {flyte.ctx().executor.subject}"
""")
def attempt(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
spec = importlib.util.spec_from_file_location("MADE", folder / "MADE.py")
made = importlib.util.module_from_spec(spec)
import sys
sys.modules["MADE"] = made
spec.loader.exec_module(made)
here = remote.default()
def run():
    started = flyte.run(remote.Task.get(name="MADE.packed"), x=4)
    started.wait()
    return [started.name, started.outputs()[0]]
answer = {
    "who": attempt(lambda: here.user().subject()),
    "itself": attempt(lambda: here.fetchExecution(os.environ["RUN_NAME"]).closure.phase),
    "the same": attempt(lambda: here.fetch_execution(os.environ["RUN_NAME"]).closure.phase),
    "task": attempt(lambda: here.fetch_task("room.leaf").name),
    "project": attempt(lambda: here.create_project("MADE").name),
    "code": attempt(lambda: [each.name for each in flyte.deploy(made.env, root_dir=folder).tasks]),
    "image": attempt(run),
}
'''


@pytest.mark.parametrize("who", ["admin", "alice", "rita"])
def test_x13_x16_a_task_makes_what_its_executor_may_make(house: House, who: str) -> None:
    """Projects, code and images by `remote.default()` and the SDK: recorded as the executor's."""
    name = f"made{secrets.token_hex(4)}"
    room = house.room(who)
    told = room.do(MAKE.replace("MADE", name))
    assert (told["who"], told["itself"], told["the same"]) == (who, "RUNNING", "RUNNING")
    assert told["task"] == "room.leaf"
    run = f"{PROJECT}/{DOMAIN}/{room.run}"
    if who == "rita":
        assert "task:register" in told["code"]
        assert told["image"].startswith("RemoteTaskNotFoundError")
    else:
        assert told["code"] == [f"{name}.packed"]
        below, said = told["image"]
        assert said == f"iniconfig 4 for {who}"
        assert (shown(house, below)["executed_by"], shown(house, below)["parent"]) == (who, run)
        (deployed,) = house.lab.audit(event="task.deploy", resource=f"task:{PROJECT}/{DOMAIN}/{name}.packed")
        assert (deployed["subject"], deployed["run"]) == (who, run)
    if who == "admin":
        assert told["project"] == name
        (made,) = house.lab.audit(event="project.create", run=run)
        assert (made["subject"], made["detail"]["project"]) == (who, name)
    else:
        assert "project:manage" in told["project"]
        refused = house.lab.audit(event="access.refuse", subject=who)
        assert ("project:manage", run) in {(each["action"], each["run"]) for each in refused}
    room.end()


def test_a_key_with_a_ceiling_narrows_the_run_and_everything_below(house: House) -> None:
    """An administrator's key for running tasks: neither the run nor its descendants do more for them."""
    words = [f"--action={each}" for each in ("task:run", "task:view", "run:view", "data:upload")]
    key = house.tower.new_key(f"narrow-{secrets.token_hex(3)}", "admin", *words)
    house.ask(key)
    room = house.next()
    room.do(f'answer = flyte.run(remote.Task.get(name="room.stay"), port={house.port}, word="below").name')
    below = house.next()
    for each in (room, below):
        told = each.do(MAKE.replace("MADE", f"made{secrets.token_hex(4)}"))
        assert told["who"] == "admin"
        assert "project:manage" in told["project"]
        assert "task:register" in told["code"]
        each.end()


def test_an_outsider_verifies_whom_a_task_acts_for(house: House) -> None:
    """Who has nothing but the issuer's name finds the keys there, and the chain in the token."""
    room = house.room("alice")
    room.do(f'answer = flyte.run(remote.Task.get(name="room.stay"), port={house.port}, word="below").name')
    below = house.next()
    audience = "https://vault.example.com"
    token = below.do(f"answer = flyte.identity_token({audience!r})")
    claims = verified(house, token, audience)
    assert (claims["sub"], claims["run"], claims["action"]) == ("alice", below.run, "a0")
    assert claims["task"] == f"{PROJECT}/{DOMAIN}/room.stay"
    (record,) = house.lab.audit(event="run.create", run=f"{PROJECT}/{DOMAIN}/{below.run}")
    assert claims["code_digest"] == record["detail"]["code_digest"]
    mine, parents = (f"run:{PROJECT}/{DOMAIN}/{each.run}/a0/1" for each in (below, room))
    assert claims["act"] == {"sub": mine, "act": {"sub": parents}}
    assert claims["exp"] - claims["iat"] <= 600
    for door in ("/api/v1/whoami", "/flyteidl2.auth.IdentityService/UserInfo"):
        answer = house.lab.client.post(door, headers={"authorization": f"Bearer {token}"}, json={})
        assert answer.status_code in (401, 405)
    for each in (below, room):
        each.end()


def verified(house: House, token: str, audience: str) -> dict[str, Any]:
    """The claims, once the signature holds under the keys that the issuer publishes."""
    with httpx.Client(trust_env=False) as outsider:
        found = outsider.get(f"{house.tower.url}/.well-known/openid-configuration").json()
        keys = KeySet.import_key_set(outsider.get(found["jwks_uri"]).json())
    decoded = jwt.decode(token, keys, algorithms=found["id_token_signing_alg_values_supported"])
    claims = dict(decoded.claims)
    assert (claims["iss"], claims["aud"]) == (found["issuer"], audience)
    assert found["issuer"] == house.tower.url
    return claims


BELOW = """
    import threading
    def ask():
        try:
            stay(PORT, "below")
        except BaseException:
            pass
    threading.Thread(target=ask, daemon=True).start()
"""


def orphaned(house: House, room: Room) -> list[str]:
    """The phases of what the run asked for."""
    asked = {"runId": {"project": PROJECT, "domain": DOMAIN, "name": room.run}}
    answer = house.lab.client.post(
        "/flyteidl2.workflow.RunService/ListActions", json=asked, headers=house.lab.bearer("alice")
    )
    return [each["status"]["phase"] for each in answer.json()["actions"] if each["metadata"].get("parent")]


@pytest.mark.parametrize("end", ["return", "raise", "exit", "crash"])
def test_e10_what_a_task_asked_for_ends_with_it(house: House, end: str) -> None:
    """However it ends: a sub-task that still runs is stopped, and aborted on record."""
    room = house.room("alice")
    if end != "return":
        room.fail()
        room = house.next()  # the last attempt
    room.do(BELOW.replace("PORT", str(house.port)))
    below = house.next()
    assert (below.run, below.who()) == (room.run, "alice")
    match end:
        case "return":
            room.end()
        case "raise":
            room.fail()
        case "exit":
            room.leave("os._exit(3)")
        case _:
            room.leave("__import__('ctypes').string_at(0)")
    below.gone()
    house.lab.wait("alice", room.run)
    assert set(orphaned(house, room)) == {"ACTION_PHASE_ABORTED"}


def test_flyte_run_takes_the_code_of_the_moment(tower: Tower, tmp_path: Path) -> None:
    """Without a deployment before it, and again after a change; printed as `flyte get run` prints it."""
    code = "from flytekit import task\n\n\n@task\ndef say(word: str) -> str:\n    return 'A ' + word\n"
    said = []
    for text in (code, code.replace("'A '", "'B '"), code):
        (tmp_path / "moment.py").write_text(text)
        begun = tower.flyte(*PLACE, "run", "moment.py", "say", "--word", "now", cwd=tmp_path).json()
        ended = tower.flyte(
            *PLACE, "run", "--follow", "moment.py", "say", "--word", "then", cwd=tmp_path
        ).json()
        assert isinstance(begun, dict)
        assert isinstance(ended, dict)
        assert ended == tower.flyte(*PLACE, "get", "run", ended["name"]).json()
        assert begun.keys() == ended.keys()
        assert (begun["task"], begun["executed_by"]) == ("moment.say", "alice")
        assert begun["version"] == ended["version"]
        said.append((ended["version"], ended["outputs"]["o0"]))
    assert [word for _, word in said] == ["A then", "B then", "A then"]
    assert said[0] == said[2] != said[1]

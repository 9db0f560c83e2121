"""Code that somebody else wrote, inside tasks and apps: T1, T2, T9, T10, T16, T17, T34, T38, T39, T50."""

from __future__ import annotations

import json
import socket as sockets
from pathlib import Path

import pytest
from flyteidl2.common import run_pb2 as relations
from flyteidl2.task import run_pb2, task_definition_pb2
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab

pytestmark = pytest.mark.xdist_group("threats")

SOCKET = '''
import os, socket
def ask(path, target, method="GET", body=b"", *headers):
    """A request over a unix socket, by no SDK; the status line and the body."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        lines = [f"{method} {target} HTTP/1.1", "host: x", "x-flyte-agent: 1", "connection: close",
                 f"content-length: {len(body)}", *headers, "", ""]
        link.sendall("\\r\\n".join(lines).encode() + body)
        answer = b""
        while chunk := link.recv(65536):
            answer += chunk
    body = answer.rpartition(b"\\r\\n\\r\\n")[2].decode(errors="replace")
    return answer.split(b" ")[1].decode() + " " + body
agent = os.environ["FLYTE_AGENT_SOCKET"]
JSON = "content-type: application/json"
'''


def test_t01_a_trojan_has_no_power_over_identities(lab: Lab) -> None:
    """Mallory wrote the task, an administrator runs it: it makes no key, no user, no role and no bait."""
    tried = lab.inside_task(
        "admin",
        SOCKET
        + """
def main():
    home = os.path.dirname(os.path.dirname(os.path.dirname(agent)))
    tries = {
        "who": ask(agent, "/api/v1/whoami"),
        "key": ask(agent, "/api/v1/keys", "POST", b'{"name": "trojan-1"}', JSON),
        "user": ask(agent, "/api/v1/users", "POST", b'{"name": "trojan-2", "role": "admin"}', JSON),
        "role": ask(agent, "/api/v1/bindings", "POST", b'{"user": "mallory", "role": "admin"}', JSON),
        "link": ask(agent, "/api/v1/links", "POST", b'{"user": "alice"}', JSON),
    }
    try:
        tries["operator"] = ask(home + "/admin.sock", "/api/v1/users")
    except OSError:
        tries["operator"] = "403"
    return tries
""",
    )
    assert tried.pop("who").startswith("200")
    assert {name: answer[:3] for name, answer in tried.items()} == dict.fromkeys(tried, "403")
    names = lab.rest("admin", "GET", "/users").text
    assert "trojan" not in names
    refused = lab.audit(event="access.refuse", subject="admin")
    assert [each for each in refused if each["action"] == "user:manage" and each["run"]]


def test_t02_a_version_is_what_was_deployed(lab: Lab, tmp_path: Path) -> None:
    """A pinned version keeps its code whoever deploys the next one; the record says which code, and whose."""
    text = (Path(__file__).parent / "lab" / "tasks.py").read_text().replace('name="lab"', 'name="moving"')
    (tmp_path / "tasks.py").write_text(text)
    lab.deploy("alice", tmp_path, "deploy", "tasks.py", "env")
    before = lab.audit(event="task.deploy")[0]
    (tmp_path / "tasks.py").write_text(
        text.replace("result = names", "return '\"swapped\"'\n    result = names")
    )
    lab.deploy("bob", tmp_path, "deploy", "tasks.py", "env")
    after = lab.audit(event="task.deploy")[0]
    assert (before["subject"], after["subject"]) == ("alice", "bob")
    assert before["detail"]["code_digest"] != after["detail"]["code_digest"]
    task = runs.CreateRunRequest().task_id
    task.name = "moving.attack"
    assert lab.inside_task("alice", "def main(): return 'mine'", task_id=task) == "swapped"
    assert lab.audit(event="run.create")[0]["detail"]["code_digest"] == after["detail"]["code_digest"]
    task.version = before["detail"]["version"]
    assert lab.inside_task("alice", "def main(): return 'mine'", task_id=task) == "mine"
    assert lab.audit(event="run.create")[0]["detail"]["code_digest"] == before["detail"]["code_digest"]


RESERVED = (
    "_U_EP_OVERRIDE",
    "FLYTE_ADMIN_ENDPOINT",
    "FLYTE_AGENT_SOCKET",
    "RUN_NAME",
    "LD_PRELOAD",
    "PYTHONPATH",
)


def test_t09_the_environment_leads_nowhere_else(lab: Lab) -> None:
    """Neither run nor task may set what Tower sets; what they may set does not move the SDK."""
    for name in (*RESERVED, "HTTPS_PROXY", "http_proxy", "ALL_PROXY"):
        spec = run_pb2.RunSpec()
        spec.envs.values.add(key=name, value="http://127.0.0.1:1")
        assert lab.start("mallory", "def main(): pass", run_spec=spec).status_code == 400, name
    spec = run_pb2.RunSpec()
    spec.envs.values.add(key="FLYTE_ENDPOINT", value="http://127.0.0.1:1")
    told = lab.inside_task(
        "mallory",
        """
        import os, socket
        for name in ("HTTPS_PROXY", "http_proxy", "ALL_PROXY"):
            os.environ[name] = "http://127.0.0.1:1"
        import flyte, flyte.remote as remote
        async def ask():
            try:
                return (await remote.User.get.aio()).subject()
            except Exception as error:
                return type(error).__name__
        async def main():
            with socket.create_server(("127.0.0.1", 0)) as evil:
                evil.setblocking(False)
                url = f"http://127.0.0.1:{evil.getsockname()[1]}"
                found = [await ask()]
                flyte.init(endpoint=url)
                found.append(await ask())
                os.environ["_U_EP_OVERRIDE"] = url  # now the evil one seems to be the platform's own
                flyte.init(endpoint=url)
                found.append(await ask())
                try:
                    evil.accept()
                    return [*found, "reached"]
                except BlockingIOError:
                    return [*found, "silence"]
        """,
        run_spec=spec,
    )
    assert told == ["mallory", "UnauthenticatedError", "mallory", "silence"]


def test_t10_nobody_is_named_by_what_a_client_says(lab: Lab) -> None:
    spec = run_pb2.RunSpec()
    for name in ("tower/via-app", "tower/credential-id", "owner", "executed_by", "user"):
        spec.labels.values[name] = "admin"
    started = lab.start("bob", "def main(): pass", run_spec=spec)
    run = runs.CreateRunResponse.FromString(started.content).run
    details = lab.wait("bob", run.action.id.run.name)
    assert details.action.metadata.executed_by.user.id.subject == "bob"
    labels = details.run_spec.labels.values
    assert "tower/via-app" not in labels
    assert labels["tower/credential-id"] == lab.tower.keys["bob"].split("_")[1]
    recorded = [
        each for each in lab.audit(event="run.create") if each["run"].endswith(run.action.id.run.name)
    ]
    assert {each["subject"] for each in recorded} == {"bob"}


def test_t16_an_app_is_not_its_caller(lab: Lab) -> None:
    """What an administrator's request gives to an app is no power over identities, and the app is named."""
    tried = lab.inside_app(
        "admin",
        SOCKET
        + """
def main():
    token = "authorization: " + request.headers["authorization"]
    return [
        ask(agent, "/api/v1/keys", "POST", b'{"name": "deputy"}', JSON, token),
        ask(agent, "/api/v1/users", "GET", b"", token),
        ask(agent, "/api/v1/bindings", "POST", b'{"user": "mallory", "role": "admin"}', JSON, token),
        ask(agent, "/api/v1/whoami", "GET", b"", token),
    ]
""",
    )
    assert [answer[:3] for answer in tried[:3]] == ["403"] * 3
    assert f"{PROJECT}/{DOMAIN}/probe" in tried[3]
    refused = lab.audit(event="access.refuse", subject="admin", app=f"{PROJECT}/{DOMAIN}/probe")
    assert {each["action"] for each in refused} >= {"user:manage"}


def test_t17_chains_are_named_and_end(lab: Lab) -> None:
    """A run that asks for the next one gets eight deep, one that asks for itself nowhere; all are named."""
    same = """
        import flyte, flyte.remote as remote
        async def main():
            try:
                return (await flyte.run.aio(remote.Task.get(name="lab.attack"), code=code)).name
            except Exception as error:
                return type(error).__name__
    """
    assert lab.inside_task("alice", same) == "FailedPreconditionError"
    names = lab.inside_task(
        "alice",
        """
        import json, flyte, flyte.remote as remote
        async def main():
            try:
                run = await flyte.run.aio(remote.Task.get(name="lab.attack"), code=code + "#")
                await run.wait.aio()
                return [run.name, *json.loads((await run.outputs.aio())[0])]
            except Exception as error:
                return [type(error).__name__]
        """,
    )
    assert 5 <= len(names) <= 9
    assert names[-1] == "ResourceExhaustedError"
    last = lab.wait("alice", names[-2])
    made = next(each for each in lab.audit(event="run.create") if each["run"].endswith(names[-2]))
    assert len([actor for actor in made["actors"] if actor.startswith("run:")]) == len(names) - 1
    assert last.action.metadata.executed_by.user.id.subject == "alice"
    itself = lab.inside_app(
        "alice",
        f"""
        import httpcore
        def main():
            headers = [("authorization", request.headers["authorization"])]
            url = "{lab.tower.url}/apps/{PROJECT}/{DOMAIN}/probe/headers"
            return httpcore.request("GET", url, headers=headers).status
        """,
    )
    assert itself == 401


def test_t34_there_is_no_choice_of_identity(lab: Lab) -> None:
    """Nobody names another account to run as, in a run, a task or an app; a service's key is its own."""
    spec = run_pb2.RunSpec()
    spec.security_context.run_as.k8s_service_account = "admin"
    refused = lab.start("mallory", "def main(): pass", run_spec=spec)
    assert refused.status_code == 501
    task = task_definition_pb2.TaskSpec()
    task.task_template.id.name = "lab.other"
    task.task_template.container.args.append("x")
    task.task_template.security_context.run_as.iam_role = "admin"
    assert lab.start("mallory", "", task_spec=task).status_code == 501
    body = {"name": "for-another", "user": "admin"}
    assert lab.rest("mallory", "POST", "/keys", body).status_code == 403


def test_t38_a_run_has_no_parent_but_the_one_that_asked(lab: Lab) -> None:
    asked = run_pb2.RunSpec()
    asked.relation.relation_type = relations.RELATION_TYPE_SPAWN
    asked.relation.related_to.project, asked.relation.related_to.domain = PROJECT, DOMAIN
    asked.relation.related_to.name = "r-of-the-admin"
    started = lab.start("mallory", "def main(): pass", run_spec=asked)
    assert started.status_code == 200
    run = runs.CreateRunResponse.FromString(started.content).run
    details = lab.wait("mallory", run.action.id.run.name)
    assert "r-of-the-admin" not in str(details)
    assert details.action.metadata.executed_by.user.id.subject == "mallory"
    victim = runs.CreateRunResponse.FromString(lab.start("alice", "def main(): pass").content).run.action.id
    where = {"run": {"project": PROJECT, "domain": DOMAIN, "name": victim.run.name}, "name": "a1"}
    task = {"id": {"project": PROJECT, "domain": DOMAIN, "name": "lab.attack"}}
    child = {"action": {"actionId": where, "parentActionName": "a0", "task": task}}
    told = lab.inside_task(
        "mallory",
        f"{SOCKET}\nimport json\nCHILD = {child!r}\n"
        """
def main():
    method = "/flyteidl2.actions.ActionsService/Enqueue"
    other = ask(agent, method, "POST", json.dumps(CHILD).encode(), JSON)
    CHILD["action"]["actionId"]["run"]["name"] = os.environ["RUN_NAME"]
    CHILD["action"]["parentActionName"] = "a7"
    return [other[:3], ask(agent, method, "POST", json.dumps(CHILD).encode(), JSON)[:3]]
""",
    )
    assert told == ["403", "403"]
    outside = json.dumps(child).encode()
    answer = lab.rpc("alice", "actions.ActionsService/Enqueue", outside, kind="application/json")
    assert answer.status_code == 403
    refused = [each for each in lab.audit(event="access.refuse", subject="mallory") if each["run"]]
    assert refused


def test_t39_what_one_may_not_view_cannot_be_run_again(lab: Lab) -> None:
    """Dave reads neither runs nor inputs, by any of the ways to them, and an upload's name opens nothing."""
    started = lab.start("alice", "def main(): return 'secret'")
    run = runs.CreateRunResponse.FromString(started.content).run
    lab.wait("alice", run.action.id.run.name)
    where = runs.GetActionDataRequest(action_id=run.action.id)
    assert lab.rpc("dave", "workflow.RunService/GetActionData", where).status_code == 404
    details = runs.GetActionDetailsRequest(action_id=run.action.id)
    assert lab.rpc("dave", "workflow.RunService/GetActionDetails", details).status_code == 404
    uris = lab.rpc("alice", "workflow.RunService/GetActionDataURIs", where)
    uri = runs.GetActionDataURIsResponse.FromString(uris.content).inputs_uri
    again = runs.CreateRunRequest()
    again.project_id.name, again.project_id.domain = PROJECT, DOMAIN
    again.task_id.project, again.task_id.domain, again.task_id.name = PROJECT, DOMAIN, "lab.attack"
    again.offloaded_input_data.uri = uri
    assert lab.rpc("dave", "workflow.RunService/CreateRun", again).status_code == 404
    recovered = run_pb2.RunSpec()
    recovered.relation.relation_type = relations.RELATION_TYPE_RERUN
    recovered.relation.related_to.name = run.action.id.run.name
    mine = lab.start("bob", "def main(): return 'mine'", run_spec=recovered)
    name = runs.CreateRunResponse.FromString(mine.content).run.action.id.run.name
    assert lab.wait("bob", name).action.metadata.executed_by.user.id.subject == "bob"
    assert lab.output("bob", name) == '"mine"'


def test_t50_a_hostile_client_inside_can_do_no_more(lab: Lab) -> None:
    """No SDK, no header and no socket makes a viewer's or contributor's code anybody else."""
    tried = lab.inside_task(
        "alice",
        SOCKET
        + """
import subprocess, sys
def main():
    who = "/api/v1/whoami"
    sockets = os.path.dirname(os.path.dirname(agent))
    others = []
    for name in os.listdir(sockets):
        path = f"{sockets}/{name}/agent"
        if path != agent and os.path.exists(path):
            try:
                others.append(ask(path, who)[:3])
            except OSError:
                others.append("403")
    orphan = '''
import os, sys
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
mine = open("/proc/self/cmdline").read()
while os.getppid() != 1 and open(f"/proc/{os.getppid()}/cmdline").read() == mine: pass
exec(sys.argv[1])
try: print(ask(agent, "/api/v1/whoami")[:3])
except OSError: print("cut")
'''
    prologue = PROLOGUE
    ran = subprocess.run([sys.executable, "-c", orphan, prologue], capture_output=True, text=True, timeout=60)
    return {
        "forged": ask(agent, who, "GET", b"", "x-forwarded-user: admin", "x-tower-user: admin"),
        "bearer": ask(agent, who, "GET", b"", "authorization: Bearer " + "a" * 20)[:3],
        "agent": ask(agent, who, "GET", b"", "x-flyte-agent: 1")[:3],
        "others": others,
        "orphan": ran.stdout.strip(),
        "child": subprocess.run(
            [sys.executable, "-c", prologue + "print(ask(agent, '/api/v1/whoami')[:3])"],
            capture_output=True, text=True, timeout=120,
        ).stdout.strip(),
    }
""".replace("PROLOGUE", repr(SOCKET)),
    )
    assert '"subject":"alice"' in tried["forged"]
    assert tried["bearer"] == "401"
    assert tried["agent"] == "403"
    assert set(tried["others"]) <= {"403"}
    # left by its parents it is still this attempt's, and ends with it
    assert tried["orphan"] in {"200", "403", "cut"}
    assert tried["child"] == "200"


def test_the_socket_of_a_run_is_dead_after_its_end(lab: Lab) -> None:
    """A process that stays behind speaks for nobody."""
    socket = lab.inside_task("alice", "import os\ndef main(): return os.environ['FLYTE_AGENT_SOCKET']")
    with sockets.socket(sockets.AF_UNIX) as link, pytest.raises(OSError, match=r"refused|No such file"):
        link.connect(socket)

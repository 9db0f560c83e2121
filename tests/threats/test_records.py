"""What is kept, shown and worn out: T32, T43, T44, T45, T46, T47."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import httpx
import pytest
from flyteidl2.app import app_payload_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2 as dataproxy
from flyteidl2.task import task_service_pb2
from flyteidl2.workflow import run_service_pb2 as runs
from google.protobuf.message import Message
from tests.files import contents
from tests.threats.conftest import DOMAIN, PROJECT, Lab
from tests.threats.test_credentials import access_token

from tower.errors import Broken
from tower.identity.guesses import SOURCE
from tower.policy.actions import METHODS, ROUTES, check_complete

pytestmark = pytest.mark.xdist_group("threats")

LOUD = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, force=True, stream=sys.stdout)
"""


def test_t32_no_credential_is_left_anywhere(lab: Lab) -> None:
    """After everything, at debug level and with calls that fail: disk, database, logs, /proc."""
    tower = lab.tower
    token = access_token(lab, "alice")
    link = tower.tower("users", "link", "alice").out.strip()
    session = lab.client.get(link).cookies["tower_session"]
    lab.client.cookies.clear()
    lab.client.get("/v2/apps", headers={"cookie": f"tower_session={session}"})
    inside = lab.inside_app(
        "alice",
        LOUD
        + """
import flyte, flyte.remote as remote
async def main():
    run = await flyte.run.aio(remote.Task.get(name="lab.attack"), code="def main(): return 1")
    await run.wait.aio()
    try:
        await remote.Task.get(name="absent.absent").fetch.aio()
    except Exception:
        logging.exception("failed")
    logging.debug("session %r %r", flyte, request)
    return request.headers["authorization"].split()[1]
""",
    )
    lab.inside_task(
        "bob",
        LOUD
        + """
import os, flyte.remote as remote
async def main():
    logging.debug("%r", await remote.User.get.aio())
    return [dict(os.environ), open("/proc/self/cmdline").read(), open("/proc/self/environ").read()]
""",
    )
    for door in ("/api/v1/whoami", "/", "/oauth2/userinfo", f"/apps/{PROJECT}/{DOMAIN}/probe/headers"):
        for broken in (tower.keys["alice"] + "x", token + "x", inside + "x"):
            lab.client.get(door, headers={"authorization": f"Bearer {broken}"})
            lab.client.get(door, headers={"x-api-key": broken})
    canaries = {f"the key of {who}": key.split("_", 2)[2] for who, key in tower.keys.items()}
    canaries |= {
        "the administrator's key": lab.admin_key.split("_", 2)[2],
        "an access token": token.rpartition(".")[2],
        "an app token": inside.rpartition(".")[2],
        "a session": session,
        "a link": link.rpartition("/")[2],
    }
    own = {tower.home / "admin-key"}
    texts = {
        str(path): text
        for path, text in contents(tower.home)
        if path not in own and "images" not in path.relative_to(tower.home).parts
    }
    assert len(texts) > 20
    log = tower.home.parent / f"{tower.home.name}.log"
    texts[str(log)] = log.read_bytes()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if str(tower.home).encode() in command or folder.name == str(tower.process.pid):
                texts |= {str(folder): command, f"{folder}/environ": (folder / "environ").read_bytes()}
        except OSError:
            continue
    assert len([name for name in texts if name.startswith("/proc")]) >= 6
    found = [
        (what, place)
        for what, canary in canaries.items()
        for place, content in texts.items()
        if canary.encode() in content
    ]
    assert found == []


ROUNDS = 100


def furnished(lab: Lab) -> str:
    """Things that dave may not view; the name of a run among them."""
    made = [
        lab.rest("admin", "POST", "/groups", {"name": "hidden-thing"}),
        lab.rest("admin", "POST", "/roles", {"name": "hidden-thing", "actions": ["task:run"]}),
        lab.rest(
            "admin",
            "POST",
            "/policies",
            {"name": "hidden-thing", "text": 'forbid (principal == User::"nobody", action, resource);'},
        ),
        lab.rest(
            "admin",
            "POST",
            "/secrets",
            {"name": "hidden-thing", "value": "eA==", "project": PROJECT, "domain": DOMAIN},
        ),
    ]
    assert {answer.status_code for answer in made} == {201}, [answer.text for answer in made]
    started = lab.start("alice", "def main(): pass")
    return runs.CreateRunResponse.FromString(started.content).run.action.id.run.name


def pairs(lab: Lab, run: str) -> dict[str, tuple[httpx.Response, httpx.Response]]:
    """For each way of asking: what is hidden from dave, and what is not there."""
    same = {"x_request_id": "q"}

    def rpc(method: str, hidden: Message, absent: Message) -> tuple[httpx.Response, httpx.Response]:
        return lab.rpc("dave", method, hidden, **same), lab.rpc("dave", method, absent, **same)

    def of_run(request: Message, project: str, name: str) -> Message:
        where = getattr(request, "run_id", None) or request.action_id.run  # type: ignore[attr-defined]
        where.project, where.domain, where.name = project, DOMAIN, name
        return request

    def of_task(name: str) -> Message:
        request = task_service_pb2.GetTaskDetailsRequest()
        request.task_id.project, request.task_id.domain, request.task_id.name = PROJECT, DOMAIN, name
        return request

    def of_app(name: str) -> Message:
        request = app_payload_pb2.GetRequest()
        request.app_id.project, request.app_id.domain, request.app_id.name = PROJECT, DOMAIN, name
        return request

    absent = "r" + "0" * 19
    upload = dataproxy.CreateUploadLocationRequest(domain=DOMAIN, filename="x", content_md5=b"0" * 16)
    uploads = []
    for project in (PROJECT, "nothing-here"):
        upload.project = project
        uploads.append(lab.rpc("dave", "dataproxy.DataProxyService/CreateUploadLocation", upload, **same))
    page = f"/v2/domain/{DOMAIN}/project/{PROJECT}"
    dave = lab.bearer("dave")
    things = {
        f"{method} {noun}": tuple(
            lab.rest("dave", method, f"/{noun}/{name}{query}", **same)
            for name in ("hidden-thing", "absent-thing")
        )
        for noun, query in (
            ("groups", ""),
            ("roles", ""),
            ("policies", ""),
            ("secrets", f"?project={PROJECT}&domain={DOMAIN}"),
        )
        for method in ("GET", "DELETE")
    }
    for method in ("GET", "DELETE"):
        things[f"{method} ceilings"] = tuple(
            lab.rest("dave", method, f"/ceilings/{PROJECT}/{DOMAIN}/{name}", **same)
            for name in ("probe", "absent")
        )
    things["DELETE grants"] = tuple(
        lab.rest("dave", "DELETE", f"/grants/{PROJECT}/{DOMAIN}/{name}", **same) for name in (run, absent)
    )
    return {
        **{what: (hidden, missing) for what, (hidden, missing) in things.items()},
        "run": rpc(
            "workflow.RunService/GetRunDetails",
            of_run(runs.GetRunDetailsRequest(), PROJECT, run),
            of_run(runs.GetRunDetailsRequest(), PROJECT, absent),
        ),
        "data": rpc(
            "workflow.RunService/GetActionData",
            of_run(runs.GetActionDataRequest(), PROJECT, run),
            of_run(runs.GetActionDataRequest(), PROJECT, absent),
        ),
        "abort": rpc(
            "workflow.RunService/AbortRun",
            of_run(runs.AbortRunRequest(), PROJECT, run),
            of_run(runs.AbortRunRequest(), PROJECT, absent),
        ),
        "task": rpc("task.TaskService/GetTaskDetails", of_task("lab.attack"), of_task("lab.absent")),
        "app": rpc("app.AppService/Get", of_app("probe"), of_app("absent")),
        "upload": (uploads[0], uploads[1]),
        "app's door": (lab.app("dave", "GET", "/x"), lab.app("dave", "GET", "/x", name="absent")),
        "run's page": (
            lab.client.get(f"{page}/runs/{run}", headers=dave),
            lab.client.get(f"{page}/runs/{absent}", headers=dave),
        ),
        "app's page": (
            lab.client.get(f"{page}/apps/probe", headers=dave),
            lab.client.get(f"{page}/apps/absent", headers=dave),
        ),
        "key": (
            lab.rest("dave", "GET", "/keys/alice-key", **same),
            lab.rest("dave", "GET", "/keys/absent-key", **same),
        ),
        "key's end": (
            lab.rest("dave", "DELETE", "/keys/alice-key", **same),
            lab.rest("dave", "DELETE", "/keys/absent-key", **same),
        ),
        "user": (
            lab.rest("dave", "GET", "/users/alice", **same),
            lab.rest("dave", "GET", "/users/absent", **same),
        ),
    }


def plain_words(answer: httpx.Response) -> str:
    """An answer without the names that were asked for, ids of the request and its length."""
    names = (
        rf"r[0-9a-z]{{19}}|{PROJECT}|nothing-here|lab\.(attack|absent)|(alice|absent)-key|"
        r"(hidden|absent)-thing|alice|probe|absent"
    )
    text = re.sub(names, "NAME", answer.text)
    kept = {
        name: value
        for name, value in answer.headers.items()
        if name not in {"x-request-id", "content-length", "date"}
    }
    return f"{answer.status_code} {sorted(kept.items())} {text}"


def test_t43_hidden_is_absent(lab: Lab) -> None:
    run = furnished(lab)
    least: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for name, both in pairs(lab, run).items():
            hidden, absent = both
            assert plain_words(hidden) == plain_words(absent), name
            assert hidden.status_code in {403, 404}, name
            # a class of time: the least of so many rounds that nothing else of the machine is in it
            took = [answer.elapsed.total_seconds() for answer in both]
            least[name] = [min(times) for times in zip(took, least.get(name, took), strict=True)]
        apart = {name: took for name, took in least.items() if max(took) > 3 * min(took) + 0.005}
        if number >= 6 and not apart:
            break
    assert apart == {}
    asked = runs.ListRunsRequest()
    asked.project_id.name, asked.project_id.domain = PROJECT, DOMAIN
    assert lab.rpc("dave", "workflow.RunService/ListRuns", asked).content == b""


def test_t43_what_breaks_tells_nothing(lab: Lab) -> None:
    """No text of an exception, no path and no statement in any answer to nonsense."""
    answers = [
        lab.rest("admin", "GET", f"/audit?before={'9' * 30}"),
        lab.rest("admin", "GET", "/audit?before=-1"),
        lab.rest("admin", "GET", "/users/%00"),
        lab.rpc("alice", "workflow.RunService/CreateRun", b"\xff" * 100),
        lab.rpc("alice", "workflow.RunService/CreateRun", b"{" * 5000, kind="application/json"),
        lab.rpc("alice", "workflow.RunService/ListRuns", b"", content_encoding="gzip"),
        lab.client.put("/data/upload/%ff.%00.x", content=b"x"),
        lab.client.get("/data/download/../../admin-key"),
        lab.client.get("/?token=%00%ff", headers=lab.bearer("alice")),
        lab.client.get("/static/..%2f..%2fdoor.py"),
        lab.client.get("/signin/%00"),
        lab.app("alice", "GET", "/%ff"),
        lab.client.post(
            "/oauth2/token", content=b"\xff", headers={"content-type": "application/x-www-form-urlencoded"}
        ),
    ]
    for answer in answers:
        assert answer.status_code < 500, answer.url
        for word in ("Traceback", "sqlite", "SELECT", "/src/", str(lab.tower.home), "Error("):
            assert word not in answer.text, (answer.url, word)
    before, broke, after = lab.tower.log.partition("Traceback")
    assert not broke, before[-500:] + broke + after[:4000]


def test_t44_the_record_cannot_be_changed_unnoticed(lab: Lab, tmp_path: Path) -> None:
    """On a copy of the database of the running server: whole at first, then each kind of damage is named."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    for name in ("signing-keys", "signing.key"):
        source = lab.tower.home / name
        if source.is_dir():
            shutil.copytree(source, home / name)
        elif source.exists():
            shutil.copy(source, home / name)
    lab.app("dave", "GET", "/x")
    live = sqlite3.connect(lab.tower.home / "tower.db")
    copy = sqlite3.connect(home / "tower.db")
    live.backup(copy)
    live.close()
    rows = copy.execute("select event, outcome from audit order by seq").fetchall()
    assert ("access.refuse", "refused") in rows
    assert ("run.create", "allowed") in rows
    runs_without = copy.execute(
        "select count(*) from actions where parent is null and not exists "
        "(select 1 from audit where event = 'run.create' and audit.run like '%/' || actions.run)"
    ).fetchone()
    assert runs_without == (0,)

    def verified() -> tuple[int, str]:
        copy.commit()
        done = lab.tower._run("tower", ("audit", "verify"), {"TOWER_HOME": str(home)}, check=False)
        return done.status, done.out + done.err

    assert verified()[0] == 0
    for statement in (
        "update audit set subject = 'nobody' where seq = 5",
        "delete from audit where seq = 5",
    ):
        with sqlite3.connect(home / "before.db") as before:
            copy.backup(before)
        copy.execute(statement)
        status, said = verified()
        assert status != 0, statement
        assert re.search(r"\d+", said)
        before.backup(copy)
        before.close()
    copy.close()


def test_t45_a_flood_of_nobodies_reaches_nothing(lab: Lab) -> None:
    """Bad credentials at every door: the others are served, and what is too large is refused early."""
    statuses: Counter[int] = Counter()
    app = f"/apps/{PROJECT}/{DOMAIN}/other/headers"
    info = "/flyteidl2.auth.IdentityService/UserInfo"
    with lab.elsewhere() as flood:
        for number in range(SOURCE.burst * 20):  # a busy machine is given some back meanwhile
            key = {"authorization": f"Bearer twr_{number:012d}_{'B' * 43}"}
            statuses[flood.get(app, headers=key).status_code] += 1
            statuses[flood.get(app).status_code] += 1
            statuses[flood.get("/api/v1/whoami", headers=key).status_code] += 1
            proto = {"content-type": "application/proto", **key}
            statuses[flood.post(info, headers=proto).status_code] += 1
            if number % 20 == 0:
                assert lab.rest("alice", "GET", "/whoami").status_code == 200
            if statuses[429] > 100:
                break
    assert set(statuses) == {401, 429}
    assert lab.app("alice", "GET", "/who/async").text == '"alice"'
    assert lab.rest("alice", "GET", "/whoami").status_code == 200
    bomb = b"\x1f\x8b" + b"\0" * 100
    assert lab.rpc(None, "workflow.RunService/CreateRun", bomb, content_encoding="gzip").status_code == 401
    large = lab.rpc("dave", "workflow.RunService/CreateRun", b"\0" * (33 * 1024 * 1024))
    assert large.status_code in {413, 429}


INJECTIONS = (
    "' OR 1=1 --",
    "'; DROP TABLE actions; --",
    "%",
    "_",
    "\\",
    "\0",
    "' UNION SELECT hash FROM keys --",
    "\u2028",
    "x" * 5000,
)


def test_t46_filters_are_values(lab: Lab) -> None:
    def ask(who: str, method: str, filters: list[dict[str, object]], **more: object) -> httpx.Response:
        request = {
            "request": {"limit": 10, "filters": filters, **more},
            "projectId": {"name": PROJECT, "domain": DOMAIN},
        }
        return lab.rpc(who, method, json.dumps(request).encode(), kind="application/json")

    method = "workflow.RunService/ListRuns"
    fields = (
        "name",
        "task_name",
        "task_version",
        "created_by",
        "executed_by",
        "via_app",
        "phase",
        "created_at",
    )
    lab.start("alice", "def main(): pass")
    for field in fields:
        for text in INJECTIONS:
            for function in ("EQUAL", "CONTAINS", "VALUE_IN"):
                answer = ask("alice", method, [{"function": function, "field": field, "values": [text]}])
                assert answer.status_code in {200, 400}, (field, text)
                if answer.status_code == 200 and text not in {"_", "%"}:
                    assert answer.json() == {}, (field, text, function)
                hidden = ask("dave", method, [{"function": function, "field": field, "values": [text]}])
                assert hidden.json() == ({} if answer.status_code == 200 else answer.json())
    for field in ("credential_id", "inputs", "spec", "executed_by; --", "actions.name", "rowid"):
        assert (
            ask("alice", method, [{"function": "EQUAL", "field": field, "values": ["x"]}]).status_code == 400
        )
        sort = [{"key": field, "direction": "DESCENDING"}]
        assert ask("alice", method, [], sortByFields=sort).status_code == 400
    for text in INJECTIONS:
        assert ask("alice", method, [], token=text).status_code == 400
        assert lab.client.get("/", params={"token": text}, headers=lab.bearer("alice")).status_code == 400
        for name in ("subject", "app", "resource", "event", "outcome"):
            answer = lab.client.get("/api/v1/audit", params={name: text}, headers=lab.bearer("admin"))
            assert answer.status_code in {200, 400}
            assert answer.json().get("records", []) == []


def test_t47_nothing_is_served_without_a_row(lab: Lab) -> None:
    """An undeclared route stops the start; and a caller without a role gets nothing from any declared one."""
    with pytest.raises(Broken):
        check_complete([*METHODS, "/flyteidl2.task.TaskService/Forgotten"])
    with pytest.raises(Broken):
        check_complete([*ROUTES, "rest POST /api/v1/forgotten"])
    for path, row in METHODS.items():
        anonymous = lab.rpc(None, path.removeprefix("/flyteidl2."))
        stream = lab.rpc(
            None, path.removeprefix("/flyteidl2."), b"\0\0\0\0\0", kind="application/connect+proto"
        )
        if not row.anonymous:
            assert anonymous.status_code in {401, 415}, path
            assert b"unauthenticated" in stream.content, path
        dave = lab.rpc("dave", path.removeprefix("/flyteidl2."))
        assert dave.status_code in {400, 403, 404, 415, 501} or dave.status_code == 200, path
    for route, row in ROUTES.items():
        door, method, path = route.split(" ", 2)
        if door not in {"rest", "console"} or row.anonymous:
            continue
        filled = re.sub(r"\{[a-z]+\}", "x", path)
        answer = lab.client.request(method, filled)
        assert answer.status_code in {303, 401, 403}, route

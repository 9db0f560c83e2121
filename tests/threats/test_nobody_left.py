"""T5, T7: work is stopped when nobody is left for whom it could act, on a whole Tower."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flyteidl2.app import app_payload_pb2
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab
from tests.tower.identity.test_webhook_signatures import SECRET, signed

from tower.identity.webhooks import Scheme

pytestmark = pytest.mark.xdist_group("threats")

WAITS = """
import asyncio
async def main():
    print("begun", flush=True)
    await asyncio.Event().wait()
"""


def revoke(lab: Lab, who: str, run: str) -> None:
    place = ("--project", PROJECT, "--domain", DOMAIN)
    said = lab.tower.flyte(*place, "-o", "json", "delete", "grant", run, user=who).json()
    assert said["ended"].endswith(f"was revoked by {who}.")  # type: ignore[index]


def disable(lab: Lab, who: str, run: str) -> None:
    assert lab.rest("admin", "POST", f"/users/{who}/disable").status_code == 200


def delete_key(lab: Lab, who: str, run: str) -> None:
    assert lab.rest("admin", "DELETE", f"/keys/{who}-key").status_code in {200, 204}


@pytest.mark.parametrize("end", [revoke, disable, delete_key])
def test_t07_what_runs_for_nobody_is_stopped(lab: Lab, end: Callable[[Lab, str, str], None]) -> None:
    who = f"leaver-{secrets.token_hex(3)}"
    lab.tower.tower("users", "add", who, "--role", "contributor", "--project", PROJECT)
    lab.tower.keys[who] = lab.tower.new_key(f"{who}-key", who)
    started = lab.start(who, WAITS)
    assert started.status_code == 200, started.text
    name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
    place = ("--project", PROJECT, "--domain", DOMAIN)
    logs = lab.tower.flyte(*place, "get", "grant", "-o", "json", user=who).json()
    assert [each["run"] for each in logs] == [name]  # type: ignore[index]
    _begun(lab, name)
    end(lab, who, name)
    details = lab.wait("admin", name)
    assert details.action.status.phase == phase_pb2.ACTION_PHASE_FAILED
    said = details.action.error_info.message
    assert "revoked" in said or "does not hold any more" in said
    (record,) = lab.audit(event="run.finish", run=f"{PROJECT}/{DOMAIN}/{name}")
    assert (record["subject"], record["outcome"]) == (who, "failed")


HOOK = """
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request
import flyte
import flyte.remote as remote
from flyte.app import Webhook
from flyte.app.extras import FastAPIAppEnvironment, FastAPIPassthroughAuthMiddleware


@asynccontextmanager
async def lifespan(app):
    await flyte.init_passthrough.aio(project=flyte.current_project(), domain=flyte.current_domain())
    yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(FastAPIPassthroughAuthMiddleware)


@app.post("/hook")
async def deliver(request: Request) -> dict[str, str]:
    given = await request.json()
    return {"run": (await flyte.run.aio(remote.Task.get(name="lab.attack"), code=given["code"])).name}


env = FastAPIAppEnvironment(
    name="NAME",
    app=app,
    requires_auth=True,
    image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
    webhooks=[Webhook("/hook", scheme="hmac")],
)
"""


def mapped(lab: Lab, app: str, who: str) -> str:
    """Map the path of an app to a service; the public id of the webhook."""
    asked = {"project": PROJECT, "domain": DOMAIN, "app": app, "path": "/hook", "scheme": "hmac"}
    answer = lab.rest("admin", "PUT", "/webhooks", {**asked, "secret": SECRET.decode(), "user": who})
    assert answer.status_code < 300, answer.text
    return str(answer.json()["id"])


def replace_webhook(lab: Lab, app: str, who: str) -> None:
    mapped(lab, app, who)


def delete_webhook(lab: Lab, app: str, who: str) -> None:
    place = f"project={PROJECT}&domain={DOMAIN}&app={app}&path=/hook"
    assert lab.rest("admin", "DELETE", f"/webhooks?{place}").status_code == 204


def delete_app(lab: Lab, app: str, who: str) -> None:
    asked = app_payload_pb2.DeleteRequest()
    asked.app_id.project, asked.app_id.domain, asked.app_id.name = PROJECT, DOMAIN, app
    assert lab.rpc("admin", "app.AppService/Delete", asked).status_code == 200


@pytest.mark.parametrize("end", [replace_webhook, delete_webhook, delete_app])
def test_t48_what_runs_for_the_delivery_of_a_webhook_is_stopped_with_it(
    lab: Lab, tmp_path: Path, end: Callable[[Lab, str, str], None]
) -> None:
    word = secrets.token_hex(3)
    who, app = f"postman-{word}", f"post-{word}"
    lab.tower.tower("users", "add", who, "--service", "--role", "contributor", "--project", PROJECT)
    (tmp_path / "post.py").write_text(HOOK.replace("NAME", app))
    lab.deploy("mallory", tmp_path, "serve", "post.py", "env")
    webhook = mapped(lab, app, who)
    body = json.dumps({"sender": {"id": 7}, "code": WAITS}).encode()
    with lab.elsewhere() as third_party:
        sent = list(signed(Scheme.HMAC, body, at=time.time()))
        answer = third_party.post(f"/apps/{PROJECT}/{DOMAIN}/{app}/hook", content=body, headers=sent)
    assert answer.status_code == 200, answer.text
    name = answer.json()["run"]
    _begun(lab, name)
    end(lab, app, who)
    details = lab.wait("admin", name)
    assert details.action.status.phase == phase_pb2.ACTION_PHASE_FAILED
    assert "The webhook that this run was asked for by was deleted or replaced" in (
        details.action.error_info.message
    )
    (record,) = lab.audit(event="run.finish", run=f"{PROJECT}/{DOMAIN}/{name}")
    assert (record["subject"], record["outcome"]) == (who, "failed")
    assert record["credential_id"] == webhook
    if end is replace_webhook:
        (newest, *_) = lab.audit(event="webhook.update")
        assert newest["detail"]["replaces"] == webhook


def _begun(lab: Lab, name: str) -> None:
    """Return once the task has said its first line."""
    link = lab.tower.tower("users", "link", "admin").out.strip()
    path = f"/v2/domain/{DOMAIN}/project/{PROJECT}/runs/{name}/logs"
    with lab.tower.http() as browser:
        assert browser.get(link, follow_redirects=True).status_code == 200
        with browser.stream("GET", path) as answer:
            for line in answer.iter_lines():
                if "begun" in line:
                    return
    raise AssertionError("it did not begin")

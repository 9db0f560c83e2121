"""Rows P1 to P14 and K1 to K7 of the checklist: the app environment, the gateway and API keys."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.seeds.conftest import Webhook

pytestmark = [pytest.mark.seeds, pytest.mark.xdist_group("seeds")]
Outcome = Callable[..., dict[str, object]]

PROBE = """
import os
import resource

import fastapi
import flyte
from flyte.app.extras import FastAPIAppEnvironment, FastAPIPassthroughAuthMiddleware

app = fastapi.FastAPI()


@app.get("/probe")
def probe(request: fastapi.Request):
    return {
        "headers": dict(request.headers),
        "greeting": os.environ.get("GREETING"),
        "environment": dict(os.environ),
        "arguments": open("/proc/self/cmdline").read(),
    }


@app.get("/grow")
def grow():
    block = bytearray(900 * 1024 * 1024)
    block[::4096] = b"x" * len(block[::4096])
    return len(block)


@app.post("/effect")
def effect():
    return {"done": True}


probe_env = FastAPIAppEnvironment(
    name="probe",
    app=app,
    description="Shows what reaches an app",
    image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
    resources=flyte.Resources(cpu=1, memory="512Mi"),
    requires_auth=True,
    env_vars={"GREETING": "good morning"},
)

open_app = fastapi.FastAPI()
open_app.add_middleware(FastAPIPassthroughAuthMiddleware, excluded_paths={"/open"})


@open_app.get("/open")
def open_to_all():
    return "open"


@open_app.get("/closed")
def closed():
    return "closed"


open_env = FastAPIAppEnvironment(
    name="open-probe",
    app=open_app,
    image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn"),
    requires_auth=False,
)
"""


@pytest.fixture(scope="session")
def probe(webhook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> Webhook:
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.py").write_text(PROBE)
    for variable in ("probe_env", "open_env"):
        webhook.tower.flyte(
            "--project", "flytesnacks", "--domain", "development", "serve", "probe.py", variable, cwd=folder
        )
    return Webhook(tower=webhook.tower, path="/apps/flytesnacks/development/probe", host="")


def seen(probe: Webhook, **options: object) -> dict[str, object]:
    answer = probe.call("GET", "/probe", user="alice", **options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_p03_p08_the_app_runs_in_its_image_with_its_variables(probe: Webhook) -> None:
    assert seen(probe)["greeting"] == "good morning"


def test_p04_the_memory_limit_is_enforced(probe: Webhook) -> None:
    assert probe.call("GET", "/grow", user="alice").status_code >= 500
    assert seen(probe)["greeting"] == "good morning"  # it came back


def test_p05_without_a_credential_nothing_reaches_the_app(probe: Webhook) -> None:
    answer = probe.call("GET", "/probe", user=None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_p06_the_app_gets_an_exchanged_credential_and_never_the_key(probe: Webhook) -> None:
    what = seen(probe, headers={"cookie": "theme=dark; tower_session=abc"})
    headers = what["headers"]
    assert isinstance(headers, dict)
    assert headers["authorization"].startswith("Bearer ")
    assert probe.tower.keys["alice"] not in json.dumps(what)
    assert "tower_session" not in json.dumps(headers)


def test_p06_forged_identity_headers_do_not_reach_the_app(probe: Webhook) -> None:
    forged = {
        "x-forwarded-user": "root",
        "x-auth-request-email": "root@example",
        "x-forwarded-for": "9.9.9.9",
    }
    headers = seen(probe, headers=forged)["headers"]
    assert isinstance(headers, dict)
    assert "x-forwarded-user" not in headers
    assert "x-auth-request-email" not in headers
    assert headers.get("x-forwarded-for") != "9.9.9.9"


def test_p07_without_requires_auth_the_middleware_still_answers_401(probe: Webhook) -> None:
    with probe.tower.http() as client:
        base = "/apps/flytesnacks/development/open-probe"
        assert client.get(f"{base}/open").status_code == 200
        assert client.get(f"{base}/closed").status_code == 401


def test_p09_the_app_has_a_public_host_of_its_own(webhook: Webhook) -> None:
    with webhook.tower.http("alice") as client:
        port = webhook.tower.url.rsplit(":", 1)[1]
        answer = client.get("/me", headers={"host": f"{webhook.host}:{port}"})
    assert answer.json()["subject"] == "alice"


def test_p10_p11_the_app_runs_what_the_caller_may_run_and_needs_no_right_itself(
    webhook: Webhook, outcome: Outcome
) -> None:
    done = outcome(webhook.run_task("bob", name="my_env.double", inputs={"x": 21}).json()["name"], "bob")
    assert (done["executed_by"], done["outputs"]) == ("bob", {"o0": 42})


def test_p01_p02_every_argument_of_the_example_is_kept(webhook: Webhook) -> None:
    shown = webhook.tower.flyte(
        "--project", "flytesnacks", "--domain", "development", "get", "app", "webhook-runner", "-o", "json"
    ).json()
    assert isinstance(shown, dict)
    assert shown["name"] == "webhook-runner"
    assert shown["description"] == "A webhook service that runs Flyte tasks with passthrough auth"
    with webhook.tower.http("alice") as client:
        page = client.get("/v2/domain/development/project/flytesnacks/apps/webhook-runner").text
    assert "webhook-runner" in page


def test_p12_apps_are_listed(webhook: Webhook) -> None:
    listed = webhook.tower.flyte(
        "--project", "flytesnacks", "--domain", "development", "get", "app", "-o", "json"
    ).json()
    assert isinstance(listed, list)
    entry = next(row for row in listed if row["name"] == "webhook-runner")
    assert "passthrough auth" in entry["description"]
    assert entry["url"]


def test_p13_a_browser_signs_in_once_and_the_app_acts_for_that_person(webhook: Webhook) -> None:
    link = webhook.tower.tower("users", "link", "bob").out.strip()
    port = webhook.tower.url.rsplit(":", 1)[1]
    app = f"http://{webhook.host}:{port}"
    page = {"accept": "text/html"}
    with webhook.tower.http() as browser:
        assert browser.get(link, follow_redirects=True).status_code == 200
        signed_in = browser.get(f"{app}/me", headers=page, follow_redirects=True)
        assert signed_in.json()["subject"] == "bob"
        assert str(signed_in.url) == f"{app}/me"
        assert browser.get(f"{app}/me").json()["subject"] == "bob"
        started = browser.post(
            f"{app}/run-task/flytesnacks/development/my_env.my_task",
            json={"x": 1, "y": "from the page"},
            headers={"origin": app, "sec-fetch-site": "same-origin"},
        )
        run = browser.get(started.json()["url"])
        assert run.status_code == 200
        assert "bob" in run.text
        assert "webhook-runner" in run.text
        foreign = browser.post(
            f"{app}/run-task/flytesnacks/development/my_env.my_task",
            json={"x": 1, "y": "from elsewhere"},
            headers={"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
        )
        assert foreign.status_code == 403


def test_a_sign_in_link_works_once(webhook: Webhook) -> None:
    link = webhook.tower.tower("users", "link", "bob").out.strip()
    with webhook.tower.http() as first:
        assert first.get(link, follow_redirects=True).status_code == 200
    with webhook.tower.http() as second:
        assert second.get(link, follow_redirects=True).status_code >= 400
        assert second.get(webhook.run_task("bob").json()["url"]).status_code in {302, 303, 401}


def test_the_run_page_names_the_app_and_the_key(webhook: Webhook) -> None:
    url = webhook.run_task("bob").json()["url"]
    with webhook.tower.http("bob") as program:
        page = program.get(url)
    assert page.status_code == 200
    for word in ("bob", "flytesnacks/development/webhook-runner", "bob-key"):
        assert word in page.text


def test_p14_outside_callers_need_a_credential_for_health_too(webhook: Webhook) -> None:
    assert webhook.call("GET", "/health", user=None).status_code == 401
    assert webhook.call("GET", "/health", user="alice").status_code == 200


def test_r15_the_run_page_needs_a_login_and_the_right(webhook: Webhook) -> None:
    url = webhook.run_task("alice").json()["url"]
    with webhook.tower.http() as stranger:
        assert stranger.get(url).status_code in {302, 303, 401}
    link = webhook.tower.tower("users", "link", "dave").out.strip()
    with webhook.tower.http() as browser:
        browser.get(link, follow_redirects=True)
        hidden = browser.get(url)
        absent = browser.get(url.rsplit("/", 1)[0] + "/r0000000000000000000")
        assert hidden.status_code == absent.status_code == 404
        assert hidden.content == absent.content


def test_k01_k02_k07_a_key_is_shown_once_and_never_again_by_the_server(webhook: Webhook) -> None:
    tower = webhook.tower
    created = tower.flyte("create", "api-key", "--name", "my-webhook-key", user="alice")
    key = next(word for word in created.out.split() if word.startswith("twr_"))
    assert (
        tower.flyte("get", "api-key", "my-webhook-key", user="alice").out.count(key) >= 1
    )  # this machine has it
    with tower.http("alice") as client:
        for path in ("/api/v1/keys", "/api/v1/keys/my-webhook-key"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert key not in answer.text
            assert key.split("_", 2)[2] not in answer.text
    assert webhook.call("GET", "/me", user=None, key=key).json()["subject"] == "alice"


def test_k03_k04_the_flyte_form_of_a_key_works_as_a_bearer(webhook: Webhook) -> None:
    key = webhook.tower.new_key("base64-key", "bob", "--format", "flyte")
    assert webhook.call("GET", "/me", user=None, key=key).json()["subject"] == "bob"
    assert webhook.tower.flyte("whoami", "-o", "json", user=key).json()["subject"] == "bob"  # type: ignore[call-overload, index]


def test_k05_a_key_has_limits_of_its_own_and_a_run_exactly_those(webhook: Webhook, outcome: Outcome) -> None:
    key = webhook.tower.new_key(
        "staging-only", "alice", "--role", "contributor", "--project", "flytesnacks", "--domain", "staging"
    )
    webhook.tower.keys["alice/staging"] = key
    assert webhook.run_task("alice/staging").status_code != 200
    wide = webhook.tower.new_key(
        "whole-project", "alice", "--role", "contributor", "--project", "flytesnacks"
    )
    webhook.tower.keys["alice/project"] = wide
    done = outcome(webhook.run_task("alice/project").json()["name"], "alice/project")
    assert (done["executed_by"], done["phase"]) == ("alice", "SUCCEEDED")


def test_k06_a_deleted_key_is_refused_at_the_next_call(webhook: Webhook) -> None:
    tower = webhook.tower
    key = tower.new_key("short-lived", "bob")
    assert webhook.call("GET", "/me", user=None, key=key).status_code == 200
    tower.tower("keys", "delete", "short-lived")
    assert webhook.call("GET", "/me", user=None, key=key).status_code == 401
    assert tower.flyte("whoami", user=key, check=False).status == 3

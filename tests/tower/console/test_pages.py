"""What the pages tell, to whom, and how they change while one looks."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import httpx
from flyteidl2.task import run_pb2
from tests.rpc_world import named, task_spec
from tests.tower.console.conftest import Town

from tower.control.launches import Launch
from tower.control.privileges import FIELD
from tower.control.watching import ActionKey
from tower.identity.authenticators import MACHINE
from tower.policy.actions import ROUTES
from tower.states import AppStatus, Phase

SCRIPT = "<script>alert(1)</script>"


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, object]]:
    name = ""
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


async def test_the_run_page_says_who_through_what_and_why(town: Town) -> None:
    path = await town.run("alice", x=42, y=SCRIPT)
    async with town.client(await town.session("bob")) as client:
        text = (await client.get(path)).text
    for told in ("QUEUED", "alice", "none: directly", "api key", "contributors-work", "env.main", "v1", "42"):
        assert told in text
    key = (await town.house.keys.list(MACHINE, subject="alice"))[-1]
    assert key.id in text
    assert key.name in text
    assert SCRIPT not in text
    assert "&lt;script&gt;" in text


async def test_a_run_through_an_app_names_the_app_and_the_key_behind_it(town: Town) -> None:
    from tower.control.launches import Launch
    from tower.identity.chain import Presented
    from tower.identity.workload import Workload, WorkloadKind

    await town.run("alice")
    await town.house.deploy("hook")
    key = await town.house.key("alice")
    app = "flytesnacks/development/hook"
    token = await town.house.grants.exchange(
        await town.house.principal(("authorization", f"Bearer {key}")), app
    )
    through = await town.house.chain.authenticate(
        Presented(
            headers=((b"authorization", f"Bearer {token}".encode()),),
            workload=Workload(WorkloadKind.APP, app, 1),
        )
    )
    from flyteidl2.task import run_pb2

    asked = Launch(
        "flytesnacks",
        "development",
        run_pb2.RunSpec(),
        task=("flytesnacks", "development", "env.main"),
        inputs=named({"x": 1}),
    )
    launched = await town.house.rooms.runs.launch(through, asked, request_id="x1")
    async with town.client(await town.session("alice")) as client:
        answer = await client.get(f"/v2/domain/development/project/flytesnacks/runs/{launched.row.run}")
        listed = await client.get("/")
    assert app in answer.text
    assert key.split("_")[1] in answer.text
    assert key not in answer.text
    assert app in listed.text


async def test_absent_and_hidden_things_are_the_same_page(town: Town) -> None:
    path = await town.run("alice")
    await town.house.deploy("echo")
    await town.house.person("mallory", None)
    absent = "/v2/domain/development/project/flytesnacks/runs/rnothing"
    paths = [
        path,
        f"{path}/events",
        f"{path}/logs",
        absent,
        "/v2/domain/x/project/y/runs/z",
        "/none",
        "/v2/x",
    ]
    paths += [f"/v2/domain/development/project/flytesnacks/apps/{name}" for name in ("echo", "none", "e%2fx")]
    async with town.client(await town.session("mallory")) as client:
        answers = [await client.get(each) for each in paths]
        assert "env.main" not in (await client.get("/")).text
        assert "echo" not in (await client.get("/v2/apps")).text
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    headers = [{k: v for k, v in answer.headers.items() if k != "date"} for answer in answers]
    assert all(each == headers[0] for each in headers)


async def test_a_page_follows_the_run_to_its_end(town: Town) -> None:
    path = await town.run("alice")
    async with (
        town.client(await town.session("alice")) as client,
        client.stream("GET", f"{path}/events") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = events(answer)
        assert (await anext(stream))[0] == "begin"
        name, state = await anext(stream)
        assert name == "state"
        assert "QUEUED" in str(state)
        await town.move(path, Phase.RUNNING)
        assert "RUNNING" in str((await asyncio.wait_for(anext(stream), 60))[1])
        town.write_log(path, f"hello {SCRIPT}\n")
        assert await asyncio.wait_for(anext(stream), 60) == ("log", [f"hello {SCRIPT}\n"])
        error = json.dumps({"code": "ValueError", "message": "no such thing", "kind": "user"})
        await town.move(path, Phase.FAILED, error=error)
        rest = [event async for event in stream]
    assert "FAILED" in str(rest[0])
    assert "ValueError: no such thing" in str(rest[0])
    assert rest[-1] == ("end", None)


async def test_the_output_as_text_for_programs(town: Town) -> None:
    path = await town.run("alice")
    await town.move(path, Phase.RUNNING)
    town.write_log(path, "one\ntwo\n")
    await town.move(path, Phase.SUCCEEDED)
    key = await town.house.key("bob")
    async with town.client(authorization=f"Bearer {key}") as client:
        answer = await client.get(f"{path}/logs")
        assert (answer.text, answer.headers["content-type"]) == ("one\ntwo\n", "text/plain; charset=utf-8")
        assert "SUCCEEDED" in (await client.get(path)).text
    async with town.client(authorization="Bearer twr_000000000000_" + "A" * 43) as client:
        refused = await client.get(path)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


async def test_the_runs_of_a_task_have_a_page_that_deployments_and_runs_name(town: Town) -> None:
    path = await town.run("alice")
    runs = "/v2/domain/development/project/flytesnacks/runs"
    async with town.client(await town.session("alice")) as client:
        of_it = (await client.get(f"{runs}?task=env.main")).text
        official = (await client.get(f"{runs.removesuffix('runs')}tasks/env.main")).text
        assert "Runs of env.main" in official
        of_another = (await client.get(f"{runs}?task=env.%3Cb%3E")).text
        run = (await client.get(path)).text
    assert path in of_it
    assert path not in of_another
    assert "no runs of env.&lt;b&gt; that you may view" in of_another
    for text in (of_it, run):
        assert f'href="{runs}?task=env.main"' in text


async def test_lists_filter_by_owner_and_page(town: Town) -> None:
    await town.house.person("anna", "contributor")
    path = await town.run("alice")
    await town.run("anna")
    async with town.client(await town.session("alice")) as client:
        everyone = (await client.get("/")).text
        mine = (await client.get("/?mine=1")).text
        scoped = await client.get("/v2/domain/development/project/flytesnacks/runs")
        elsewhere = await client.get("/v2/domain/production/project/flytesnacks/runs")
        bad = await client.get("/?token=garbage")
    assert "anna" in everyone
    assert "anna" not in mine
    assert path in mine
    assert path in scoped.text
    assert path not in elsewhere.text
    assert bad.status_code == 400


async def test_the_app_page_tells_state_address_and_revisions(town: Town) -> None:
    await town.house.deploy("echo")
    await town.house.apps.report(
        "flytesnacks", "development", "echo", revision=1, status=AppStatus.FAILED, message="exit status 3"
    )
    town.house.write_app_log("flytesnacks/development/echo", "starting\n")
    page = "/v2/domain/development/project/flytesnacks/apps/echo"
    async with town.client(await town.session("bob")) as client:
        text = (await client.get(page)).text
        listed = (await client.get("/v2/apps")).text
        async with client.stream("GET", f"{page}/events") as answer:
            stream = events(answer)
            seen = [await asyncio.wait_for(anext(stream), 60) for _ in range(3)]
    url = f"http://echo-flytesnacks-development.localhost:{town.port}"
    for told in ("FAILED", "exit status 3", url, "The app echo", "Revisions"):
        assert told in text
    assert url in listed
    assert ("log", ["starting\n"]) in seen


async def test_every_page_forbids_scripts_frames_and_caches(town: Town) -> None:
    async with town.client(await town.session("alice")) as client:
        answers = [await client.get(path) for path in ("/", "/signin", "/none", "/v2/apps", "/healthz")]
        script = await client.get("/static/console.js")
        stray = await client.get("/static/..%2fdoor.py")
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        # no-referrer would have browsers send `Origin: null` with the page's own forms, and be refused
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "onclick" not in answer.text
        assert "<script>" not in answer.text
    assert script.headers["content-type"].startswith("text/javascript")
    assert stray.status_code == 404


async def test_a_browser_finds_an_icon(town: Town) -> None:
    async with town.client() as client:
        named = re.search(r'<link rel="icon"[^>]* href="([^"]+)"', (await client.get("/signin")).text)
        assert named is not None
        for path in (named[1], "/favicon.ico"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "image/svg+xml"


async def test_the_button_that_aborts_is_for_who_may(town: Town) -> None:
    path = await town.run("alice")
    await town.house.person("dave", None)
    own = {"origin": town.url, "sec-fetch-site": "same-origin"}
    async with town.client(await town.session("bob")) as client:
        assert "Abort" not in (await client.get(path)).text
        assert (await client.post(f"{path}/abort", data={"x": "1"}, headers=own)).status_code == 403
    async with town.client(await town.session("dave")) as client:
        assert (await client.post(f"{path}/abort", data={"x": "1"}, headers=own)).status_code == 404
    async with town.client(await town.session("alice")) as client:
        assert f'action="{path}/abort"' in (await client.get(path)).text
        foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        assert (await client.post(f"{path}/abort", data={"x": "1"}, headers=foreign)).status_code == 403
        pressed = await client.post(f"{path}/abort", data={"x": "1"}, headers=own)
        assert pressed.headers["location"] == path
        after = (await client.get(path)).text
    assert "ABORTED" in after
    assert "by alice" in after
    assert f"{path}/abort" not in after


async def test_the_button_that_revokes_the_grant_is_for_its_person_and_administrators(town: Town) -> None:
    path = await town.run("alice")
    await town.house.person("dave", None)
    await town.house.person("erin", "contributor")
    own = {"origin": town.url, "sec-fetch-site": "same-origin"}
    button = f'action="{path}/revoke"'
    for name in ("bob", "erin"):  # who may abort it, the latter, and still not revoke somebody's credential
        async with town.client(await town.session(name)) as client:
            assert button not in (await client.get(path)).text
            assert (await client.post(f"{path}/revoke", data={"x": "1"}, headers=own)).status_code == 403
    async with town.client(await town.session("dave")) as client:
        assert (await client.post(f"{path}/revoke", data={"x": "1"}, headers=own)).status_code == 403
    async with town.client() as client:
        answer = await client.post(f"{path}/revoke", data={"x": "1"}, headers=own)
        assert answer.status_code in {303, 401}
    assert "acts for alice" in await shown(town, path)
    for number, name in enumerate(("alice", "root")):
        path = await town.run("alice", x=number)
        if name == "root":
            await town.house.identities.add_user(MACHINE, subject="root", role="admin")
        async with town.client(await town.session(name)) as client:
            before = (await client.get(path)).text
            assert f'action="{path}/revoke"' in before
            assert "does nothing more in the name of alice" in before
            foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
            for headers in (foreign, {"origin": "null"}, {}):
                assert (
                    await client.post(f"{path}/revoke", data={"x": "1"}, headers=headers)
                ).status_code == 403
            assert (await client.get(f"{path}/revoke")).status_code == 405
            assert await town.house.audit(event="grant.revoke", subject=name) == []
            pressed = await client.post(f"{path}/revoke", data={"x": "1"}, headers=own)
            assert (pressed.status_code, pressed.headers["location"]) == (303, path)
            after = (await client.get(path)).text
            assert (await client.post(f"{path}/revoke", data={"x": "1"}, headers=own)).status_code == 303
        assert f"was revoked by {name}." in after
        assert f"{path}/revoke" not in after
        (entry,) = await town.house.audit(event="grant.revoke", subject=name)
        assert json.loads(entry.detail)["user"] == "alice"


async def test_a_run_that_ended_shows_that_its_grant_was_revoked_and_has_no_button(town: Town) -> None:
    path = await town.run("alice")
    own = {"origin": town.url, "sec-fetch-site": "same-origin"}
    async with town.client(await town.session("alice")) as client:
        await client.post(f"{path}/revoke", data={"x": "1"}, headers=own)
        await town.move(path, Phase.FAILED)
        assert "was revoked by alice." in (await client.get(path)).text
        path = await town.run("alice", x=2)
        await town.move(path, Phase.SUCCEEDED)
        ended = (await client.get(path)).text
    assert "ended with the run" in ended
    assert f"{path}/revoke" not in ended


async def shown(town: Town, path: str) -> str:
    """The page as alice sees it."""
    async with town.client(await town.session("alice")) as client:
        return (await client.get(path)).text


async def test_metrics_are_for_who_may_view_the_audit(town: Town) -> None:
    await town.house.identities.add_user(MACHINE, subject="root", role="admin")
    key = await town.house.key("root")
    async with town.client(authorization=f"Bearer {key}") as client:
        assert "tower_gateway_requests_total" in (await client.get("/metrics")).text
    async with town.client(await town.session("alice")) as client:
        assert (await client.get("/metrics")).status_code == 403


def test_every_route_has_a_row(town: Town) -> None:
    rows = {name for name in ROUTES if name.startswith("console ")}
    assert set(town.console.routes) == rows


async def test_the_pages_of_run_and_task_show_the_privileges_and_who_gave_them(town: Town) -> None:
    path = await town.run("alice")
    listed = "/v2/domain/development/project/flytesnacks/tasks/env.main"
    async with town.client(await town.session("bob")) as client:
        assert "Privileges" not in (await client.get(path)).text
        assert "Privileges" not in (await client.get(listed)).text
    await town.house.identities.add_user(MACHINE, subject="erin", role="admin")
    erin = await town.caller("erin")
    spec = task_spec()
    spec.task_template.container.config.add(key=FIELD, value='["secret:create"]')
    task = ("flytesnacks", "development", "env.main")
    await town.house.rooms.tasks.deploy(erin, task, "v2", spec=spec, request_id="d2")
    asked = Launch(*task[:2], run_pb2.RunSpec(), task=task, inputs=named({"x": 1}))
    alice = await town.caller("alice")
    launched = await town.house.rooms.runs.launch(alice, asked, request_id="r2")
    path = f"/v2/domain/development/project/flytesnacks/runs/{launched.row.run}"
    async with town.client(await town.session("bob")) as client:
        for page in ((await client.get(path)).text, (await client.get(listed)).text):
            assert re.search(r"Privileges.*<code>secret:create</code> <small>given by erin</small>", page)


async def test_the_run_page_shows_how_long_it_acts_for_its_person_and_who_ends_that(town: Town) -> None:
    path = await town.run("alice")
    run = path.rpartition("/")[2]
    key = ActionKey("flytesnacks", "development", run)
    async with town.client(await town.session("bob")) as client:
        text = (await client.get(path)).text
        assert re.search(r"acts for alice until <time", text)
        assert f"flyte delete grant flytesnacks/development/{run}" in text
        await town.house.rooms.standing_grants.revoke(await town.caller("alice"), key)
        text = (await client.get(path)).text
        assert f"The grant of the run {run} was revoked by alice." in text
        assert "acts for alice until" not in text
        await town.move(path, Phase.FAILED)
        assert f"The grant of the run {run} was revoked by alice." in (await client.get(path)).text

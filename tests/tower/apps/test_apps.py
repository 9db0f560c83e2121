"""Deploying apps by the semantics that the protocol's clients expect, and who may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flyteidl2.app import app_definition_pb2 as pb
from tests.tower.gateway.house import DOMAIN, House, built, message

from tower.control import appspecs
from tower.control.listing import Filter, Op, Query
from tower.errors import AlreadyExists, Denied, Exhausted, Fault, Invalid, NotFound, Precondition, Unsupported
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Principal
from tower.settings import Settings
from tower.states import AppStatus, Desired

BASE = "http://127.0.0.1:8080"
KEY = ("flytesnacks", "development", "hook")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with built(tmp_path) as made:
        await made.person("carla", "contributor")
        await made.person("vera", "viewer")
        await made.person("nobody", None)
        yield made


async def person(house: House, name: str) -> Principal:
    return await house.principal(("authorization", f"Bearer {await house.key(name)}"))


async def create(house: House, who: Principal, name: str = "hook", **options: object) -> pb.App:
    row = await house.apps.create(who, message(name, **options), request_id="r")  # type: ignore[arg-type]
    return house.apps.render(row, base_url=BASE)


async def test_create_answers_with_all_that_clients_read(house: House) -> None:
    app = await create(house, await person(house, "carla"))
    assert app.metadata.revision == 1
    assert app.spec.HasField("ingress")
    assert app.spec.creator.user.id.subject == "carla"
    assert app.status.ingress.public_url == f"http://hook-flytesnacks-development.{DOMAIN}:8080"
    assert app.status.ingress.cname_url == f"{BASE}/apps/flytesnacks/development/hook"
    assert app.status.conditions[-1].deployment_status == AppStatus.PENDING
    assert app.status.conditions[-1].actor.user.id.subject == "carla"
    (entry,) = await house.audit(event="app.deploy")
    assert (entry.subject, entry.resource) == ("carla", "app:flytesnacks/development/hook")


async def test_a_second_create_is_refused_and_an_update_makes_a_revision(house: House) -> None:
    carla = await person(house, "carla")
    first = await create(house, carla)
    with pytest.raises(AlreadyExists):
        await create(house, carla)

    changed = pb.App()
    changed.CopyFrom(first)
    changed.spec.container.image = "tower/1"
    row = await house.apps.update(carla, changed, request_id="r")
    assert (row.revision, row.status) == (2, AppStatus.PENDING)
    history = await house.apps.revisions(carla, *KEY, request_id="r")
    assert [(each.revision, each.deployed_by) for each in history] == [(2, "carla"), (1, "carla")]


async def test_the_same_specification_makes_no_revision(house: House) -> None:
    carla = await person(house, "carla")
    app = await create(house, carla)
    app.status.Clear()
    app.spec.creator.user.id.subject = "somebody else"
    row = await house.apps.update(carla, app, request_id="r")
    assert row.revision == 1
    assert row.deployed_by == "carla"
    assert len(await house.audit(event="app.deploy")) == 1


async def test_an_update_of_an_older_revision_is_refused(house: House) -> None:
    carla = await person(house, "carla")
    app = await create(house, carla)
    app.spec.container.image = "tower/1"
    await house.apps.update(carla, app, request_id="r")
    app.spec.container.image = "tower/2"
    with pytest.raises(Precondition, match="revision 2"):
        await house.apps.update(carla, app, request_id="r")


async def test_stop_and_start_are_no_revisions(house: House) -> None:
    carla = await person(house, "carla")
    await create(house, carla)
    stopped = await house.apps.want(carla, *KEY, desired=Desired.STOPPED, request_id="r")
    assert (stopped.revision, stopped.desired, stopped.status) == (1, Desired.STOPPED, AppStatus.SCALING_DOWN)
    assert house.apps.places.by_id(*KEY).desired is Desired.STOPPED  # type: ignore[union-attr]
    started = await house.apps.want(carla, *KEY, desired=Desired.STARTED, request_id="r")
    assert (started.revision, started.desired, started.status) == (1, Desired.STARTED, AppStatus.PENDING)
    assert house.apps.render(started, base_url=BASE).spec.desired_state == Desired.STARTED
    assert [entry.event for entry in await house.audit()][:2] == ["app.start", "app.stop"]


async def test_who_may_what(house: House) -> None:
    carla, vera, nobody = [await person(house, name) for name in ("carla", "vera", "nobody")]
    with pytest.raises(Denied):
        await create(house, vera)
    with pytest.raises(NotFound) as absent:
        await create(house, nobody)
    await create(house, carla)
    with pytest.raises(NotFound) as hidden:
        await create(house, nobody)
    assert absent.value.public == hidden.value.public
    assert (await house.apps.get(vera, *KEY, request_id="r")).name == "hook"
    for refused in (
        lambda: house.apps.want(vera, *KEY, desired=Desired.STOPPED, request_id="r"),
        lambda: house.apps.delete(vera, *KEY, request_id="r"),
    ):
        with pytest.raises(Denied):
            await refused()
    with pytest.raises(NotFound) as secret:
        await house.apps.get(nobody, *KEY, request_id="r")
    await house.apps.delete(carla, *KEY, request_id="r")
    with pytest.raises(NotFound) as gone:
        await house.apps.get(vera, *KEY, request_id="r")
    assert gone.value.public == secret.value.public


async def test_the_original_credential_is_forwarded_only_where_an_admin_said_so(house: House) -> None:
    carla = await person(house, "carla")
    with pytest.raises(Denied):
        await create(house, carla, config={"flyte.passthrough": "raw"})
    app = await create(house, carla)
    app.spec.container.config.add(key="flyte.passthrough", value="raw")
    with pytest.raises(Denied):
        await house.apps.update(carla, app, request_id="r")
    assert not house.apps.places.by_id(*KEY).raw  # type: ignore[union-attr]
    await house.apps.update(MACHINE, app, request_id="r")
    assert house.apps.places.by_id(*KEY).raw  # type: ignore[union-attr]


async def test_a_deleted_name_goes_on_counting_its_revisions(house: House) -> None:
    carla = await person(house, "carla")
    await create(house, carla)
    await house.apps.delete(carla, *KEY, request_id="r")
    assert house.apps.places.by_label("hook-flytesnacks-development") is None
    assert (await create(house, carla)).metadata.revision == 2


async def test_two_apps_never_share_a_host(house: House) -> None:
    await house.projects.create(MACHINE, "b-c", description="", request_id="r")
    await house.projects.create(MACHINE, "c", description="", request_id="r")
    first = await house.apps.create(MACHINE, message("a", project="b-c"), request_id="r")
    second = await house.apps.create(MACHINE, message("a-b", project="c"), request_id="r")
    assert first.host == "a-b-c-development"
    assert second.host.startswith("a-b-c-development-")
    long = await house.apps.create(MACHINE, message("x" * 63), request_id="r")
    assert len(long.host) == 63
    assert house.apps.places.by_label(long.host).name == "x" * 63  # type: ignore[union-attr]


async def test_lists_show_what_the_caller_may_view_page_by_page(house: House) -> None:
    await house.projects.create(MACHINE, "other", description="", request_id="r")
    for name in ("a", "b", "c"):
        await house.apps.create(MACHINE, message(name), request_id="r")
    await house.apps.create(MACHINE, message("d", project="other"), request_id="r")
    vera, nobody = await person(house, "vera"), await person(house, "nobody")

    async def names(who: Principal, **options: object) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            query = Query(limit=2, sort="name", descending=False, token=token, **options)  # type: ignore[arg-type]
            rows, token = await house.apps.page(who, query)
            found += [row.name for row in rows]
            if not token:
                return found

    assert await names(vera) == ["a", "b", "c"]
    assert await names(MACHINE) == ["a", "b", "c", "d"]
    assert await names(nobody) == []
    status = Filter(Op.IN, "status_phase", ("ACTIVE", "DEPLOYMENT_STATUS_PENDING"))
    assert await names(vera, filters=(status,)) == ["a", "b", "c"]
    for who, count in ((vera, 3), (MACHINE, 4), (nobody, 0)):
        assert await house.apps.count(who, Query(limit=1)) == count, "of what one may view, on all pages"
    assert await house.apps.count(vera, Query(filters=(Filter(Op.EQUAL, "name", ("a",)),))) == 1
    with pytest.raises(Invalid):
        await names(vera, filters=(Filter(Op.EQUAL, "spec", ("x",)),))


async def test_a_watch_shows_the_present_then_each_change_then_the_end(house: House) -> None:
    vera = await person(house, "vera")
    await create(house, await person(house, "carla"))
    stream = house.apps.watch(vera, *KEY, request_id="r")
    assert (await anext(stream)).status is AppStatus.PENDING
    following = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert await house.apps.report(*KEY, revision=1, status=AppStatus.ACTIVE)
    assert (await asyncio.wait_for(following, 60)).status is AppStatus.ACTIVE
    following = asyncio.ensure_future(anext(stream))
    await house.apps.delete(MACHINE, *KEY, request_id="r")
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(following, 60)


async def test_a_report_of_an_older_revision_changes_nothing(house: House) -> None:
    carla = await person(house, "carla")
    app = await create(house, carla)
    app.spec.container.image = "tower/1"
    await house.apps.update(carla, app, request_id="r")
    assert not await house.apps.report(*KEY, revision=1, status=AppStatus.FAILED)
    assert (await house.apps.get(carla, *KEY, request_id="r")).status is AppStatus.PENDING


async def test_logs_follow_until_the_app_is_stopped(house: House) -> None:
    carla = await person(house, "carla")
    await create(house, carla)
    house.write_app_log("/".join(KEY), "one\n")
    stream = house.apps.tail(carla, *KEY, request_id="r")
    assert [line.text for line in await anext(stream)] == ["one\n"]
    following = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    house.write_app_log("/".join(KEY), "two\n")
    assert [line.text for line in await asyncio.wait_for(following, 60)] == ["two\n"]
    following = asyncio.ensure_future(anext(stream))
    await house.apps.report(*KEY, revision=1, status=AppStatus.STOPPED)
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(following, 60)


async def test_a_mark_stands_behind_what_an_app_wrote_already(house: House) -> None:
    carla = await person(house, "carla")
    await create(house, carla)
    house.write_app_log("/".join(KEY), "one\n")
    stream = house.apps.tail(carla, *KEY, request_id="r", mark=True)
    assert [line.text for line in await anext(stream)] == ["one\n"]
    assert await anext(stream) == []
    house.write_app_log("/".join(KEY), "two\n")
    assert [line.text for line in await asyncio.wait_for(anext(stream), 60)] == ["two\n"]
    await house.apps.report(*KEY, revision=1, status=AppStatus.STOPPED)
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(stream), 60)


BAD: list[tuple[dict[str, object], type[Fault]]] = [
    ({"name": ""}, Invalid),
    ({"name": "Upper"}, Invalid),
    ({"name": "-x"}, Invalid),
    ({"name": "a/b"}, Invalid),
    ({"name": "x" * 64}, Invalid),
    ({"project": ""}, Invalid),
    ({"domain": "nowhere"}, Invalid),
    ({"env": {"FLYTE_AGENT_SOCKET": "/tmp/x"}}, Invalid),
    ({"env": {"_U_EP_OVERRIDE": "http://evil"}}, Invalid),
    ({"env": {"LD_PRELOAD": "x"}}, Invalid),
    ({"env": {"A B": "x"}}, Invalid),
    ({"env": {f"V{number}": "x" for number in range(300)}}, Exhausted),
    ({"config": {"flyte.passthrough": "yes"}}, Invalid),
    ({"config": {"flyte.public_paths": "not json"}}, Invalid),
    ({"config": {"flyte.public_paths": {"a": 1}}}, Invalid),
    ({"config": {"flyte.public_paths": ["health"]}}, Invalid),
    ({"config": {"flyte.public_paths": ["/a/../b"]}}, Invalid),
    ({"config": {"flyte.public_paths": ["/*"]}}, Invalid),
    ({"config": {"flyte.public_paths": ["//x"]}}, Invalid),
    ({"config": {"flyte.public_paths": [f"/{number}" for number in range(65)]}}, Invalid),
    ({"image": "x" * 2_000_000}, Exhausted),
]


@pytest.mark.parametrize(("options", "fault"), BAD, ids=lambda value: str(value)[:60])
def test_what_cannot_be_deployed(tmp_path: Path, options: dict[str, object], fault: type[Fault]) -> None:
    values = {"name": "hook", **options}
    with pytest.raises(fault):
        appspecs.read(message(**values), Settings(home=tmp_path))  # type: ignore[arg-type]


def test_what_is_not_offered_is_said(tmp_path: Path) -> None:
    def changed(change: object) -> pb.App:
        app = message("hook")
        change(app.spec)  # type: ignore[operator]
        return app

    for change in (
        lambda spec: spec.pod.SetInParent(),
        lambda spec: spec.security_context.secrets.add(key="k", env_var="K", group="g"),
        lambda spec: spec.security_context.run_as.SetInParent(),
        lambda spec: setattr(spec.ingress, "private", True),
        lambda spec: setattr(spec.ingress, "subdomain", "x"),
    ):
        with pytest.raises(Unsupported):
            appspecs.read(changed(change), Settings(home=tmp_path))
    for uri in ("file:///etc/passwd", "tower://bundles/other/development/x/y.tar.gz", "tower://bundles/x"):
        app = message("hook")
        app.metadata.code_bundle_uri = uri
        with pytest.raises(Invalid):
            appspecs.read(app, Settings(home=tmp_path))

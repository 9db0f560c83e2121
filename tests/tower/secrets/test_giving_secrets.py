"""Secrets as running work gets them: which one a name means, who must be allowed to, what is on record."""

from __future__ import annotations

import json

import pytest
from flyteidl2.app import app_definition_pb2
from flyteidl2.task import run_pb2
from tests.tower.secrets.conftest import PLACE, TASK, Den, spec_of

from tower.control.launches import Launch
from tower.control.redaction import MASK, MOST_LINES, Redaction
from tower.errors import Denied, NotFound, Unsupported
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Presented
from tower.identity.workload import Workload, WorkloadKind
from tower.policy.rulebook import Written
from tower.store.apps import AppRow
from tower.store.runs import ActionKey

LEVELS = ({}, {"project": "flytesnacks"}, PLACE, {"personal": True})


async def test_the_nearest_of_a_name_is_given(den: Den) -> None:
    """The executor's own before that of the domain, of the project, of the installation."""
    await den.person("erin", "contributor")
    await den.deploy("root", "token")
    workload = await den.attempt("erin")
    for place in LEVELS:
        who = "erin" if "personal" in place else "root"
        value = json.dumps(place)
        assert (await den.keep(who, "token", value.encode(), **place)).status_code == 201
        assert await den.given(workload) == {"token": value}
    await den.keep("alice", "token", b"of somebody else", personal=True)
    assert await den.given(workload) == {"token": json.dumps({"personal": True})}


async def test_only_what_the_version_declares_is_given(den: Den) -> None:
    for name in ("one", "two", "three"):
        await den.keep("root", name, name.encode(), **PLACE)
    await den.deploy("alice", "one", "two")
    await den.deploy("alice", "three", version="2")
    assert await den.given(await den.attempt("bob")) == {"one": "one", "two": "two"}


async def test_the_executor_must_have_the_right_now(den: Den) -> None:
    """What the deployer may use does not help: the same task fails for somebody who may not."""
    await den.keep("root", "token", b"the value", project="flytesnacks")
    await den.person("erin", "contributor", "flytesnacks", "development")
    await den.deploy("alice", "token")
    refused = await den.call(await den.attempt("erin", run="r1"), "POST", "/workload/secrets", json={})
    assert refused.status_code == 404
    absent = refused.json()["error"]
    workload = await den.attempt("bob", run="r2")
    assert await den.given(workload) == {"token": "the value"}
    forbid = 'forbid (principal == User::"bob", action == Action::"secret:use", resource);'
    await den.house.governance.policies.put_policy(MACHINE, Written("p", forbid, "flytesnacks"), create=True)
    gone = await den.call(workload, "POST", "/workload/secrets", json={})
    assert gone.status_code == 404
    # and one that is not there at all reads the same
    await den.call("root", "DELETE", "/secrets/token", params={"project": "flytesnacks"})
    missing = await den.call(await den.attempt("alice", run="r3"), "POST", "/workload/secrets", json={})
    assert {**missing.json()["error"], "request_id": ""} == {**absent, "request_id": ""}
    assert "token" in absent["message"]


async def test_a_stronger_executor_gets_the_author_nothing(den: Den) -> None:
    """T1: who may not use a secret gets at none by having an administrator run their task."""
    await den.keep("root", "token", b"of the installation")
    await den.deploy("alice", "token")
    workload = await den.attempt("root")
    answer = await den.call(workload, "POST", "/workload/secrets", json={})
    assert answer.status_code == 404
    record = (await den.records(event="access.refuse", subject="root"))[0]
    assert (record.action, json.loads(record.detail)["secret"]) == ("secret:use", "token")
    assert record.run == "flytesnacks/development/r1"
    # her own project's is what she may use herself
    await den.keep("root", "token", b"of the project", project="flytesnacks")
    assert await den.given(workload) == {"token": "of the project"}


async def test_who_may_not_use_a_secret_deploys_nothing_that_asks_for_it(den: Den) -> None:
    text = 'forbid (principal == User::"alice", action == Action::"secret:use", resource is Secret) when '
    rule = Written("p", text + '{ resource.name == "token" };', "flytesnacks")
    await den.house.governance.policies.put_policy(MACHINE, rule, create=True)
    with pytest.raises(Denied, match="secret"):
        await den.deploy("alice", "other", "token")
    await den.deploy("alice", "other")
    await den.deploy("bob", "token", version="2")
    (refused,) = await den.records(event="access.refuse", subject="alice")
    assert (refused.action, refused.resource) == ("secret:use", "secret:flytesnacks/development/token")


async def test_running_work_deploys_nothing_that_asks_for_secrets(den: Den) -> None:
    """T1: code could have its executor register code, and give that what its own author may not use."""
    await den.deploy("root")
    inside = await den.house.chain.authenticate(_presented(await den.attempt("root")))
    with pytest.raises(Denied, match="not by a task"):
        await den.deploy(inside, "token", version="2")
    spec = spec_of("token")
    spec.task_template.id.name = "sent.along"
    asked = Launch(**PLACE, run_spec=_nothing(), spec=spec)
    with pytest.raises(Denied, match="not by a task"):
        await den.house.runs.launch(inside, asked, request_id="q1")
    # a person may: it is their own code then
    launched = await den.house.runs.launch(await den.who("alice"), asked, request_id="q2")
    assert launched.row.spec is not None


async def test_every_read_is_on_record_without_the_value(den: Den) -> None:
    await den.keep("root", "token", b"a value that nobody records", **PLACE)
    await den.deploy("alice", "token")
    await den.given(await den.attempt("bob"))
    (record,) = await den.records(event="secret.read")
    assert (record.subject, record.run) == ("bob", "flytesnacks/development/r1")
    assert record.actors == '["run:flytesnacks/development/r1/a0/1"]'
    detail = json.loads(record.detail)
    assert (detail["secret"], detail["version"], detail["level"]) == ("token", 1, "domain")
    assert "a value" not in record.detail


async def test_people_and_what_has_ended_get_nothing(den: Den) -> None:
    await den.keep("root", "token", b"the value", **PLACE)
    await den.deploy("root", "token")
    for who in ("root", "alice", Workload(WorkloadKind.ADMIN, "admin", 1)):
        assert (await den.call(who, "POST", "/workload/secrets", json={})).status_code == 403
    workload = await den.attempt("root")
    assert await den.given(workload) == {"token": "the value"}
    ended = await den.attempt("root", run="r2")
    await den.house.runs.abort(await den.who("root"), _key("r2"), reason="", whole_run=True, request_id="q")
    assert (await den.call(ended, "POST", "/workload/secrets", json={})).status_code == 401


async def test_a_limited_key_starts_work_that_is_as_limited(den: Den) -> None:
    await den.keep("root", "token", b"the value", **PLACE)
    await den.keep("alice", "own", b"her own", personal=True)
    await den.deploy("alice", "token", "own")
    narrow = await den.key("narrow", "alice", actions=("task:run", "task:view"))
    for number, (key, status) in enumerate([(den.keys["alice"], 200), (narrow, 404)]):
        workload = await den.attempt(await den.who("alice", key=key), run=f"r{number}")
        answer = await den.call(workload, "POST", "/workload/secrets", json={})
        assert answer.status_code == status, answer.text


async def test_a_run_names_no_secrets_of_its_own(den: Den) -> None:
    await den.deploy("alice")
    asked = Launch(**PLACE, run_spec=_nothing(), task=TASK)
    asked.run_spec.security_context.secrets.add(key="token", env_var="TOKEN")
    with pytest.raises(Unsupported, match="names no secrets"):
        await den.house.runs.launch(await den.who("alice"), asked, request_id="q")


@pytest.mark.parametrize("command", [(), ("python", "server.py")])
async def test_an_app_is_given_its_secrets_when_it_starts_and_once(
    den: Den, command: tuple[str, ...]
) -> None:
    """On its own socket, with the ticket of this start, what its deployer may use; nobody's own."""
    await den.keep("root", "token", b"the value", **PLACE)
    await den.keep("alice", "own", b"her own", personal=True)
    row = await _app(den, "alice", "token", command=command)
    socket = Workload(WorkloadKind.APP, row.id, 1)
    other = Workload(WorkloadKind.APP, "flytesnacks/development/other", 1)
    starting = den.house.confidences.starting
    ticket = starting.expect(row)
    body = {"ticket": ticket}
    assert (await den.call(other, "POST", "/workload/secrets", json=body)).status_code in {400, 401, 412}
    assert (await den.call("alice", "POST", "/workload/secrets", json=body)).status_code == 403
    first = await den.call(socket, "POST", "/workload/secrets", json=body)
    assert [each["name"] for each in first.json()["secrets"]] == ["token"]
    for repeated in (body, {}, {"ticket": "x"}):
        again = await den.call(socket, "POST", "/workload/secrets", json=repeated)
        assert again.status_code not in {200, 500}
    # the socket names nobody anywhere else
    assert (await den.call(socket, "GET", "/whoami")).status_code == 401
    assert (
        await den.call(socket, "POST", "/workload/identity-token", json={"audience": "x"})
    ).status_code == 401
    (record,) = await den.records(event="secret.read")
    assert (record.subject, json.loads(record.detail)["app"]) == ("alice", row.id)


async def test_t35_an_app_gets_no_more_than_the_key_that_deployed_it(den: Den) -> None:
    """A key of an administrator that is limited to a domain gives its app nothing that is everybody's."""
    key = await den.key("ci", "root", role="contributor", project=PLACE["project"], domain=PLACE["domain"])
    await den.keep("root", "near", b"of the domain", **PLACE)
    await den.keep("root", "far", b"of the installation")
    row = await _app(den, key, "near", "far")
    socket = Workload(WorkloadKind.APP, row.id, 1)
    ticket = den.house.confidences.starting.expect(row)
    answer = await den.call(socket, "POST", "/workload/secrets", json={"ticket": ticket})
    assert (answer.status_code, "far" in answer.text) == (404, True)
    await den.house.apps.delete(await den.who("root"), *PLACE.values(), "hook", request_id="q")
    row = await _app(den, "root", "near", "far")
    ticket = den.house.confidences.starting.expect(row)
    answer = await den.call(socket, "POST", "/workload/secrets", json={"ticket": ticket})
    assert [each["name"] for each in answer.json()["secrets"]] == ["near", "far"]


async def test_an_app_gets_nothing_for_a_deployer_who_lost_the_right(den: Den) -> None:
    await den.keep("root", "token", b"the value", **PLACE)
    row = await _app(den, "alice", "token")
    socket = Workload(WorkloadKind.APP, row.id, 1)
    await den.house.identities.remove_binding(
        MACHINE, subject="alice", role="contributor", project="flytesnacks", domain="*"
    )
    ticket = den.house.confidences.starting.expect(row)
    answer = await den.call(socket, "POST", "/workload/secrets", json={"ticket": ticket})
    assert answer.status_code == 404
    await den.house.identities.set_disabled(MACHINE, "alice", disabled=True)
    ticket = den.house.confidences.starting.expect(row)
    answer = await den.call(socket, "POST", "/workload/secrets", json={"ticket": ticket})
    assert answer.status_code == 401


@pytest.mark.parametrize("command", [(), ("python", "server.py")])
async def test_who_may_not_use_a_secret_deploys_no_app_that_asks_for_it(
    den: Den, command: tuple[str, ...]
) -> None:
    text = 'forbid (principal == User::"alice", action == Action::"secret:use", resource);'
    rule = Written("p", text, "flytesnacks")
    await den.house.governance.policies.put_policy(MACHINE, rule, create=True)
    with pytest.raises((Denied, NotFound)):
        await _app(den, "alice", "token", command=command)


async def test_what_was_given_is_hidden_and_found() -> None:
    redaction = Redaction()
    pem = b"-----BEGIN-----\nabcdefghij\nk\n-----END-----\n"
    redaction.add("w", [b"short", b"long enough", b"long enough to be the longer one", pem])
    shown = redaction.hide("w", b"short, long enough to be the longer one, long enough.")
    assert shown == b"short, " + MASK + b", " + MASK + b"."
    assert redaction.hide("w", b"  abcdefghij") == b"  " + MASK
    assert redaction.hide("other", b"long enough") == b"long enough"
    assert await redaction.found("w", b"x" * 100 + b"long enough" + b"x")
    assert await redaction.found("w", b"x" + pem)
    assert not await redaction.found("w", b"short")
    for place in (0, (1 << 20) - 5, 1 << 20, (3 << 20) - 11):
        data = bytearray(3 << 20)
        data[place : place + 11] = b"long enough"
        assert await redaction.found("w", bytes(data)), place
    redaction.drop("w")
    assert not await redaction.found("w", b"long enough")
    # an API key of Tower's is one whoever has it
    assert await redaction.found("w", b"twr_" + b"a" * 12 + b"_" + b"B" * 43)


async def test_many_lines_cost_no_more_than_some() -> None:
    """A value of thousands of lines does not make each line of the log cost thousands of searches."""
    redaction = Redaction()
    value = b"\n".join(b"line %06d" % number for number in range(5000))
    redaction.add("w", [value])
    assert redaction.hide("w", b"line 000001") == MASK
    assert len(redaction._given["w"].shown) <= MOST_LINES + 1
    assert await redaction.found("w", b"x" + value)


async def _app(den: Den, who: str, *declared: str, command: tuple[str, ...] = ()) -> AppRow:
    app = app_definition_pb2.App()
    identity = app.metadata.id
    identity.project, identity.domain, identity.name = PLACE["project"], PLACE["domain"], "hook"
    if command:
        app.spec.container.command.extend(command)
    else:
        app.spec.container.args.extend(["flyte-runtime", "app", "--module", "m", "--app", "hook"])
    for name in declared:
        app.spec.security_context.secrets.add(key=name, env_var=name.upper(), mount_requirement="ENV_VAR")
    principal = await (den.who("", key=who) if who.startswith("twr_") else den.who(who))
    return await den.house.apps.create(principal, app, request_id="q")


def _presented(workload: Workload) -> Presented:
    return Presented(headers=(), workload=workload, audience="rpc")


def _nothing() -> run_pb2.RunSpec:
    return run_pb2.RunSpec()


def _key(run: str) -> ActionKey:
    return ActionKey(*PLACE.values(), run, "a0")


async def test_a_policy_may_keep_secrets_from_code_of_others(den: Den) -> None:
    await den.keep("root", "token", b"the value", **PLACE)
    await den.deploy("alice", "token")
    text = 'forbid (principal, action == Action::"secret:use", resource) when { context.foreign_code };'
    await den.house.governance.policies.put_policy(MACHINE, Written("own", text), create=True)
    assert await den.given(await den.attempt("alice", run="r1")) == {"token": "the value"}
    answer = await den.call(await den.attempt("bob", run="r2"), "POST", "/workload/secrets", json={})
    assert answer.status_code == 404
    (record,) = await den.records(event="access.refuse", subject="bob")
    assert record.decision == "policy:own"

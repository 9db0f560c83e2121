"""Who the chain says is calling, for every kind of credential at every door, and what it refuses."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from tests.identity_world import ADMIN_SOCKET, HOST, World, app_socket

from tower.errors import Denied, Exhausted, Precondition, Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Audience, NoCredential
from tower.identity.principal import Actor, ActorKind, CredentialKind, Kind
from tower.identity.workload import Workload, WorkloadKind
from tower.store.schema import attempts

HOOK = "flytesnacks/development/hook"
DOORS: tuple[Audience, ...] = ("rpc", "rest", "gateway", "console")


async def end_attempts(world: World) -> None:
    await world.db.write(lambda tx: tx.execute(attempts.update().values(phase=5)) and None)


async def test_nothing_offered_is_an_error_and_not_anonymous(world: World) -> None:
    for door in DOORS:
        with pytest.raises(NoCredential):
            await world.who(audience=door)


async def test_a_key_names_its_owner_in_every_header_and_both_forms(world: World) -> None:
    text = await world.person("alice", email="alice@example.org")
    for headers in (
        ("authorization", f"Bearer {text}"),
        ("Authorization", f"bearer {text}"),
        ("x-api-key", text),
        ("X-Flyte-Token", text),
    ):
        alice = await world.who(headers)
        assert (alice.subject, alice.kind, alice.email) == ("alice", Kind.USER, "alice@example.org")
        assert alice.credential.kind is CredentialKind.API_KEY
        assert alice.credential.id == text.split("_")[1]
    made = await world.api_keys.create(MACHINE, name="wrapped", subject="alice")
    for endpoint in ("tower.example.org", "127.0.0.1:8080", "dns:///tower.example.org"):
        wrapped = made.key.wrapped(endpoint=endpoint, org="tower")
        assert (await world.who(bearer=wrapped)).subject == "alice"
        assert (await world.who(bearer=wrapped.rstrip("="))).subject == "alice"


async def test_a_service_identity_has_no_name_unless_given_one(world: World) -> None:
    text = await world.person("nightly", kind=Kind.SERVICE)
    nightly = await world.who(bearer=text)
    assert (nightly.subject, nightly.kind, nightly.name) == ("nightly", Kind.SERVICE, "")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("authorization", "Basic YWxpY2U6eA==")], id="another-scheme"),
        pytest.param([("authorization", "")], id="empty"),
        pytest.param([("authorization", "Bearer ")], id="no-token"),
        pytest.param([("authorization", "{key}")], id="no-scheme"),
        pytest.param([("authorization", "Bearer {key}, Bearer {key}")], id="folded"),
        pytest.param([("authorization", "Bearer {key}"), ("authorization", "Bearer {key}")], id="twice"),
        pytest.param([("authorization", "Bearer {key}"), ("AUTHORIZATION", "Bearer {key}")], id="odd-case"),
        pytest.param([("x-api-key", "{key}"), ("x-api-key", "{key}")], id="key-header-twice"),
        pytest.param([("authorization", "Bearer {key}x")], id="longer"),
        pytest.param([("authorization", "Bearer twr_short")], id="mangled"),
        pytest.param([("authorization", "Bearer " + "A" * 9000)], id="huge"),
        pytest.param([("authorization", "Bearer something-else")], id="unknown-kind"),
        pytest.param(
            [("authorization", "Bearer {key}"), ("cookie", "tower_session=planted")], id="bad-cookie"
        ),
        pytest.param([("authorization", "Bearer {key}"), ("x-api-key", "wrong")], id="bad-second"),
    ],
)
async def test_a_credential_that_does_not_hold_is_never_passed_over(
    world: World, headers: list[tuple[str, str]]
) -> None:
    text = await world.person("alice")
    sent = [(name, value.replace("{key}", text)) for name, value in headers]
    with pytest.raises(Unauthenticated) as refused:
        await world.who(*sent)
    assert not isinstance(refused.value, NoCredential)
    assert text not in refused.value.public


async def test_a_right_id_with_a_wrong_secret_is_answered_like_an_unknown_key(world: World) -> None:
    text = await world.person("alice")
    answers = set()
    for guess in (text[:-43] + "A" * 43, "twr_" + "0" * 12 + "_" + "A" * 43):
        with pytest.raises(Unauthenticated) as refused:
            await world.who(bearer=guess)
        answers.add(refused.value.public)
    assert len(answers) == 1


async def test_forwarded_user_headers_name_nobody(world: World) -> None:
    await world.person("alice", "admin")
    for name in ("x-forwarded-user", "X-Auth-Request-User", "x-auth-request-email", "X-Amzn-Oidc-Identity"):
        with pytest.raises(NoCredential):
            await world.who((name, "alice"))


async def test_a_deleted_key_and_an_expired_key_and_a_disabled_owner_end_at_the_next_call(
    world: World,
) -> None:
    text = await world.person("alice")
    brief = await world.key("brief", "alice", expires_in=60)
    assert (await world.who(bearer=text)).subject == "alice"
    assert (await world.who(bearer=brief)).credential.expires_at == world.clock.now() + 60
    world.clock.time += 60
    with pytest.raises(Unauthenticated, match="expired"):
        await world.who(bearer=brief)
    await world.identities.set_disabled(MACHINE, "alice", disabled=True)
    with pytest.raises(Unauthenticated, match="disabled"):
        await world.who(bearer=text)
    await world.identities.set_disabled(MACHINE, "alice", disabled=False)
    assert (await world.who(bearer=text)).subject == "alice"
    await world.api_keys.delete(MACHINE, "alice-key")
    with pytest.raises(Unauthenticated):
        await world.who(bearer=text)


async def test_two_credentials_of_one_person_are_one_caller_and_authorization_counts(world: World) -> None:
    text = await world.person("alice")
    cookie = await world.cookie("alice")
    assert (await world.who(bearer=text, cookie=cookie)).credential.kind is CredentialKind.API_KEY


async def test_two_credentials_of_two_people_are_refused_and_recorded(world: World) -> None:
    text = await world.person("alice")
    other = await world.person("bob")
    cookie = await world.cookie("bob")
    with pytest.raises(Unauthenticated, match="two different callers"):
        await world.who(bearer=text, cookie=cookie)
    with pytest.raises(Unauthenticated, match="two different callers"):
        await world.who(("x-flyte-token", other), bearer=text)
    with pytest.raises(Unauthenticated, match="two different callers"):
        await world.who(bearer=text, workload=ADMIN_SOCKET)
    records = await world.records(event="auth.refuse")
    assert [record.outcome for record in records] == ["refused"] * 3
    assert text not in str(records)
    assert cookie not in str(records)


async def test_a_session_is_good_for_its_own_host_and_kind_of_connection_only(world: World) -> None:
    await world.person("alice")
    cookie = await world.cookie("alice")
    assert (await world.who(cookie=cookie, audience="console")).credential.kind is CredentialKind.SESSION
    for wrong in ("127.0.0.1:9999", "hook-flytesnacks-development.localhost:8080", "tower.example.org"):
        with pytest.raises(Unauthenticated):
            await world.who(cookie=cookie, host=wrong, audience="gateway")
    # over TLS only the __Host- cookie counts, in plain HTTP only the other one
    with pytest.raises(NoCredential):
        await world.who(("cookie", f"tower_session={cookie}"), secure=True)
    with pytest.raises(NoCredential):
        await world.who(("cookie", f"__Host-tower_session={cookie}"))
    assert (await world.who(cookie=cookie, secure=True)).subject == "alice"


async def test_a_session_cookie_twice_is_refused(world: World) -> None:
    await world.person("alice")
    cookie = await world.cookie("alice")
    both = f"tower_session={cookie}; x=1; tower_session={cookie}"
    with pytest.raises(Unauthenticated, match="more than once"):
        await world.who(("cookie", both))
    with pytest.raises(Unauthenticated, match="more than once"):
        await world.who(("cookie", f"tower_session={cookie}"), ("cookie", f"tower_session={cookie}"))
    near = f"xtower_session=a; tower_sessionx=b; tower_session={cookie}"
    assert (await world.who(("cookie", near))).subject == "alice"


async def test_another_sites_page_cannot_use_the_cookie_for_a_call(world: World) -> None:
    await world.person("alice")
    cookie = await world.cookie("alice")
    doors: tuple[Audience, ...] = ("rpc", "rest")
    for door in doors:
        for site in ("cross-site", "same-site"):
            with pytest.raises(Unauthenticated, match="Another site"):
                await world.who(("sec-fetch-site", site), cookie=cookie, audience=door)
        assert (
            await world.who(("sec-fetch-site", "same-origin"), cookie=cookie, audience=door)
        ).subject == "alice"


async def test_a_session_ends_by_time_by_signing_out_and_with_its_person(world: World) -> None:
    await world.person("alice")
    first, second, third = [await world.cookie("alice") for _ in range(3)]
    await world.logins.sign_out(await world.who(cookie=first))
    with pytest.raises(Unauthenticated):
        await world.who(cookie=first)
    await world.identities.set_disabled(MACHINE, "alice", disabled=True)
    with pytest.raises(Unauthenticated):
        await world.who(cookie=second)
    await world.identities.set_disabled(MACHINE, "alice", disabled=False)
    world.clock.time += world.settings.session_life
    with pytest.raises(Unauthenticated, match="ended"):
        await world.who(cookie=third)


async def test_a_session_carried_over_to_an_app_ends_with_the_one_it_came_from(world: World) -> None:
    await world.person("alice")
    host = "hook-flytesnacks-development.localhost:8080"
    console = await world.who(cookie=await world.cookie("alice"), audience="console")
    code = await world.logins.create_handover(console, host)
    with pytest.raises(Unauthenticated):
        await world.logins.sign_in(code, host=HOST)  # not a console code
    with pytest.raises(Unauthenticated):
        await world.logins.sign_in(code, host="other.localhost:8080", handover=True)
    signed_in = await world.logins.sign_in(code, host=host, handover=True)
    assert signed_in.row.expires_at <= world.clock.now() + world.settings.session_life
    with pytest.raises(Unauthenticated):
        await world.logins.sign_in(code, host=host, handover=True)  # once
    at_app = await world.who(cookie=signed_in.text, host=host, audience="gateway")
    assert at_app.subject == "alice"
    with pytest.raises(Denied):
        await world.logins.create_handover(at_app, "third.localhost:8080", request_id="q")
    [told] = await world.records(event="access.refuse")
    assert (told.subject, told.request_id, told.decision) == ("alice", "q", "console-session-only")
    await world.logins.sign_out(console)
    with pytest.raises(Unauthenticated):
        await world.who(cookie=signed_in.text, host=host, audience="gateway")


async def test_a_sign_in_link_works_once_for_minutes_for_an_enabled_person(world: World) -> None:
    await world.person("alice")
    await world.person("nightly", kind=Kind.SERVICE)
    with pytest.raises(Precondition):
        await world.logins.create_link(MACHINE, "nightly")
    code = await world.logins.create_link(MACHINE, "alice")
    await world.logins.sign_in(code, host=HOST)
    with pytest.raises(Unauthenticated):
        await world.logins.sign_in(code, host=HOST)
    late = await world.logins.create_link(MACHINE, "alice")
    world.clock.time += world.settings.link_life
    with pytest.raises(Unauthenticated):
        await world.logins.sign_in(late, host=HOST)
    for wrong in ("", "x" * 43, "a/b", "é" * 43):
        with pytest.raises(Unauthenticated):
            await world.logins.sign_in(wrong, host=HOST)


async def test_the_administration_socket_is_the_machine_at_the_api_alone(world: World) -> None:
    doors: dict[Audience, bool] = {"rpc": True, "rest": True, "gateway": False, "console": False}
    for door, good in doors.items():
        if good:
            assert await world.who(workload=ADMIN_SOCKET, audience=door) == MACHINE
        else:
            with pytest.raises(Unauthenticated):
                await world.who(workload=ADMIN_SOCKET, audience=door)


async def test_the_socket_of_an_attempt_is_its_executor_while_it_runs(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice", "contributor"))
    socket = await world.running(alice)
    inside = await world.who(workload=socket)
    assert inside.subject == "alice"
    assert inside.credential.attested
    assert inside.credential.root == alice.credential.id
    assert inside.actors == (Actor(ActorKind.RUN, socket.id),)
    with pytest.raises(Unauthenticated):
        await world.who(workload=socket, audience="console")
    for gone in (
        "flytesnacks/development/r1/a0/2",
        "flytesnacks/development/r9/a0/1",
        "nonsense",
        "a/b/c/d/e",
    ):
        with pytest.raises(Unauthenticated, match="over"):
            await world.who(workload=Workload(WorkloadKind.ATTEMPT, gone, 1))


@pytest.mark.parametrize("end", ["finish", "disable", "delete-key"])
async def test_the_socket_of_an_attempt_is_nobody_once_its_ground_is_gone(world: World, end: str) -> None:
    alice = await world.who(bearer=await world.person("alice", "contributor"))
    socket = await world.running(alice, phase=4)
    assert (await world.who(workload=socket)).subject == "alice"
    match end:
        case "finish":
            await end_attempts(world)
        case "disable":
            await world.identities.set_disabled(MACHINE, "alice", disabled=True)
        case "delete-key":
            await world.api_keys.delete(MACHINE, "alice-key")
    with pytest.raises(Unauthenticated):
        await world.who(workload=socket)


async def test_a_key_that_expires_does_not_end_the_runs_it_asked_for(world: World) -> None:
    await world.person("alice", "contributor")
    alice = await world.who(bearer=await world.key("brief", "alice", expires_in=60))
    socket = await world.running(alice)
    world.clock.time += 48 * 3600
    assert (await world.who(workload=socket)).subject == "alice"


async def test_an_app_token_is_good_on_its_apps_socket_and_names_both(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice"), audience="gateway")
    token = await world.grants.exchange(alice, HOOK)
    through = await world.who(bearer=token, workload=app_socket(HOOK))
    assert (through.subject, through.via_app) == ("alice", HOOK)
    assert through.credential.kind is CredentialKind.APP_TOKEN
    assert through.credential.attested
    assert through.credential.root == alice.credential.id
    assert await world.grants.exchange(alice, HOOK) == token  # warm calls sign nothing


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("place", ["own", "other-app", "attempt", "admin", "tls", "plain"])
async def test_where_an_app_token_is_good(world: World, place: str, door: Audience) -> None:
    alice = await world.who(bearer=await world.person("alice"), audience="gateway")
    token = await world.grants.exchange(alice, HOOK)
    workload = {
        "own": app_socket(HOOK),
        "other-app": app_socket("flytesnacks/development/other"),
        "attempt": Workload(WorkloadKind.ATTEMPT, "flytesnacks/development/r1/a0/1", 1),
        "admin": ADMIN_SOCKET,
    }.get(place)
    if place in {"own", "tls"} and door in {"rpc", "rest"}:
        caller = await world.who(bearer=token, workload=workload, secure=place == "tls", audience=door)
        assert caller.credential.attested is (place == "own")
    else:
        with pytest.raises(Unauthenticated):
            await world.who(bearer=token, workload=workload, secure=place == "tls", audience=door)


async def test_an_app_token_dies_with_time_key_and_person(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice"), audience="gateway")
    token = await world.grants.exchange(alice, HOOK)
    world.clock.time += world.settings.app_token_life
    with pytest.raises(Unauthenticated, match="expired"):
        await world.who(bearer=token, workload=app_socket(HOOK))
    token = await world.grants.exchange(alice, HOOK)
    assert (await world.who(bearer=token, workload=app_socket(HOOK))).subject == "alice"
    await world.identities.set_disabled(MACHINE, "alice", disabled=True)
    with pytest.raises(Unauthenticated):
        await world.who(bearer=token, workload=app_socket(HOOK))
    await world.identities.set_disabled(MACHINE, "alice", disabled=False)
    await world.api_keys.delete(MACHINE, "alice-key")
    with pytest.raises(Unauthenticated, match="no longer holds"):
        await world.who(bearer=token, workload=app_socket(HOOK))


async def test_an_app_called_by_a_task_ends_with_the_task_and_names_the_key_behind_it(world: World) -> None:
    alice = await world.who(bearer=await world.person("alice", "contributor"))
    inside = await world.who(workload=await world.running(alice), audience="gateway")
    token = await world.grants.exchange(inside, HOOK)
    through = await world.who(bearer=token, workload=app_socket(HOOK))
    assert [actor.kind for actor in through.actors] == [ActorKind.RUN, ActorKind.APP]
    assert through.credential.root == alice.credential.id
    await end_attempts(world)
    with pytest.raises(Unauthenticated, match="no longer holds"):
        await world.who(bearer=token, workload=app_socket(HOOK))


async def test_an_app_token_of_a_session_dies_with_the_session(world: World) -> None:
    await world.person("alice")
    alice = await world.who(cookie=await world.cookie("alice"), audience="gateway")
    token = await world.grants.exchange(alice, HOOK)
    assert (await world.who(bearer=token, workload=app_socket(HOOK))).credential.root == alice.credential.id
    await world.logins.sign_out(alice)
    with pytest.raises(Unauthenticated):
        await world.who(bearer=token, workload=app_socket(HOOK))


async def test_an_app_socket_alone_names_nobody_and_a_service_key_there_names_the_app_too(
    world: World,
) -> None:
    with pytest.raises(NoCredential):
        await world.who(workload=app_socket(HOOK))
    text = await world.person("nightly", kind=Kind.SERVICE)
    nightly = await world.who(bearer=text, workload=app_socket(HOOK))
    assert (nightly.subject, nightly.via_app) == ("nightly", HOOK)
    assert nightly.credential.kind is CredentialKind.API_KEY
    await world.person("alice")
    with pytest.raises(Unauthenticated):
        await world.who(cookie=await world.cookie("alice"), workload=app_socket(HOOK))


async def test_a_chain_keeps_every_actor_in_order_and_has_an_end(world: World) -> None:
    caller = await world.who(bearer=await world.person("alice"), audience="gateway")
    for number in range(8):
        if number:
            caller = replace(
                caller,
                credential=replace(caller.credential, kind=CredentialKind.API_KEY, id=caller.credential.root),
            )
        app = f"flytesnacks/development/app{number}"
        token = await world.grants.exchange(caller, app)
        caller = await world.who(bearer=token, workload=app_socket(app))
    assert [actor.id[-4:] for actor in caller.actors] == [f"app{number}" for number in range(8)]
    again = replace(
        caller, credential=replace(caller.credential, kind=CredentialKind.API_KEY, id=caller.credential.root)
    )
    with pytest.raises(Exhausted):
        await world.grants.exchange(again, HOOK)
    with pytest.raises(Precondition, match="itself"):
        await world.grants.exchange(again, "flytesnacks/development/app3")
    with pytest.raises(Denied):
        await world.grants.exchange(caller, HOOK)  # a token makes no tokens
    with pytest.raises(Denied):
        await world.grants.exchange(MACHINE, HOOK)


async def test_a_key_is_stored_as_a_hash_and_its_use_is_noted_at_most_once_a_minute(world: World) -> None:
    text = await world.person("alice")
    world.clock.time += 10
    await world.who(bearer=text)
    await world.directory.close()
    first = (await world.api_keys.get(MACHINE, "alice-key")).last_used_at
    assert first == world.clock.now()
    world.clock.time += 59
    await world.who(bearer=text)
    await world.directory.close()
    assert (await world.api_keys.get(MACHINE, "alice-key")).last_used_at == first
    world.clock.time += 1
    await world.who(bearer=text)
    await world.directory.close()
    assert (await world.api_keys.get(MACHINE, "alice-key")).last_used_at == world.clock.now()
    for file in world.home.glob("tower.db*"):
        content = file.read_bytes()
        assert text.encode() not in content
        assert text.split("_", 2)[2].encode() not in content
        assert base64.b64encode(text.encode()) not in content

"""Signed deliveries of third parties at the gateway: as whom they run, and all that is refused (T48)."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.tower.gateway.echo import Echo
from tests.tower.gateway.house import House, built, serving
from tests.tower.identity.test_webhook_signatures import SECRET, signed

from tower.errors import Denied, Invalid, NotFound, Precondition
from tower.gateway.webhooks import AT_ONCE, MAX_BODY
from tower.identity.authenticators import MACHINE
from tower.identity.principal import CredentialKind, Kind
from tower.identity.webhooks import Scheme, read
from tower.policy.actions import Action, Resource, ResourceType

PLACE = ("flytesnacks", "development", "hooks")
PATHS = {f"/{scheme}": scheme for scheme in Scheme}
DECLARED = {"flyte.webhooks": [{"path": path, "scheme": scheme} for path, scheme in PATHS.items()]}
BODY = json.dumps({"sender": {"id": 7}, "zen": "Keep it simple"}).encode()


class Post:
    """The house with an app `hooks` that declares one path for each scheme."""

    def __init__(self, house: House, echo: Echo, port: int) -> None:
        self.house = house
        self.echo = echo
        self.port = port

    async def map(self, path: str = "/github", **options: Any) -> None:
        values: dict[str, Any] = {"scheme": PATHS[path], "secret": SECRET.decode(), "subject": "robot"}
        await self.house.rooms.webhooks.set(MACHINE, PLACE, path, **{**values, **options})

    async def send(
        self, path: str, body: bytes = BODY, *, headers: Any = None, secret: bytes = SECRET, **more: Any
    ) -> httpx.Response:
        if headers is None:
            headers = signed(PATHS[path], body, secret=secret, at=more.pop("at", time.time()), **more)
        async with httpx.AsyncClient(trust_env=False, timeout=60.0) as client:
            return await client.post(
                f"http://127.0.0.1:{self.port}/apps/{'/'.join(PLACE)}{path}",
                content=body,
                headers=list(headers),
            )


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    echo = Echo()
    async with built(tmp_path) as house:
        await house.identities.add_user(
            MACHINE, subject="robot", kind=Kind.SERVICE, role="viewer", project="flytesnacks"
        )
        await house.person("alice")
        await house.deploy("hooks", config=DECLARED)
        uds = tmp_path / "hooks.sock"
        gateway = house.gateway(recheck_seconds=0.05)
        async with serving(echo.app, uds=uds), serving(gateway) as port:
            house.processes.sockets["/".join(PLACE)] = uds
            yield Post(house, echo, port)
            await gateway.close()


def token_of(seen: dict[str, Any]) -> str:
    return next(value for name, value in seen["headers"] if name == "authorization").removeprefix("Bearer ")


@pytest.mark.parametrize("path", PATHS)
async def test_a_genuine_delivery_reaches_the_app_as_the_mapped_service(post: Post, path: str) -> None:
    await post.map(path)

    answer = await post.send(path)

    assert answer.status_code == 200
    (seen,) = post.echo.seen
    assert (seen["path"], seen["body"]) == (path, BODY.decode())
    claims = post.house.claims(token_of(seen))
    assert (claims.subject, claims.app) == ("robot", "/".join(PLACE))
    assert claims.parent_kind is CredentialKind.WEBHOOK
    assert SECRET.decode() not in str(seen)


@pytest.mark.parametrize("path", PATHS)
async def test_a_wrong_signature_is_refused_and_nothing_reaches_the_app(post: Post, path: str) -> None:
    await post.map(path)
    good = signed(PATHS[path], BODY, at=time.time())

    answers = [
        await post.send(path, secret=b"another secret, as long"),
        await post.send(path, b"another body", headers=good),
        await post.send(path, headers=()),
        await post.send(path, headers=good[1:]),
        await post.send(path, headers=(*good, good[-1])),
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert (post.echo.seen, post.house.processes.woken.total()) == ([], 0)


@pytest.mark.parametrize("path", PATHS)
async def test_a_repeated_delivery_is_refused(post: Post, path: str) -> None:
    await post.map(path)
    sent = signed(PATHS[path], BODY, at=time.time())

    statuses = [(await post.send(path, headers=sent)).status_code for _ in range(3)]

    assert statuses == [200, 401, 401]
    assert len(post.echo.seen) == 1


async def test_a_captured_delivery_under_another_number_is_refused(post: Post) -> None:
    await post.map()
    await post.send("/github", name="1")

    assert (await post.send("/github", name="2")).status_code == 401
    assert (await post.send("/github", b"{}", name="1")).status_code == 401
    assert (await post.send("/github", b"{}", name="3")).status_code == 200


@pytest.mark.parametrize("path", ["/slack", "/standard", "/hmac"])
async def test_an_old_delivery_is_refused(post: Post, path: str) -> None:
    await post.map(path)

    assert (await post.send(path, at=time.time() - 400)).status_code == 401
    assert post.echo.seen == []


@pytest.mark.parametrize("path", PATHS)
async def test_a_delivery_is_known_when_the_mapping_was_changed_since(post: Post, path: str) -> None:
    """Whoever recorded it would have it run once more, and perhaps as somebody else."""
    await post.map(path)
    sent = signed(PATHS[path], BODY, at=time.time())
    assert (await post.send(path, headers=sent)).status_code == 200
    await post.map(path, senders={"8": "alice"})
    assert (await post.send(path, headers=sent)).status_code == 401
    await post.map(path, secret="quite another secret")
    assert (await post.send(path, headers=sent)).status_code == 401
    assert len(post.echo.seen) == 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("gone", ["webhook", "app", "secret"])
async def test_a_delivery_is_known_when_the_webhook_was_gone_meanwhile(
    post: Post, path: str, gone: str
) -> None:
    await post.map(path)
    sent = signed(PATHS[path], BODY, at=time.time())
    assert (await post.send(path, headers=sent)).status_code == 200
    match gone:
        case "webhook":
            await post.house.rooms.webhooks.delete(MACHINE, PLACE, path)
        case "app":
            await post.house.apps.delete(MACHINE, *PLACE, request_id="t")
            await post.house.deploy("hooks", config=DECLARED)
        case "secret":
            await post.map(path, secret="quite another secret")
    await post.map(path)
    assert (await post.send(path, headers=sent)).status_code == 401
    assert len(post.echo.seen) == 1


async def test_another_sender_may_number_as_the_one_before_it(post: Post) -> None:
    await post.map()
    assert (await post.send("/github", name="1")).status_code == 200
    other = b"the secret of another sender"
    await post.map(secret=other.decode())
    assert (await post.send("/github", secret=other, name="1")).status_code == 200


async def test_what_did_not_arrive_may_come_again_though_the_mapping_was_changed_meanwhile(
    post: Post,
) -> None:
    await post.map()
    sent = signed(Scheme.GITHUB, BODY)
    webhooks = post.house.rooms.webhooks
    shown = read(Scheme.GITHUB, sent, now=time.time())
    delivery = webhooks.verify(PLACE, "/github", shown, BODY)
    await webhooks.take(delivery)
    await post.map(senders={"8": "alice"})
    assert (await post.send("/github", headers=sent)).status_code == 401
    await webhooks.give_back(delivery)
    assert (await post.send("/github", headers=sent)).status_code == 200


async def test_deliveries_that_earlier_versions_remembered_are_known(post: Post) -> None:
    from sqlalchemy import update

    from tower.store.schema_apps import webhook_deliveries

    await post.map()
    sent = signed(Scheme.GITHUB, BODY)
    assert (await post.send("/github", headers=sent)).status_code == 200
    (row,) = await post.house.rooms.webhooks.listed(MACHINE)
    as_before = update(webhook_deliveries).values(webhook=row.id)
    assert await post.house.db.write(lambda tx: tx.execute(as_before).rowcount)
    assert (await post.send("/github", headers=sent)).status_code == 401
    await post.house.rooms.webhooks.delete(MACHINE, PLACE, "/github")
    await post.map()
    assert (await post.send("/github", headers=sent)).status_code == 401


async def test_deliveries_that_hardly_come_leave_room_for_others(post: Post) -> None:
    """Nobody has to know a secret to begin one."""
    await post.map()
    shown = signed(Scheme.GITHUB, BODY, secret=b"no secret of anybody's", at=0.0)
    head = b"".join(b"%b: %b\r\n" % pair for pair in shown)
    line = f"POST /apps/{'/'.join(PLACE)}/github HTTP/1.1\r\nhost: 127.0.0.1:{post.port}\r\n".encode()
    place, own = ("127.0.0.1", post.port), ("127.0.0.2", 0)
    links = [await asyncio.open_connection(*place, local_addr=own) for _ in range(AT_ONCE // 2 + 1)]
    try:
        for _, writer in links:
            writer.write(line + head + b"content-length: 1000000\r\n\r\n")
        lines = [asyncio.ensure_future(reader.readline()) for reader, _ in links]
        (answered,), waiting = await asyncio.wait(lines, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert answered.result().split()[1] == b"429"
        assert (await post.send("/github")).status_code == 200
        for each in waiting:
            each.cancel()
    finally:
        for _, writer in links:
            writer.transport.abort()


async def test_repeats_are_known_after_a_restart_too(tmp_path: Path) -> None:
    config = {"flyte.webhooks": [{"path": "/github", "scheme": "github"}]}
    sent = signed(Scheme.GITHUB, BODY)
    statuses = []
    for _ in range(2):
        echo = Echo()
        async with built(tmp_path) as house:
            if not statuses:
                await house.identities.add_user(
                    MACHINE, subject="robot", kind=Kind.SERVICE, role="viewer", project="flytesnacks"
                )
                await house.deploy("hooks", config=config)
                await Post(house, echo, 0).map()
            gateway = house.gateway()
            async with serving(echo.app, uds=tmp_path / "h.sock"), serving(gateway) as port:
                house.processes.sockets["/".join(PLACE)] = tmp_path / "h.sock"
                statuses.append((await Post(house, echo, port).send("/github", headers=sent)).status_code)
                await gateway.close()

    assert statuses == [200, 401]


async def test_a_sender_runs_as_the_user_that_it_is_linked_to(post: Post) -> None:
    await post.map(senders={"7": "alice"})
    await post.send("/github", name="1")
    await post.send("/github", json.dumps({"sender": {"id": 8}}).encode(), name="2")

    assert [post.house.claims(token_of(seen)).subject for seen in post.echo.seen] == ["alice", "robot"]


async def test_a_sender_that_nobody_linked_runs_as_nobody(post: Post) -> None:
    await post.map(subject="", senders={"8": "alice"})

    assert (await post.send("/github")).status_code == 403
    assert post.echo.seen == []


async def test_without_a_mapping_a_path_is_closed_as_if_it_were_no_webhook(post: Post) -> None:
    unmapped = await post.send("/github")
    other = await post.send("/nothing", headers=signed(Scheme.GITHUB, BODY))

    assert (unmapped.status_code, other.status_code) == (401, 401)
    assert post.echo.seen == []


async def test_a_signature_is_good_at_its_own_path_only(post: Post) -> None:
    await post.map("/github")
    await post.map("/hmac", secret="quite another secret")
    sent = signed(Scheme.HMAC, BODY, at=time.time())

    assert (await post.send("/hmac", headers=sent)).status_code == 401
    for path in ("/github/", "/github/x", "/GitHub", "/github%2Fx", "/"):
        assert (await post.send(path, headers=signed(Scheme.GITHUB, BODY))).status_code in {400, 401}
    assert post.echo.seen == []


async def test_a_signature_names_nobody_with_another_method(post: Post) -> None:
    await post.map()
    async with httpx.AsyncClient(trust_env=False, timeout=60.0) as client:
        answer = await client.put(
            f"http://127.0.0.1:{post.port}/apps/{'/'.join(PLACE)}/github",
            content=BODY,
            headers=list(signed(Scheme.GITHUB, BODY)),
        )

    assert answer.status_code == 401


async def test_a_credential_counts_before_a_signature_and_does_not_fall_back_to_it(post: Post) -> None:
    await post.map()
    good = signed(Scheme.GITHUB, BODY)
    key = await post.house.key("alice")

    bad = await post.send("/github", headers=(*good, (b"authorization", b"Bearer nonsense")))
    known = await post.send("/github", headers=(*good, (b"authorization", f"Bearer {key}".encode())))

    assert (bad.status_code, known.status_code) == (401, 200)
    assert post.house.claims(token_of(post.echo.seen[0])).subject == "alice"


async def test_the_service_needs_the_right_to_use_the_app(post: Post) -> None:
    await post.map()
    await post.house.identities.remove_binding(
        MACHINE, subject="robot", role="viewer", project="flytesnacks", domain="*"
    )

    assert (await post.send("/github")).status_code == 404
    assert post.echo.seen == []


async def test_deleting_the_webhook_or_disabling_the_service_ends_it_and_its_tokens(post: Post) -> None:
    directory = post.house.rooms.directory
    await post.map()
    await post.send("/github", name="1")
    claims = post.house.claims(token_of(post.echo.seen[0]))
    assert await directory.alive(claims.parent_kind, claims.parent, "robot")
    assert not await directory.alive(claims.parent_kind, claims.parent, "alice")

    await post.house.identities.set_disabled(MACHINE, "robot", disabled=True)
    assert (await post.send("/github", b"{}", name="2")).status_code == 403
    await post.house.identities.set_disabled(MACHINE, "robot", disabled=False)
    await post.house.rooms.webhooks.delete(MACHINE, PLACE, "/github")

    assert (await post.send("/github", b"[]", name="3")).status_code == 401
    assert not await directory.alive(claims.parent_kind, claims.parent, "robot")


async def test_what_the_app_could_not_take_may_be_delivered_again(post: Post) -> None:
    await post.map()
    sent = signed(Scheme.GITHUB, BODY)
    key = "/".join(PLACE)
    socket = post.house.processes.sockets.pop(key)

    down = await post.send("/github", headers=sent)
    post.house.processes.sockets[key] = socket
    up = await post.send("/github", headers=sent)

    assert (down.status_code, up.status_code) == (503, 200)


async def test_a_body_that_is_too_large_is_not_held(post: Post) -> None:
    await post.map()

    assert (await post.send("/github", b"x" * (MAX_BODY + 1))).status_code == 413


async def test_guessing_is_slowed_down(post: Post) -> None:
    await post.map()
    url = f"http://127.0.0.1:{post.port}/apps/{'/'.join(PLACE)}/github"
    async with httpx.AsyncClient(trust_env=False, timeout=120.0) as client:

        async def guess(number: int) -> int:
            sent = signed(Scheme.GITHUB, BODY, secret=b"a guess that is long enough", name=str(number))
            return (await client.post(url, content=BODY, headers=list(sent))).status_code

        statuses = Counter(await asyncio.gather(*(guess(number) for number in range(300))))

    assert set(statuses) == {401, 429}


async def test_the_secret_is_in_no_row_no_answer_and_no_record(post: Post) -> None:
    await post.map()
    listed = await post.house.rooms.webhooks.listed(MACHINE)
    records = await post.house.audit(event="webhook.update")
    home = post.house.settings.home

    assert [row.path for row in listed] == ["/github"]
    assert SECRET not in listed[0].secret
    assert SECRET.decode() not in str(records)
    assert not any(SECRET in path.read_bytes() for path in home.rglob("*") if path.is_file())


async def test_a_sealed_secret_that_was_moved_to_another_row_opens_nothing(post: Post) -> None:
    from sqlalchemy import update

    from tower.store.schema_apps import webhooks

    await post.map("/github")
    await post.map("/hmac", secret="quite another secret")
    rows = {row.path: row for row in await post.house.rooms.webhooks.listed(MACHINE)}
    moved = update(webhooks).where(webhooks.c.path == "/hmac").values(secret=rows["/github"].secret)
    await post.house.db.write(lambda tx: tx.execute(moved).rowcount)

    assert (await post.send("/hmac")).status_code == 500


async def test_mapping_takes_the_right_to_manage_the_app_and_to_act_as_the_service(post: Post) -> None:
    house = post.house
    await house.person("carol", "contributor")
    carol = await house.principal(("authorization", f"Bearer {await house.key('carol')}"))
    hooks = house.rooms.webhooks

    def setting() -> Any:
        return hooks.set(
            carol, PLACE, "/github", scheme=Scheme.GITHUB, secret=SECRET.decode(), subject="robot"
        )

    with pytest.raises(Denied):
        await setting()
    await house.identities.add_binding(MACHINE, subject="carol", role="act-as", kind="service", name="robot")
    app = Resource(ResourceType.APP, *PLACE)
    may = (await house.access.check(carol, Action.APP_MANAGE, app)).allowed
    if may:
        await setting()
    else:
        with pytest.raises(Denied):
            await setting()
    with pytest.raises(Denied):
        await hooks.set(
            carol, PLACE, "/github", scheme=Scheme.GITHUB, secret=SECRET.decode(), senders={"7": "alice"}
        )


async def test_who_may_not_see_the_app_learns_nothing_of_its_webhooks(post: Post) -> None:
    await post.map()
    await post.house.person("dave", None)
    dave = await post.house.principal(("authorization", f"Bearer {await post.house.key('dave')}"))
    hooks = post.house.rooms.webhooks

    assert await hooks.listed(dave) == []
    for path in ("/github", "/hmac"):
        with pytest.raises(NotFound):
            await hooks.delete(dave, PLACE, path)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"path": "/other"}, Precondition),
        ({"scheme": Scheme.HMAC}, Precondition),
        ({"secret": "short"}, Invalid),
        ({"subject": ""}, Invalid),
        ({"subject": "nobody"}, NotFound),
        ({"senders": {"": "alice"}}, Invalid),
    ],
    ids=str,
)
async def test_a_mapping_that_cannot_work_is_refused(
    post: Post, change: dict[str, Any], refusal: type[Exception]
) -> None:
    values: dict[str, Any] = {
        "path": "/github",
        "scheme": Scheme.GITHUB,
        "secret": SECRET.decode(),
        "subject": "robot",
        **change,
    }
    path = values.pop("path")

    with pytest.raises(refusal):
        await post.house.rooms.webhooks.set(MACHINE, PLACE, path, **values)


@pytest.mark.parametrize(
    "declared",
    [
        "{}",
        "[1]",
        '[{"path": "/x"}]',
        '[{"path": "/x", "scheme": "md5"}]',
        '[{"path": "x", "scheme": "hmac"}]',
        '[{"path": "/../x", "scheme": "hmac"}]',
        '[{"path": "/x", "scheme": "hmac", "user": "root"}]',
        '[{"path": "/x", "scheme": "hmac"}, {"path": "/x", "scheme": "slack"}]',
    ],
)
async def test_an_app_that_declares_nonsense_is_not_deployed(post: Post, declared: str) -> None:
    with pytest.raises(Invalid):
        await post.house.deploy("other", config={"flyte.webhooks": declared})


async def test_a_path_is_not_public_and_a_webhook_at_once(post: Post) -> None:
    config = {"flyte.webhooks": [{"path": "/x", "scheme": "hmac"}], "flyte.public_paths": ["/x"]}
    with pytest.raises(Invalid):
        await post.house.deploy("other", config=config)


async def test_another_app_of_a_deleted_ones_name_starts_without_webhooks(post: Post) -> None:
    await post.map()
    await post.house.apps.delete(MACHINE, *PLACE, request_id="t")

    assert await post.house.rooms.webhooks.listed(MACHINE) == []

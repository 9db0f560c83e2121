"""Signed URLs: one object, one content, for minutes, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from connectrpc.code import Code
from flyteidl2.dataproxy import dataproxy_service_pb2 as pb
from flyteidl2.task import common_pb2
from flyteidl2.workflow import run_service_pb2
from tests.raw_calls import begun, given_up, left
from tests.rpc_world import Caller, RpcWorld, action_id, literal, md5, refused

from tower.errors import Denied
from tower.identity.authenticators import MACHINE
from tower.states import Phase

CONTENT = b"bundle of code"


async def _place(caller: Caller, content: bytes = CONTENT, **more: object) -> pb.CreateUploadLocationResponse:
    values = {
        "project": "flytesnacks",
        "domain": "development",
        "filename": "code.tar.gz",
        "content_md5": md5(content),
        **more,
    }
    return await caller.data.create_upload_location(
        pb.CreateUploadLocationRequest(**values), headers=caller.headers
    )


def _header(content: bytes) -> dict[str, str]:
    return {"content-md5": base64.b64encode(md5(content)).decode()}


async def test_an_upload_needs_the_url_alone_and_lands_where_it_said(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    place = await _place(alice)
    assert place.signed_url.startswith(rpc.url)
    answer = await rpc.http.put(place.signed_url, content=CONTENT, headers=_header(CONTENT))
    assert answer.status_code == 200
    key = place.native_url.removeprefix("tower://")
    assert key.startswith("bundles/flytesnacks/development/")
    assert await rpc.blobs.get(key, limit=100) == CONTENT
    (record,) = await rpc.world.records(event="upload.create")
    assert record.subject == "alice"
    assert place.signed_url.rpartition("/")[2] not in record.detail
    # again is fine
    assert (await rpc.http.put(place.signed_url, content=CONTENT)).status_code == 200


async def test_other_content_is_refused_and_leaves_nothing(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    place = await _place(alice)
    for content, headers in (
        (b"bundle of evil", {}),
        (b"bundle of evil", _header(b"bundle of evil")),
        (b"bundle of evil", _header(CONTENT)),
        (CONTENT, {"content-md5": "%%%"}),
        (CONTENT, {"content-md5": base64.b64encode(b"short").decode()}),
    ):
        answer = await rpc.http.put(place.signed_url, content=content, headers=headers)
        assert answer.status_code == 400, answer.text
    assert not await rpc.blobs.exists(place.native_url.removeprefix("tower://"))


async def test_what_is_stored_is_never_replaced(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    place = await _place(alice)
    key = place.native_url.removeprefix("tower://")
    await rpc.blobs.put(key, b"same name, as if the digests collided")
    answer = await rpc.http.put(place.signed_url, content=CONTENT)
    assert answer.status_code == 409
    assert (await rpc.blobs.get(key, limit=100)).startswith(b"same name")


async def test_a_file_named_by_its_sha256_must_have_it(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    wrong = await _place(alice, filename=f"{'0' * 64}.tar.gz")
    assert (await rpc.http.put(wrong.signed_url, content=CONTENT)).status_code == 400
    assert not await rpc.blobs.exists(wrong.native_url.removeprefix("tower://"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    right = await _place(alice, filename=f"{digest}.tar.gz")
    assert (await rpc.http.put(right.signed_url, content=CONTENT)).status_code == 200
    await rpc.deploy(alice, bundle=right.native_url)
    run = await rpc.run(alice)
    (record,) = await rpc.world.records(event="run.create")
    assert digest in record.detail
    link = await alice.data.create_download_link(
        pb.CreateDownloadLinkRequest(
            artifact_type=pb.ARTIFACT_TYPE_CODE_BUNDLE,
            action_attempt_id={"action_id": run.action.id, "attempt": 1},
        ),
        headers=alice.headers,
    )
    (url,) = link.pre_signed_urls.signed_url
    answer = await rpc.http.get(url)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-disposition"].startswith("attachment")
    assert (await rpc.http.put(url, content=b"x")).status_code == 405


async def test_uploads_are_bounded(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    place = await _place(alice, content_length=5)
    answer = await rpc.http.put(place.signed_url, content=CONTENT)
    assert answer.status_code == 413

    async def unknown():  # type: ignore[no-untyped-def]
        yield CONTENT

    assert (await rpc.http.put(place.signed_url, content=unknown())).status_code == 413
    with refused(Code.RESOURCE_EXHAUSTED):
        await _place(alice, content_length=2**40)


async def test_a_url_ends(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    place = await _place(alice)
    rpc.world.clock.time += 3601
    assert (await rpc.http.put(place.signed_url, content=CONTENT)).status_code == 403


async def test_a_url_ends_with_the_account_of_who_asked_for_it(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice", "contributor")
    place = await _place(rpc.caller(key))
    await rpc.world.identities.set_disabled(MACHINE, "alice", disabled=True)
    answer = await rpc.http.put(place.signed_url, content=CONTENT)
    assert (answer.status_code, answer.json()) == (
        403,
        {"detail": "The link does not hold. Ask for a new one."},
    )
    blob = place.native_url.removeprefix("tower://")
    assert not await rpc.blobs.exists(blob)
    (entry,) = await rpc.world.records(event="access.refuse")
    assert (entry.subject, entry.outcome, entry.action) == ("alice", "refused", "data:upload")
    assert (entry.credential_kind, entry.credential_id) == ("api_key", key.split("_")[1])
    assert (entry.decision, entry.resource) == ("account-disabled", "domain:flytesnacks/development")
    assert json.loads(entry.detail) == {"method": "PUT /data/upload/{ticket}", "key": blob}

    await rpc.world.identities.set_disabled(MACHINE, "alice", disabled=False)
    assert (await rpc.http.put(place.signed_url, content=CONTENT)).status_code == 200


async def test_an_upload_under_way_ends_with_the_account(rpc: RpcWorld) -> None:
    place = await _place(rpc.caller(await rpc.world.person("alice", "contributor")))
    ticket = place.signed_url.rpartition("/")[2]

    async def slowly() -> AsyncIterator[bytes]:
        yield CONTENT[:5]
        await rpc.world.identities.set_disabled(MACHINE, "alice", disabled=True)
        yield CONTENT[5:]

    with pytest.raises(Denied):
        await rpc.data.receive(ticket, slowly(), content_md5=None, length=None, request_id="r")
    assert not await rpc.blobs.exists(place.native_url.removeprefix("tower://"))


@pytest.mark.parametrize("ticket", ["", "x", "a.b.c", "../../etc/passwd", "%2e%2e%2f", "A" * 9000])
async def test_guessed_urls_open_nothing(rpc: RpcWorld, ticket: str) -> None:
    assert (await rpc.http.put(f"{rpc.url}/data/upload/{ticket}", content=b"x")).status_code in {
        403,
        404,
        405,
    }
    assert (await rpc.http.get(f"{rpc.url}/data/download/{ticket}")).status_code in {403, 404, 405}


async def test_an_upload_ticket_downloads_nothing(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    place = await _place(alice)
    await rpc.http.put(place.signed_url, content=CONTENT)
    assert (await rpc.http.get(place.signed_url.replace("upload", "download"))).status_code == 403


@pytest.mark.parametrize("filename", ["", "../x", "a/b", "..", ".hidden", "x\x00", "a" * 200])
async def test_filenames_are_plain(rpc: RpcWorld, filename: str) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    with refused(Code.INVALID_ARGUMENT):
        await _place(alice, filename=filename)


async def test_who_may_upload(rpc: RpcWorld) -> None:
    carol = rpc.caller(await rpc.world.person("carol", "viewer"))
    dave = rpc.caller(await rpc.world.person("dave"))
    with refused(Code.PERMISSION_DENIED):
        await _place(carol)
    with refused(Code.NOT_FOUND):
        await _place(dave)
    with refused(Code.INVALID_ARGUMENT):
        await _place(carol, domain="moon")


async def test_a_foreign_host_header_is_not_repeated_in_a_url(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice", "contributor")
    body = pb.CreateUploadLocationRequest(
        project="flytesnacks", domain="development", filename="x", content_md5=md5(b"")
    ).SerializeToString()
    answer = await rpc.post(
        "dataproxy.DataProxyService/CreateUploadLocation",
        body,
        authorization=f"Bearer {key}",
        host="evil.example",
    )
    assert pb.CreateUploadLocationResponse.FromString(answer.content).signed_url.startswith(rpc.url)


async def test_inputs_and_outputs_of_a_run(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    dave = rpc.caller(await rpc.world.person("dave"))
    await rpc.deploy(alice)
    run = await rpc.run(alice, x=7)
    name = run.action.id.run.name
    request = pb.GetActionDataRequest(action_id=action_id(name))
    data = await alice.data.get_action_data(request, headers=alice.headers)
    assert [(each.name, each.value) for each in data.inputs.literals] == [
        ("x", literal(7)),
        ("y", literal("hello")),
    ]
    assert not data.outputs.literals
    with refused(Code.NOT_FOUND):
        await dave.data.get_action_data(request, headers=dave.headers)

    outputs = common_pb2.Outputs()
    outputs.literals.add(name="o0").value.CopyFrom(literal(8))
    place = f"runs/flytesnacks/development/{name}/a0/1"
    await rpc.blobs.put(f"{place}/outputs.pb", outputs.SerializeToString())
    await rpc.move(name, Phase.SUCCEEDED, outputs_uri=f"tower://{place}")
    data = await alice.data.get_action_data(request, headers=alice.headers)
    assert data.outputs == outputs
    older = await alice.runs.get_action_data(
        run_service_pb2.GetActionDataRequest(action_id=action_id(name)), headers=alice.headers
    )
    assert older.outputs == outputs
    uris = await alice.runs.get_action_data_u_r_is(
        run_service_pb2.GetActionDataURIsRequest(action_id=action_id(name)), headers=alice.headers
    )
    assert uris.inputs_uri
    assert uris.outputs_uri == f"tower://{place}"


async def test_large_inputs_are_kept_as_blobs_and_too_large_ones_not_at_all(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    await rpc.deploy(alice)
    run = await rpc.run(alice, x=1, y="z" * 50_000)
    request = pb.GetActionDataRequest(action_id=run.action.id)
    data = await alice.data.get_action_data(request, headers=alice.headers)
    assert data.inputs.literals[1].value == literal("z" * 50_000)
    with refused(Code.RESOURCE_EXHAUSTED):
        await rpc.run(alice, x=1, y="z" * 11_000_000)


async def test_many_uploads_of_one_file_at_once(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    place = await _place(alice)
    answers = await asyncio.gather(
        *(rpc.http.put(place.signed_url, content=CONTENT, headers=_header(CONTENT)) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {200}


async def test_half_an_upload_is_a_call_of_who_asked_for_it_given_up(rpc: RpcWorld) -> None:
    key = await rpc.world.person("alice", "contributor")
    place = await _place(rpc.caller(key))
    url = urlsplit(place.signed_url)
    assert url.port is not None
    await left(await begun(url.port, f"PUT {url.path}", body=CONTENT[:5], length=14, host=url.netloc))
    entry = await given_up(lambda: rpc.world.records(event="call.cancel"))
    assert (entry.subject, entry.outcome, entry.action) == ("alice", "cancelled", "data:upload")
    assert (entry.credential_kind, entry.credential_id) == ("api_key", key.split("_")[1])
    assert entry.resource == "domain:flytesnacks/development"
    told = json.loads(entry.detail)
    assert told["method"] == "PUT /data/upload/{ticket}"
    assert int(told["bytes"]) <= 5
    assert told["key"] == place.native_url.removeprefix("tower://")
    assert url.path.rpartition("/")[2] not in entry.detail
    assert not await rpc.blobs.exists(told["key"])
    # the link still holds: nothing happened
    assert (await rpc.http.put(place.signed_url, content=CONTENT)).status_code == 200


async def test_half_an_upload_with_a_made_up_link_leaves_no_record(rpc: RpcWorld) -> None:
    alice = rpc.caller(await rpc.world.person("alice", "contributor"))
    port = urlsplit(rpc.url).port
    assert port is not None
    await left(await begun(port, "PUT /data/upload/x.y.z", body=b"x", length=14, host="127.0.0.1"))
    assert (await rpc.http.put((await _place(alice)).signed_url, content=CONTENT)).status_code == 200
    assert await rpc.world.records(event="call.cancel") == []

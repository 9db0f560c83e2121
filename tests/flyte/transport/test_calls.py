from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flyteidl2.auth import identity_pb2
from flyteidl2.workflow import run_service_pb2
from tests.flyte.plane import Plane, Raw, Refusal, Seen, Stream, envelope, serving

from flyte import _init, errors
from flyte._context import carry_context
from flyte.remote import auth_metadata
from flyte.transport import _envelope
from flyte.transport.session import InsecureTransportWarning, Session

ME = "/flyteidl2.auth.IdentityService/UserInfo"
WATCH = "/flyteidl2.workflow.RunService/WatchActionDetails"
INFO = identity_pb2.UserInfoResponse
pytestmark = pytest.mark.usefixtures("bare")


def echo(seen: Seen) -> identity_pb2.UserInfoResponse:
    """Answers with the credential that came."""
    return INFO(subject=seen.header("authorization") or "")


@pytest.fixture
def session(plane: Plane, bare: pytest.MonkeyPatch) -> Iterator[Session]:
    plane.on(ME, echo)
    session = _init.open_session(endpoint=plane.url, auth_type="Passthrough", project="p", domain="d")
    with _init.use_session(session):
        yield session


def api_key(plane: Plane, key: str = "twr_k_s") -> Session:
    return _init.open_session(endpoint=plane.url, api_key=key)


async def ask(session: Session, *, idempotent: bool = False, deduplicated: bool = False) -> str:
    request = identity_pb2.UserInfoRequest()
    answer = await session.unary(ME, request, INFO, idempotent=idempotent, deduplicated=deduplicated)
    return str(answer.subject)


async def watch(session: Session) -> list[str]:
    request = run_service_pb2.WatchActionDetailsRequest()
    answers = session.stream(WATCH, request, run_service_pb2.WatchActionDetailsResponse)
    return [answer.details.id.name async for answer in answers]


def details(name: str) -> run_service_pb2.WatchActionDetailsResponse:
    answer = run_service_pb2.WatchActionDetailsResponse()
    answer.details.id.name = name
    return answer


async def test_b1_b2_a_call_carries_the_callers_headers_and_the_protocols(
    plane: Plane, session: Session
) -> None:
    with auth_metadata(("Authorization", "Bearer alice"), ("cookie", "s=1")):
        assert await ask(session) == "Bearer alice"
    (seen,) = plane.seen
    assert seen.header("cookie") == "s=1"
    assert seen.header("content-type") == "application/proto"
    assert seen.header("connect-protocol-version") == "1"
    assert seen.header("host") == plane.url.removeprefix("http://")
    assert seen.header("x-request-id")
    assert seen.header("x-flyte-agent") is None


async def test_b4_streams_carry_them_too_and_uploads_never(plane: Plane, session: Session) -> None:
    plane.on(WATCH, Stream([details("a"), details("b")]))
    plane.on("/put", Raw())
    with auth_metadata(("authorization", "Bearer alice")):
        assert await watch(session) == ["a", "b"]
        await session.put("/put?sig=1", b"data", headers={"content-md5": "x"})
    stream, put = plane.seen
    assert stream.header("authorization") == "Bearer alice"
    assert stream.header("content-type") == "application/connect+proto"
    assert put.header("authorization") is None
    assert (put.method, put.path, put.body) == ("PUT", "/put?sig=1", b"data")
    assert put.header("content-md5") == "x"
    assert put.header("content-length") == "4"


async def test_b5_outside_of_a_block_nothing_is_sent(plane: Plane, session: Session) -> None:
    with pytest.raises(KeyError), auth_metadata(("authorization", "Bearer alice")):
        raise KeyError
    with pytest.raises(errors.MissingCallerError):
        await ask(session, idempotent=True)
    with pytest.raises(errors.MissingCallerError):
        await watch(session)
    with pytest.raises(errors.MissingCallerError):
        session.fingerprint()
    assert plane.seen == []


async def test_a_session_without_credential_sends_nothing(plane: Plane) -> None:
    session = _init.open_session(endpoint=plane.url)
    with pytest.raises(errors.UnauthenticatedError, match="api_key"):
        await ask(session)
    assert plane.seen == []


async def test_b14_caller_metadata_without_passthrough_is_an_error_and_not_another_identity(
    plane: Plane,
) -> None:
    session = api_key(plane)
    with (
        auth_metadata(("authorization", "Bearer alice")),
        pytest.raises(errors.InitializationError, match="init_passthrough"),
    ):
        await ask(session)
    assert plane.seen == []
    plane.on(ME, echo)
    assert await ask(session) == "Bearer twr_k_s"


async def test_b6_nested_blocks_replace_and_restore(plane: Plane, session: Session) -> None:
    with auth_metadata(("authorization", "Bearer alice"), ("x-extra", "1")):
        with auth_metadata(("authorization", "Bearer bob")):
            assert await ask(session) == "Bearer bob"
        assert await ask(session) == "Bearer alice"
    assert [seen.header("x-extra") for seen in plane.seen] == [None, "1"]


async def test_b7_a_thousand_callers_never_mix(plane: Plane, session: Session) -> None:
    async def as_user(number: int) -> bool:
        with auth_metadata(("authorization", f"Bearer user-{number}")):
            await asyncio.sleep(0)
            return await ask(session) == f"Bearer user-{number}"

    assert all(await asyncio.gather(*(as_user(number) for number in range(1000))))
    assert len(plane.seen) == 1000


async def test_b8_threads(plane: Plane, session: Session) -> None:
    def blocking(_: int = 0) -> str:
        return asyncio.run(ask(session))

    with auth_metadata(("authorization", "Bearer alice")):
        assert await asyncio.to_thread(blocking) == "Bearer alice"
        carried: Callable[[int], str] = carry_context(blocking)
    found: list[str] = []

    def bob() -> None:
        with auth_metadata(("authorization", "Bearer bob")):
            found.append(blocking())

    thread = threading.Thread(target=bob)
    thread.start()
    with ThreadPoolExecutor(8) as pool:
        assert set(await asyncio.to_thread(lambda: list(pool.map(carried, range(16))))) == {"Bearer alice"}
        with pytest.raises(errors.MissingCallerError):
            await asyncio.to_thread(lambda: pool.submit(blocking).result())
    await asyncio.to_thread(thread.join)
    assert found == ["Bearer bob"]


async def test_b15_a_refused_credential_is_sent_once(plane: Plane, session: Session) -> None:
    plane.on(ME, Refusal("unauthenticated", "The key has expired.", 401))
    with (
        auth_metadata(("authorization", "Bearer alice")),
        pytest.raises(errors.UnauthenticatedError) as caught,
    ):
        await ask(session, idempotent=True, deduplicated=True)
    assert caught.value.message == "The key has expired."
    assert len(plane.seen) == 1


@pytest.mark.parametrize(
    "code", ["internal", "unknown", "permission_denied", "invalid_argument", "deadline_exceeded"]
)
async def test_only_unavailable_is_tried_again(plane: Plane, session: Session, code: str) -> None:
    plane.on(ME, Refusal(code, status=500))
    with auth_metadata(("authorization", "a")), pytest.raises(errors.FlyteError) as caught:
        await ask(session, idempotent=True)
    assert caught.value.code == code
    assert len(plane.seen) == 1


@pytest.mark.parametrize(
    "broken", [Refusal("unavailable", status=503), Raw(502, chunks=[b"bad gateway"]), Raw(hang_up=True)]
)
async def test_a_repeatable_call_is_tried_again_under_the_same_request_id(
    plane: Plane, session: Session, broken: Refusal | Raw
) -> None:
    plane.on(ME, broken, broken, echo)
    with auth_metadata(("authorization", "a")):
        assert await ask(session, deduplicated=True) == "a"
        assert await ask(session) == "a"
    ids = [seen.header("x-request-id") for seen in plane.seen]
    assert len(ids) == 4
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]


async def test_at_most_four_attempts(plane: Plane, session: Session) -> None:
    plane.on(ME, Refusal("unavailable", status=503))
    with auth_metadata(("authorization", "a")), pytest.raises(errors.UnavailableError):
        await ask(session, idempotent=True)
    assert len(plane.seen) == 4


@pytest.mark.parametrize("broken", [Refusal("unavailable", status=503), Raw(hang_up=True)])
async def test_what_may_have_happened_is_not_done_twice(
    plane: Plane, session: Session, broken: Refusal | Raw
) -> None:
    plane.on(ME, broken, echo)
    with auth_metadata(("authorization", "a")), pytest.raises(errors.UnavailableError):
        await ask(session)
    assert len(plane.seen) == 1


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        session = _init.open_session(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", api_key="k")
        with pytest.raises(errors.UnavailableError, match="cannot be reached"):
            await ask(session)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirection_is_followed(plane: Plane, session: Session, status: int) -> None:
    other = Plane()
    with serving(other) as place:
        plane.on(ME, Raw(status, {"location": f"http://{place}{ME}"}))
        with auth_metadata(("authorization", "a")), pytest.raises(errors.ServerError, match="redirection"):
            await ask(session, idempotent=True)
    assert other.seen == []
    assert len(plane.seen) == 1


async def test_another_web_server_is_told_apart(plane: Plane, session: Session) -> None:
    plane.on(ME, Raw(200, {"content-type": "text/html"}, [b"<html>"]))
    with auth_metadata(("authorization", "a")), pytest.raises(errors.ServerError, match="endpoint"):
        await ask(session)


async def test_an_answer_that_is_no_message_is_a_server_error(plane: Plane, session: Session) -> None:
    plane.on(ME, Raw(200, {"content-type": "application/proto"}, [b"\xff\xff\xff"]))
    with auth_metadata(("authorization", "a")), pytest.raises(errors.ServerError):
        await ask(session)


async def test_a_compressed_answer_is_read(plane: Plane, session: Session) -> None:
    body = gzip.compress(INFO(subject="zip").SerializeToString())
    plane.on(ME, Raw(200, {"content-type": "application/proto", "content-encoding": "gzip"}, [body]))
    with auth_metadata(("authorization", "a")):
        assert await ask(session) == "zip"


async def test_a_large_request_is_compressed(plane: Plane, session: Session) -> None:
    plane.on(ME, lambda seen: INFO(subject=seen.message(INFO).subject[:3]))
    big = INFO(subject="abc" * 50_000)
    with auth_metadata(("authorization", "a")):
        assert (await session.unary(ME, big, INFO)).subject == "abc"
    assert len(plane.seen[0].body) < 10_000


@pytest.mark.parametrize("compressed", [True, False])
async def test_answers_are_bounded(
    plane: Plane, session: Session, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    monkeypatch.setattr(_envelope, "MAX_MESSAGE_BYTES", 10_000)
    body = INFO(subject="x" * 20_000).SerializeToString()
    headers = {"content-type": "application/proto"}
    if compressed:
        body, headers["content-encoding"] = gzip.compress(body), "gzip"
    plane.on(ME, Raw(200, headers, [body]))
    with auth_metadata(("authorization", "a")), pytest.raises(errors.ServerError, match="larger"):
        await ask(session)


async def test_a_stream_that_ends_with_an_error_raises_it(plane: Plane, session: Session) -> None:
    plane.on(WATCH, Stream([details("a")], error="permission_denied"))
    with auth_metadata(("authorization", "a")):
        answers = session.stream(
            WATCH, run_service_pb2.WatchActionDetailsRequest(), run_service_pb2.WatchActionDetailsResponse
        )
        assert (await anext(answers)).details.id.name == "a"
        with pytest.raises(errors.PermissionDeniedError):
            await anext(answers)
    assert len(plane.seen) == 1


async def test_a_stream_cut_off_in_the_middle_is_unavailable_and_not_resumed(
    plane: Plane, session: Session
) -> None:
    plane.on(WATCH, Stream([details("a")], hang_up=True))
    with auth_metadata(("authorization", "a")), pytest.raises(errors.UnavailableError):
        await watch(session)
    assert len(plane.seen) == 1


async def test_a_stream_that_cannot_begin_is_tried_again_but_not_when_refused(
    plane: Plane, session: Session
) -> None:
    plane.on(WATCH, Raw(503), Stream([], error="unavailable"), Stream([details("a")]))
    with auth_metadata(("authorization", "a")):
        assert await watch(session) == ["a"]
        plane.on(WATCH, Refusal("unauthenticated", status=401))
        with pytest.raises(errors.UnauthenticatedError):
            await watch(session)
    assert len(plane.seen) == 4


async def test_a_stream_begun_as_alice_is_hers_wherever_it_is_read(plane: Plane, session: Session) -> None:
    plane.on(WATCH, Stream([details("a")]))
    with auth_metadata(("authorization", "Bearer alice")):
        answers = session.stream(
            WATCH, run_service_pb2.WatchActionDetailsRequest(), run_service_pb2.WatchActionDetailsResponse
        )
    with auth_metadata(("authorization", "Bearer bob")):
        assert len([answer async for answer in answers]) == 1
    assert plane.seen[0].header("authorization") == "Bearer alice"


def test_frames_may_be_cut_anywhere() -> None:
    packed = (
        envelope(b"one") + envelope(gzip.compress(b"two"), flags=1) + envelope(b"") + envelope(b"{}", flags=2)
    )
    for size in (1, 2, 3, 7, len(packed)):
        unwrapper = _envelope.Unwrapper()
        found = [
            data
            for start in range(0, len(packed), size)
            for data in unwrapper.feed(packed[start : start + size])
        ]
        assert found == [b"one", b"two", b""]
        assert unwrapper.ended


def test_a_frame_that_promises_too_much_is_refused() -> None:
    with pytest.raises(errors.ServerError):
        list(_envelope.Unwrapper().feed(b"\x00\xff\xff\xff\xff"))


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "http://user@h/x", "x", ""])
async def test_an_upload_goes_to_addresses_only(plane: Plane, url: str) -> None:
    with pytest.raises(errors.UploadError):
        await api_key(plane).put(url, b"data")
    assert plane.seen == []


async def test_an_upload_to_another_host_carries_nothing_of_ours(plane: Plane, session: Session) -> None:
    other = Plane()
    other.on("/bucket", Raw())
    with serving(other) as place, auth_metadata(("authorization", "a"), ("cookie", "c")):
        await session.put(f"http://{place}/bucket?sig=1", b"data")
    names = {name for name, _ in other.seen[0].headers}
    assert not names & {"authorization", "cookie", "x-request-id", "x-flyte-agent"}
    assert plane.seen == []


async def test_over_tls_an_upload_never_goes_out_in_clear() -> None:
    session = _init.open_session(endpoint="h.example", api_key="k")
    with pytest.raises(errors.UploadError, match="clear"):
        await session.put("http://other.example/x", b"data")


async def test_an_upload_reports_its_progress_and_is_tried_again(plane: Plane, session: Session) -> None:
    plane.on("/put", Raw(503), Raw(200))
    sizes: list[int] = []
    await session.put("/put", b"x" * 200_000, progress=sizes.append)
    assert sum(sizes) == 200_000
    assert len(sizes) > 1
    assert [len(seen.body) for seen in plane.seen] == [200_000] * 2


async def test_a_refused_upload_is_a_typed_error(plane: Plane, session: Session) -> None:
    plane.on("/put", Raw(400, chunks=[b"wrong digest"]))
    with pytest.raises(errors.UploadError, match="wrong digest"):
        await session.put("/put", b"data")
    assert len(plane.seen) == 1


async def test_json_requests_carry_the_caller_and_map_errors(plane: Plane, session: Session) -> None:
    plane.on("/api/keys", Raw(201, {"content-type": "application/json"}, [b'{"id": 1}']))
    with auth_metadata(("authorization", "Bearer alice")):
        assert await session.json("POST", "/api/keys", {"name": "k"}) == {"id": 1}
        plane.on("/api/keys", Raw(204))
        assert await session.json("DELETE", "/api/keys?x=1") is None
        plane.on("/api/keys", Refusal("permission_denied", status=403))
        with pytest.raises(errors.PermissionDeniedError):
            await session.json("GET", "/api/keys")
    assert [seen.header("authorization") for seen in plane.seen] == ["Bearer alice"] * 3
    assert json.loads(plane.seen[0].body) == {"name": "k"}


async def test_a10_insecure_to_another_machine_sends_the_headers_and_warns_once(plane: Plane) -> None:
    plane.on(ME, echo)
    session = _init.open_session(endpoint=plane.url, api_key="k", insecure=True)
    assert await ask(session) == "Bearer k"  # loopback: no warning
    far = _init.open_session(endpoint="h.example", api_key="k", insecure=True)
    with pytest.warns(InsecureTransportWarning, match="h.example"):
        far._headers(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (b"authorization", b"Bearer k") in far._headers(None)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_over_a_socket_the_agents_header_is_there_and_no_credential(
    tmp_path: Path, bare: pytest.MonkeyPatch, scheme: str
) -> None:
    plane = Plane()
    plane.on(ME, echo)
    plane.on("/put", Raw())
    path = tmp_path / "agent.sock"
    with serving(plane, uds=path):
        bare.setenv("_U_EP_OVERRIDE", f"{scheme}://127.0.0.1:8080")
        bare.setenv("FLYTE_AGENT_SOCKET", str(path))
        bare.setenv("RUN_NAME", "r1")
        session = _init.current_session()
        assert await ask(session) == ""
        await session.put(f"{scheme}://localhost:8080/put", b"data")
        await session.aclose()
    assert [seen.header("x-flyte-agent") for seen in plane.seen] == ["1", "1"]
    assert plane.seen[0].header("host") == "127.0.0.1:8080"
    assert plane.seen[0].header("authorization") is None


def test_each_loop_has_connections_of_its_own_and_leaves_none_open(plane: Plane) -> None:
    plane.on(ME, echo)
    session = api_key(plane)
    for _ in range(3):
        assert asyncio.run(ask(session)) == "Bearer twr_k_s"


async def test_a_cancelled_call_leaves_the_session_usable(plane: Plane, session: Session) -> None:
    release = threading.Event()

    def slow(seen: Seen) -> identity_pb2.UserInfoResponse:
        release.wait(10)
        return echo(seen)

    plane.on(ME, slow, echo)
    with auth_metadata(("authorization", "a")):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(session)
        release.set()
        assert await ask(session) == "a"


def test_fingerprints_tell_callers_apart(plane: Plane, session: Session) -> None:
    found = set()
    for pairs in (
        (("authorization", "a"),),
        (("authorization", "b"),),
        (("x-api-key", "a"),),
        (("authorization", "a"), ("cookie", "c")),
        (("authorization", "ac"), ("cookie", "c")),
    ):
        with auth_metadata(*pairs):
            found.add(session.fingerprint())
            assert session.fingerprint() == session.fingerprint()
    found.add(api_key(plane, "a").fingerprint())
    found.add(api_key(plane, "b").fingerprint())
    assert len(found) == 7

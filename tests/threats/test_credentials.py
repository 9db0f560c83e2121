"""Credentials that are forged, doubled, stolen, guessed or sent astray.

T11 to T15, T20 to T25, T28, T35 to T37.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import secrets
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from flyteidl2.workflow import run_service_pb2 as runs
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import OctKey, OKPKey, RSAKey
from tests.flyte.app.control_plane import ControlPlane, control_plane, in_thread
from tests.threats.conftest import DOMAIN, PROJECT, Lab, opened
from tests.tower_process import Tower

import flyte
import flyte.remote as remote
from flyte import errors
from flyte._config import Endpoint, Settings
from flyte.app.extras import FastAPIPassthroughAuthMiddleware
from flyte.transport.credentials import Static
from flyte.transport.session import InsecureTransportWarning, Session
from tower.identity.guesses import SOURCE

pytestmark = pytest.mark.xdist_group("threats")

USER_INFO = "auth.IdentityService/UserInfo"
PROXY_HEADERS = (
    "X-Forwarded-User",
    "x-auth-request-user",
    "X-Auth-Request-Email",
    "X-Amzn-Oidc-Identity",
    "X-Goog-Authenticated-User-Email",
    "Remote-User",
    "X-Remote-User",
    "x_forwarded_user",
    "X-Tower-User",
    "X-Flyte-Agent",
)


def everywhere(lab: Lab, headers: dict[str, str]) -> list[int]:
    """What a program gets at each door: RPC, REST, console, gateway by path and by host."""
    host = f"probe-{PROJECT}-{DOMAIN}.localhost:{httpx.URL(lab.tower.url).port}"
    proto = {"content-type": "application/proto", **headers}
    with lab.elsewhere() as client:
        return [
            client.post(f"/flyteidl2.{USER_INFO}", headers=proto).status_code,
            client.get("/api/v1/whoami", headers=headers).status_code,
            client.get("/", headers=headers).status_code,
            client.get(f"/apps/{PROJECT}/{DOMAIN}/probe/headers", headers=headers).status_code,
            client.get("/headers", headers={"host": host, **headers}).status_code,
        ]


def test_t11_proxy_headers_name_nobody(lab: Lab) -> None:
    for name in PROXY_HEADERS:
        assert everywhere(lab, {name: "admin"}) == [401, 401, 303, 401, 401], name
    told = lab.app("alice", "GET", "/headers", headers=dict.fromkeys(PROXY_HEADERS, "admin")).json()
    seen = dict(told["headers"])
    assert "admin" not in seen.values()
    who = lab.rest("alice", "GET", "/whoami", **{"x-forwarded-user": "admin", "remote-user": "admin"})
    assert who.json()["subject"] == "alice"


def signing_keys(lab: Lab) -> list[OKPKey]:
    """The server's own keys, which an attacker does not have: to be wrong in one thing at a time."""
    files = [*sorted((lab.tower.home / "signing-keys").glob("*")), lab.tower.home / "signing.key"]
    return [OKPKey.import_key(file.read_bytes()) for file in files if b"PRIVATE" in file.read_bytes()]


def signed(key: Any, header: dict[str, Any], claims: dict[str, Any]) -> str:
    content = json.dumps(claims).encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # the old name of an algorithm is what we try
        return jws.serialize_compact(header, content, key, algorithms=[header["alg"]])


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token."""
    found = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]
    return found[0], found[1]


def access_token(lab: Lab, who: str) -> str:
    """A genuine access token, by client credentials."""
    _, public, secret = lab.tower.keys[who].split("_", 2)
    form = {"grant_type": "client_credentials", "client_id": public, "client_secret": secret}
    answer = lab.client.post("/oauth2/token", data=form)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_t12_a_badly_signed_token_names_nobody(lab: Lab) -> None:
    good = access_token(lab, "alice")
    assert everywhere(lab, lab.bearer(good)) == [200] * 5
    header, claims = parts(good)
    head, body, signature = good.split(".")
    keys = {key.thumbprint(): key for key in signing_keys(lab)}
    ours = keys[header["kid"]]
    public = ours.as_pem(private=False)
    mine, rsa = OKPKey.generate_key("Ed25519"), RSAKey.generate_key(2048)
    none = b64(json.dumps({**header, "alg": "none"}).encode())
    mac = b64(
        hmac.digest(
            public, f"{b64(json.dumps({**header, 'alg': 'HS256'}).encode())}.{body}".encode(), "sha256"
        )
    )
    raw = b64(hmac.digest(ours.as_dict(private=False)["x"].encode(), f"{head}.{body}".encode(), "sha256"))
    bad = {
        "alg none": f"{none}.{body}.",
        "alg none with the signature": f"{none}.{body}.{signature}",
        "no signature": f"{head}.{body}.",
        "HS256 with the public key": f"{b64(json.dumps({**header, 'alg': 'HS256'}).encode())}.{body}.{mac}",
        "a MAC under our header": f"{head}.{body}.{raw}",
        "another key": signed(mine, {**header}, claims),
        "another key with its own kid": signed(mine, {**header, "kid": mine.thumbprint()}, claims),
        "the key in the header": signed(mine, {**header, "jwk": mine.as_dict(private=False)}, claims),
        "a key by URL": signed(ours, {**header, "jku": f"{lab.tower.url}/oauth2/jwks"}, claims),
        "a path as kid": signed(ours, {**header, "kid": "../../dev/null"}, claims),
        "a list as kid": f"{b64(json.dumps({**header, 'kid': [header['kid']]}).encode())}.{body}.{signature}",
        "no kid": signed(ours, {k: v for k, v in header.items() if k != "kid"}, claims),
        "RS256": signed(rsa, {**header, "alg": "RS256"}, claims),
        "HS256": signed(OctKey.import_key(b"0" * 32), {**header, "alg": "HS256"}, claims),
        "EdDSA": signed(ours, {**header, "alg": "EdDSA"}, claims),
        "critical": f"{b64(json.dumps({**header, 'crit': ['exp']}).encode())}.{body}.{signature}",
        "another payload": f"{head}.{b64(json.dumps({**claims, 'sub': 'admin'}).encode())}.{signature}",
        "a cut signature": good[:-4],
        "four parts": f"{good}.x",
        "padding": f"{head}=.{body}.{signature}",
    }
    for name, token in bad.items():
        assert set(everywhere(lab, lab.bearer(token))) <= {401, 303}, name
        assert lab.rest(token, "GET", "/whoami").status_code == 401, name


def test_t13_a_token_is_good_for_what_it_was_made_for(secure: Lab) -> None:
    """Type by door, over TLS where an app token is a bearer; and every claim that is wrong by itself."""
    good = access_token(secure, "alice")
    header, claims = parts(good)
    ours = next(key for key in signing_keys(secure) if key.thumbprint() == header["kid"])
    now = int(time.time())
    wrong = {
        "expired": {"exp": now - 1},
        "of tomorrow": {"iat": now + 86400, "exp": now + 90000},
        "another audience": {"aud": "another"},
        "a list of audiences": {"aud": ["tower", "another"]},
        "another issuer": {"iss": "https://evil.example"},
        "no holder": {"jti": "x"},
        "another subject than the key's": {"sub": "admin"},
        "an actor": {"act": {"sub": "app:a/b/c"}},
        "an app": {"app": "a/b/c"},
        "endless": {"exp": "never"},
        "true": {"exp": True},
    }
    assert secure.rest(signed(ours, header, claims), "GET", "/whoami").status_code == 200
    for name, change in wrong.items():
        token = signed(ours, header, {**claims, **change})
        assert secure.rest(token, "GET", "/whoami").status_code == 401, name
    for name in ("exp", "iss", "aud", "sub", "jti", "iat", "client_id"):
        less = {key: value for key, value in claims.items() if key != name}
        assert secure.rest(signed(ours, header, less), "GET", "/whoami").status_code == 401, name
    for typ in ("JWT", "at+JWT", "application/at+jwt", None, "dpop+jwt"):
        other = {**header, "typ": typ} if typ else {k: v for k, v in header.items() if k != "typ"}
        assert secure.rest(signed(ours, other, claims), "GET", "/whoami").status_code == 401, typ


def test_t13_no_kind_of_credential_passes_for_another(lab: Lab) -> None:
    app_token = dict(lab.app("alice", "GET", "/headers").json()["headers"])["authorization"].split()[1]
    code = lab.tower.tower("users", "link", "alice").out.strip().rpartition("/")[2]
    assert set(everywhere(lab, lab.bearer(app_token))) == {401}
    assert set(everywhere(lab, lab.bearer(code))) == {401}
    for name in ("x-api-key", "x-flyte-token"):
        assert set(everywhere(lab, {name: access_token(lab, "alice")})) == {401}
        assert set(everywhere(lab, {name: app_token})) == {401}
    with httpx.Client(base_url=lab.tower.url, trust_env=False, timeout=60.0) as browser:
        answer = browser.get(f"/signin/{code}")
        session = answer.cookies["tower_session"]
    assert set(everywhere(lab, lab.bearer(session))) == {401}
    assert everywhere(lab, {"cookie": f"tower_session={lab.tower.keys['alice']}"})[1] == 401
    assert everywhere(lab, {"cookie": f"tower_session={session}"})[:3] == [200, 200, 200]
    assert everywhere(lab, {"cookie": f"tower_session={session}"})[3:] == [401, 401]


def test_t14_two_installations_share_nothing(plain: Lab, secure: Lab, tmp_path: Path) -> None:
    homes = [plain.tower.home, secure.tower.home]
    for name in ("admin-key", "signing.key"):
        texts = [(home / name).read_text() for home in homes]
        assert texts[0] != texts[1]
        assert all((home / name).stat().st_mode & 0o077 == 0 for home in homes)
    assert secure.rest(plain.admin_key, "GET", "/whoami").status_code == 401
    for guess in ("admin", "flyte", "foobar", "password", "Bearer", "twr_", "null", "undefined"):
        shown = {"authorization": f"Bearer {guess}"}
        assert plain.client.get("/api/v1/whoami", headers=shown).status_code == 401, guess
    with Tower.started(tmp_path / "fresh") as third:
        for fresh in opened(third):
            assert [user["name"] for user in fresh.rest("admin", "GET", "/users").json()["users"]] == [
                "admin"
            ]
            assert fresh.rest(plain.admin_key, "GET", "/whoami").status_code == 401


def test_t15_an_app_harvests_nothing_of_use(lab: Lab) -> None:
    """The token is good on the app's own socket, and nowhere else: not at another app, not at the front."""
    token = dict(
        lab.app("alice", "GET", "/headers", headers={"x-api-key": lab.tower.keys["alice"]}).json()["headers"]
    )
    assert lab.tower.keys["alice"] not in str(token)
    stolen = token["authorization"]
    code = f"""
        import os, httpcore
        def main():
            out = []
            for value in ({stolen!r}, request.headers["authorization"]):
                with httpcore.ConnectionPool(uds=os.environ["FLYTE_AGENT_SOCKET"]) as pool:
                    headers = [("x-flyte-agent", "1"), ("authorization", value)]
                    out.append(pool.request("GET", "http://x/api/v1/whoami", headers=headers).status)
            return out
    """
    assert lab.inside_app("bob", code, name="probe") == [200, 200]
    assert lab.inside_app("bob", code, name="other") == [401, 200]
    assert set(everywhere(lab, {"authorization": stolen})) == {401}


def test_t20_two_people_in_one_request_are_nobody(lab: Lab) -> None:
    for extra in ({"x-api-key": lab.tower.keys["bob"]}, {"x-flyte-token": lab.tower.keys["bob"]}):
        assert set(everywhere(lab, {**lab.bearer("alice"), **extra})) == {401}
    assert everywhere(lab, {**lab.bearer("alice"), "x-api-key": lab.tower.keys["alice"]}) == [200] * 5
    told = [each["detail"] for each in lab.audit(event="auth.refuse") if each["subject"] == "alice"]
    assert {each["door"] for each in told} == {"rpc", "rest", "console", "gateway"}  # the others are counted
    assert all(
        ["=alice" in who or "=bob" in who for who in each["credentials"]] == [True] * 2 for each in told
    )


async def raw(lab: Lab, lines: list[str], body: bytes = b"") -> int:
    """Send bytes as they are; the status of the first answer, 0 when the connection was closed."""
    url = httpx.URL(lab.tower.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        text = "\r\n".join([*lines, "connection: close", "", ""])
        writer.write(text.encode("latin-1") + body)
        line = await asyncio.wait_for(reader.readline(), 60)
        return int(line.split()[1]) if line else 0
    finally:
        writer.close()


TWO_READINGS = (
    ["{alice}", "{bob}"],
    ["{alice}", "{alice}"],
    ["{alice}", "content-length: 2", "transfer-encoding: chunked"],
    ["{alice}", "content-length: 2", "content-length: 3"],
    ["{alice}", "transfer-encoding: xchunked"],
    ["{alice}", "transfer-encoding: chunked, identity"],
    ["{alice}", "transfer-encoding : chunked"],
    ["{alice}", "content-length: +2"],
    ["authorization: Bearer\r\n {key}"],
    ["authorization: Bearer {key}, Bearer x"],
    ["{alice}", "x: y\r\n folded"],
    ["{alice}", "host: elsewhere"],
    ["authorization\x00: Bearer {key}"],
)


async def test_t21_no_door_reads_a_request_in_two_ways(lab: Lab) -> None:
    url = httpx.URL(lab.tower.url)
    doors = (
        "/api/v1/keys",
        f"/flyteidl2.{USER_INFO}",
        f"/apps/{PROJECT}/{DOMAIN}/probe/headers",
        "/oauth2/userinfo",
    )
    alice, bob = (f"authorization: Bearer {lab.tower.keys[who]}" for who in ("alice", "bob"))
    for path in doors:
        for lines in TWO_READINGS:
            filled = [line.format(alice=alice, bob=bob, key=lab.tower.keys["alice"]) for line in lines]
            head = [
                f"POST {path} HTTP/1.1",
                f"host: {url.host}:{url.port}",
                "content-type: application/proto",
            ]
            status = await raw(lab, [*head, *filled], b"0\r\n\r\n")
            assert status in {0, 400, 401, 405}, (path, lines, status)


def test_t22_callers_never_mix(lab: Lab) -> None:
    """Two people at once through handlers of every kind of one running app; raw threads speak for nobody."""
    people = ["alice", "bob"] * 60
    kinds = ("async", "sync", "stream", "background", "thread")
    asked = [(person, kinds[number % len(kinds)]) for number, person in enumerate(people)]

    def ask(each: tuple[str, str]) -> str:
        return lab.app(each[0], "GET", f"/who/{each[1]}").text

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, asked))
    for (person, kind), answer in zip(asked, answers, strict=True):
        expected = {"stream": f"{person}\n" * 2, "thread": '"MissingCallerError"'}.get(kind, f'"{person}"')
        assert answer == expected, (person, kind)
    assert "mixed" not in lab.app("alice", "GET", "/startup").json()


def test_t23_what_one_caller_looked_up_serves_no_other(lab: Lab) -> None:
    look = """
        import flyte.remote as remote
        async def main():
            try:
                task = await remote.Task.get(name="lab.attack").fetch.aio()
                return [(await remote.User.get.aio()).subject(), task.name]
            except Exception as error:
                return [(await remote.User.get.aio()).subject(), type(error).__name__]
    """
    lab.rest(
        "admin", "POST", "/bindings", {"user": "dave", "role": "viewer", "project": PROJECT, "domain": DOMAIN}
    )
    try:
        assert lab.inside_app("dave", look) == ["dave", "lab.attack"]
        assert lab.inside_app("alice", look) == ["alice", "lab.attack"]
    finally:
        where = f"user=dave&role=viewer&project={PROJECT}&domain={DOMAIN}"
        assert lab.rest("admin", "DELETE", f"/bindings?{where}").status_code == 204
    assert lab.app("dave", "POST", "/attack", content=b"def main(): pass").status_code == 404
    assert lab.inside_app("alice", look) == ["alice", "lab.attack"]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    """A control plane that writes down every request."""
    with control_plane() as running:
        yield running


async def test_t24_without_a_caller_nothing_is_sent(lab: Lab, plane: ControlPlane) -> None:
    assert lab.app("alice", "GET", "/health").json() == {"refused": "MissingCallerError"}
    assert lab.app("alice", "GET", "/startup").json()[0] == "MissingCallerError"
    session = await flyte.init_passthrough.aio(endpoint=plane.url, project="p", domain="d")
    del session
    with pytest.raises(errors.MissingCallerError):
        await remote.User.get.aio()
    nothing: Any = None
    with pytest.raises(errors.MissingCallerError), remote.auth_metadata(("authorization", nothing)):
        pass
    assert plane.asked == []
    with remote.auth_metadata(("authorization", "Bearer alice")):
        assert (await remote.User.get.aio()).subject() == "alice"
    with pytest.raises(errors.MissingCallerError):
        await remote.User.get.aio()
    assert plane.callers() == ["alice"]


async def test_t25_plain_http_is_a_choice(plane: ControlPlane) -> None:
    for host in ("http://tower.example", "http://192.0.2.1:8080", "http://127.0.0.1.nip.example"):
        with pytest.raises(errors.InitializationError):
            await flyte.init_passthrough.aio(endpoint=host, project="p", domain="d")
    assert Endpoint.parse("tower.example").scheme == "https"
    assert Endpoint.parse("dns:///127.0.0.1:1").scheme == "https"
    await flyte.init_passthrough.aio(endpoint=plane.url, project="p", domain="d")
    with remote.auth_metadata(("authorization", "Bearer alice")):
        assert (await remote.User.get.aio()).subject() == "alice"
    shouting = Session(Settings(endpoint=Endpoint.parse("192.0.2.1:9", insecure=True)), Static("twr_x"))
    with pytest.warns(InsecureTransportWarning, match="in clear"):
        assert shouting._headers(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Session(Settings(endpoint=Endpoint.parse(plane.url)), Static("twr_x"))._headers(None)


def _extractors() -> dict[str, Any]:
    async def nothing(request: Any) -> None:
        return None

    async def broken(request: Any) -> None:
        raise RuntimeError("secret")

    class Partial:
        def __call__(self, request: Any) -> Any:
            return ["authorization", "Bearer alice"]

    return {
        "a coroutine function": nothing,
        "an exception": broken,
        "a list": Partial(),
        "empty": lambda request: ("authorization", ""),
        "blank": lambda request: ("authorization", "  "),
        "scheme only": lambda request: ("authorization", "Bearer"),
        "a forbidden header": lambda request: ("x-forwarded-user", "alice"),
        "host": lambda request: ("host", "alice"),
        "true": lambda request: True,
        "text": lambda request: "authorization",
        "three": lambda request: ("authorization", "Bearer alice", "x"),
        "bytes": lambda request: (b"authorization", b"Bearer alice"),
        "none inside": lambda request: ("authorization", None),
        "a line break": lambda request: ("authorization", "Bearer a\r\nx: y"),
        "exits": lambda request: (_ for _ in ()).throw(KeyError("x")),
    }


@pytest.mark.parametrize("name", sorted(_extractors()))
async def test_t28_a_faulty_extractor_lets_nobody_in(name: str) -> None:
    app = FastAPI()
    app.add_middleware(FastAPIPassthroughAuthMiddleware, header_extractors=[_extractors()[name]])
    reached = []
    app.get("/")(lambda: reached.append(1))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        answer = await client.get("/", headers={"authorization": "Bearer alice"})
    assert (answer.status_code, reached) == (401, [])
    assert "secret" not in answer.text


def test_t35_a_key_is_never_above_its_maker(lab: Lab) -> None:
    def made(who: str, **fields: Any) -> httpx.Response:
        return lab.rest(who, "POST", "/keys", {"name": f"k-{secrets.token_hex(6)}", **fields})

    carol = made("carol", role="admin").json()["key"]
    assert lab.start(carol, "def main(): pass").status_code == 403
    assert lab.rest(carol, "GET", "/users").status_code == 403
    assert made("carol", user="admin").status_code == 403
    narrow = made("admin", role="viewer", project=PROJECT).json()["key"]
    assert made(narrow).status_code == 403
    assert lab.rest(narrow, "GET", "/audit").status_code == 403
    short = made("admin", expires_in=600).json()
    ends = short["expires_at"]
    assert made(short["key"], expires_in="30d").json()["expires_at"] == ends
    _, public, secret = short["key"].split("_", 2)
    form = {"grant_type": "client_credentials", "client_id": public, "client_secret": secret}
    token = lab.client.post("/oauth2/token", data=form).json()["access_token"]
    assert made(token).json()["expires_at"] == ends
    lab.tower.tower("users", "add", "robot", "--service", "--role", "contributor", "--project", PROJECT)
    key = lab.tower.new_key("robot-key", "robot")
    assert lab.start(key, "def main(): pass").status_code == 200
    lab.tower.tower("users", "revoke", "robot", "--role", "contributor", "--project", PROJECT)
    assert lab.start(key, "def main(): pass").status_code == 404


def test_t36_guessing_keys_is_slowed_and_tells_nothing(lab: Lab) -> None:
    """Real ids with wrong secrets look like ids that nobody has, in bytes and roughly in time."""
    public = lab.tower.keys["bob"].split("_")[1]

    def guess(known: bool) -> tuple[float, tuple[int, str]]:
        name = (
            public
            if known
            else "".join(secrets.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(12))
        )
        key = f"twr_{name}_{secrets.token_urlsafe(32)}"
        began = time.perf_counter()
        answer = lab.rest(key, "GET", "/whoami", **{"x-request-id": "same"})
        return time.perf_counter() - began, (answer.status_code, answer.text)

    samples = [(known, *guess(known)) for _ in range(20) for known in (True, False)]
    assert len({what for _, _, what in samples}) == 1
    times = [
        statistics.median(seconds for known, seconds, _ in samples if known is wanted)
        for wanted in (True, False)
    ]
    assert max(times) < 10 * min(times) + 0.005
    app = f"/apps/{PROJECT}/{DOMAIN}/probe/headers"
    with lab.elsewhere() as guesser:
        statuses: Counter[int] = Counter()
        for number in range(SOURCE.burst * 20):  # a busy machine is given some back meanwhile
            key = {"authorization": f"Bearer twr_{number:012d}_{'A' * 43}"}
            statuses[guesser.get(app, headers=key).status_code] += 1
            if statuses[429] > 20:
                break
    assert set(statuses) == {401, 429}
    assert statuses[401] >= SOURCE.burst
    assert lab.app("alice", "GET", "/who/async").status_code == 200


ENDPOINTS = (
    "http://127.0.0.1#.tower.example",
    "https://tower.example#@evil.example",
    "https://good.example@evil.example",
    "https://good.example:443@evil.example",
    "good.example/../evil.example",
    "https://good.example\\@evil.example",
    "https://good.example?.evil.example",
    "https://good.example%2eevil.example",
    "https://good.example\r\nx: y",
    "https://good.ex\tample",
    "ftp://good.example",
    "file:///etc/passwd",
    "https://[::1",
    "https://good.example:99999",
    "https://good.example:0",
    "https://g\u043e\u043ed.example",
    "javascript://good.example",
    "",
)


async def test_t37_no_token_leaves_for_another_host(plane: ControlPlane, lab: Lab) -> None:
    for text in ENDPOINTS:
        with pytest.raises(errors.InitializationError):
            Endpoint.parse(text)
    requests: list[str] = []

    async def redirecting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        requests.append(scope["path"])
        headers = [(b"location", f"{plane.url}{scope['path']}".encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 307, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    with in_thread(redirecting, lifespan="off") as place:
        await flyte.init_passthrough.aio(endpoint=f"http://{place}", project="p", domain="d")
        with remote.auth_metadata(("authorization", "Bearer alice")), pytest.raises(errors.FlyteError):
            await remote.User.get.aio()
    assert requests
    assert plane.asked == []
    for host in ("evil.example", f"evil.example#{httpx.URL(lab.tower.url).host}"):
        answer = lab.rest(
            "alice", "POST", "/keys", {"name": f"k-{secrets.token_hex(4)}", "format": "flyte"}, host=host
        )
        wrapped = base64.b64decode(answer.json()["key"]) if answer.status_code == 201 else b""
        assert b"evil" not in wrapped
        metadata = lab.rpc(None, "auth.AuthMetadataService/GetOAuth2Metadata", host=host)
        assert b"evil" not in metadata.content


def test_a_request_id_is_ones_own(lab: Lab) -> None:
    """The same id of two people makes two runs; of one person with other content it is refused."""
    shared = f"shared-{secrets.token_hex(8)}"
    first = lab.start("alice", "def main(): return 1", request_id=shared)
    second = lab.start("bob", "def main(): return 2", request_id=shared)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content != second.content
    assert lab.start("alice", "def main(): return 3", request_id=shared).status_code == 409
    again = lab.start("alice", "def main(): return 1", request_id=shared)
    names = {
        runs.CreateRunResponse.FromString(each.content).run.action.id.run.name for each in (first, again)
    }
    assert len(names) == 1


def test_the_home_of_a_tower_is_private(plain: Lab) -> None:
    home: Path = plain.tower.home
    open_to_others = [path for path in home.iterdir() if path.is_file() and path.stat().st_mode & 0o007]
    assert home.stat().st_mode & 0o077 == 0 or open_to_others == []

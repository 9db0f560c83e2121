"""Browsers, their cookies and pages, and ways around the gateway: T18, T19, T26, T27, T41, T42, T49."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import secrets
from collections import Counter
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab
from tests.threats.test_credentials import raw
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = pytest.mark.xdist_group("threats")

CALLBACK = "http://127.0.0.1:49152/callback"
EVIL = ("https://evil.example", "null", "http://127.0.0.1", "http://localhost:1")


class Browser(httpx.Client):
    """A browser signed in to the console, with the cookies that this gives."""

    def __init__(self, lab: Lab, who: str) -> None:
        super().__init__(base_url=lab.tower.url, trust_env=False, transport=lab.client._transport)
        self.home = lab.tower.url
        self.who = who
        link = lab.tower.tower("users", "link", who).out.strip()
        assert self.get(link, headers={"sec-fetch-site": "none"}).status_code == 303

    def close(self) -> None:
        """Leave the shared transport open."""

    def app(self, lab: Lab, name: str = "probe") -> str:
        """Sign in to an app's own host by the way over the console; the host."""
        host = f"{name}-{PROJECT}-{DOMAIN}.localhost:{urlsplit(self.home).port}"
        page = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        answer = self.get(f"http://{host}/headers", headers=page)
        while answer.is_redirect:
            answer = self.get(answer.url.join(answer.headers["location"]), headers=page)
        assert answer.status_code == 200, answer.text
        return host


@pytest.fixture(scope="module")
def alice(lab: Lab) -> Browser:
    """Alice's browser."""
    return Browser(lab, "alice")


def test_t18_a_foreign_page_changes_nothing(lab: Lab, alice: Browser) -> None:
    host = alice.app(lab)
    attacks: list[dict[str, str]] = [{}]
    attacks += [{"origin": origin} for origin in (*EVIL, f"http://other-{PROJECT}-{DOMAIN}.localhost")]
    attacks += [{"origin": f"http://{host}", "sec-fetch-site": site} for site in ("cross-site", "same-site")]
    for headers in attacks:
        assert alice.post(f"http://{host}/headers", headers=headers).status_code == 403, headers
        assert alice.post("/signout", headers=headers).status_code == 403, headers
        form = {**headers, "content-type": "application/x-www-form-urlencoded"}
        assert alice.post("/device", content=b"code=AAAA-AAAA&answer=allow", headers=form).status_code == 403
    for site in ("cross-site", "same-site"):
        made = alice.post("/api/v1/keys", json={"name": "by-csrf"}, headers={"sec-fetch-site": site})
        assert made.status_code == 401
    own = {"origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    assert alice.post(f"http://{host}/headers", headers=own).status_code == 200
    assert "by-csrf" not in lab.rest("admin", "GET", "/keys").text


def test_t18_a_form_of_another_site_makes_no_key(lab: Lab, alice: Browser) -> None:
    """Also from a browser that sends no fetch metadata: a form cannot send JSON, nor Connect."""
    body = b'{"name": "by-form", "x": "="}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        foreign = {"content-type": kind, "origin": "https://evil.example"}
        assert alice.post("/api/v1/keys", content=body, headers=foreign).status_code in {400, 401, 403, 415}
        rpc = alice.post("/flyteidl2.workflow.RunService/CreateRun", content=b"", headers=foreign)
        assert rpc.status_code in {401, 403, 415}
    assert "by-form" not in lab.rest("admin", "GET", "/keys").text


def test_t19_no_app_plants_a_session(lab: Lab, alice: Browser) -> None:
    host = alice.app(lab)
    answer = alice.get(f"http://{host}/page")
    assert "planted" not in str(answer.headers.get_list("set-cookie"))
    by_path = lab.app("alice", "GET", "/page")
    assert "set-cookie" not in by_path.headers
    assert "clear-site-data" not in by_path.headers
    assert any("sandbox" in value for value in by_path.headers.get_list("content-security-policy"))
    mine = next(each.value for each in alice.cookies.jar if each.domain == "127.0.0.1")
    other = f"other-{PROJECT}-{DOMAIN}.localhost:{urlsplit(alice.home).port}"
    console = {"cookie": f"tower_session={mine}"}
    assert lab.client.get(f"http://{other}/headers", headers=console).status_code == 401
    assert lab.client.get("/", headers=console).status_code == 200
    apps = next(each.value for each in alice.cookies.jar if each.domain.startswith("probe-"))
    assert lab.client.get("/", headers={"cookie": f"tower_session={apps}"}).status_code == 303
    tossed = {"cookie": f"tower_session={secrets.token_urlsafe(32)}; tower_session={mine}"}
    assert lab.client.get("/api/v1/whoami", headers=tossed).status_code == 401


def address(lab: Lab, path: str, host: str = "") -> str:
    return lab.tower.url.replace("http", "ws", 1) + f"/apps/{PROJECT}/{DOMAIN}/probe{path}"


async def test_t26_a_websocket_is_its_callers_while_they_may(lab: Lab, alice: Browser) -> None:
    url = address(lab, "/socket")
    for headers in ({}, {"x-forwarded-user": "alice"}, lab.bearer("twr_" + "a" * 12 + "_" + "A" * 43)):
        with pytest.raises(InvalidStatus):
            await connect(url, additional_headers=headers, proxy=None)
    host = alice.app(lab)
    session = next(each.value for each in alice.cookies.jar if each.domain.startswith("probe-"))
    cookie = {"cookie": f"tower_session={session}", "host": host}
    for origin in EVIL:
        with pytest.raises(InvalidStatus):
            await connect(
                f"ws://{host.replace('probe', 'probe')}/socket",
                host="127.0.0.1",
                port=urlsplit(lab.tower.url).port,
                origin=origin,  # type: ignore[arg-type]
                additional_headers={"cookie": cookie["cookie"]},
                proxy=None,
            )
    key = lab.tower.new_key(f"socket-{secrets.token_hex(4)}", "bob")
    async with connect(url, additional_headers=lab.bearer(key), proxy=None) as socket:
        assert await socket.recv() == "bob"
        name = next(
            each["name"]
            for each in lab.rest("admin", "GET", "/keys?user=bob").json()["keys"]
            if each["id"] == key.split("_")[1]
        )
        assert lab.rest("admin", "DELETE", f"/keys/{name}").status_code == 200
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize(
    "path",
    ["/api/v1/whoami", "/flyteidl2.auth.IdentityService/UserInfo", "/data/download/x", "/", "/oauth2/token"],
)
async def test_t26_no_other_door_speaks_websocket(lab: Lab, path: str) -> None:
    url = lab.tower.url.replace("http", "ws", 1) + path
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, additional_headers=lab.bearer("alice"), proxy=None)
    assert refused.value.response.status_code == 403
    assert "Traceback" not in lab.tower.log


async def test_t27_no_spelling_of_a_public_path_opens_another(lab: Lab) -> None:
    """Through gateway and middleware of a running app: nobody reaches a handler, whatever the path."""
    url = httpx.URL(lab.tower.url)
    chance = random.Random(2727)
    pieces = [
        "health",
        "who/async",
        "/",
        "//",
        "/./",
        "/../",
        "%2f",
        "%2e%2e",
        "\\",
        "%5c",
        ";x",
        "%00",
        "%",
        "%68",
        "?",
        "#",
        "%23",
        "%252f",
        "..;",
        "\t",
        "é",
        "HEALTH",
        " ",
    ]
    statuses: Counter[int] = Counter()
    for _ in range(300):
        path = "/" + "".join(chance.choice(pieces) for _ in range(chance.randint(1, 5)))
        head = f"GET /apps/{PROJECT}/{DOMAIN}/probe{path} HTTP/1.1"
        statuses[await raw(lab, [head, f"host: {url.host}:{url.port}"])] += 1
    assert set(statuses) <= {0, 400, 401, 404, 303}
    assert statuses[401] > 20
    key = f"authorization: Bearer {lab.tower.keys['alice']}"
    for path in ("/health/", "/HEALTH", "//health", "/x/../health", "/%2e/health", "/health;x", "/health%2f"):
        head = f"GET /apps/{PROJECT}/{DOMAIN}/probe{path} HTTP/1.1"
        assert await raw(lab, [head, f"host: {url.host}:{url.port}", key]) in {307, 400, 404}, path
    assert lab.app("alice", "GET", "/%68ealth").json() == {"refused": "MissingCallerError"}


def challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def question(**changes: str) -> str:
    fields = {
        "response_type": "code",
        "client_id": "flyte",
        "redirect_uri": CALLBACK,
        "scope": "all",
        "state": "st",
        "code_challenge": challenge("v" * 50),
        "code_challenge_method": "S256",
        **changes,
    }
    return "/oauth2/authorize?" + "&".join(
        f"{name}={quote(value, safe='')}" for name, value in fields.items() if value
    )


TARGETS = (
    "https://evil.example/callback",
    "http://evil.example/callback",
    "http://127.0.0.1.evil.example/callback",
    "http://127.0.0.1@evil.example/callback",
    "http://127.0.0.1:1@evil.example/callback",
    "http://127.0.0.1:49152/callback#x",
    "http://127.0.0.1:49152/callback?x=y",
    "http://127.0.0.1:49152/callback/../evil",
    "http://127.0.0.1:49152/Callback",
    "http://127.0.0.1:49152\\evil.example/callback",
    "https://127.0.0.1:49152/callback",
    "//evil.example/callback",
    "javascript:alert(1)",
    "http://127.1:49152/callback",
    "http://0x7f000001:49152/callback",
    "http://[::ffff:127.0.0.1]:49152/callback",
    "",
)


def redeem(lab: Lab, code: str, **changes: str) -> httpx.Response:
    fields = {
        "grant_type": "authorization_code",
        "client_id": "flyte",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": "v" * 50,
        **changes,
    }
    return lab.client.post("/oauth2/token", data=fields)


def allowed(alice: Browser, **changes: str) -> str:
    """The code that Alice's yes gives."""
    own = {"origin": alice.home, "content-type": "application/x-www-form-urlencoded"}
    answer = alice.post(question(**changes), content=b"answer=allow", headers=own)
    assert answer.status_code == 303, answer.text
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


def test_t41_codes_go_nowhere_else(lab: Lab, alice: Browser) -> None:
    own = {"origin": alice.home, "content-type": "application/x-www-form-urlencoded"}
    for target in TARGETS:
        for answer in (
            alice.get(question(redirect_uri=target)),
            alice.post(question(redirect_uri=target), content=b"answer=allow", headers=own),
        ):
            assert answer.status_code == 400, target
            assert "location" not in answer.headers
    for missing in (
        {"code_challenge": ""},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": ""},
    ):
        answer = alice.get(question(**missing))
        assert "error=invalid_request" in answer.headers["location"]
    assert (
        alice.post(question(), content=b"answer=allow", headers={**own, "origin": EVIL[0]}).status_code == 403
    )
    page = alice.get(question())
    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


def test_t41_a_stolen_code_is_worth_nothing(lab: Lab, alice: Browser) -> None:
    code = allowed(alice)
    assert redeem(lab, code, code_verifier="w" * 50).status_code == 400
    code = allowed(alice)
    assert redeem(lab, code, redirect_uri="http://127.0.0.1:49153/callback").status_code == 400
    code = allowed(alice)
    good = redeem(lab, code)
    assert good.status_code == 200
    token = good.json()["access_token"]
    assert lab.rest(token, "GET", "/whoami").json()["subject"] == "alice"
    assert redeem(lab, code).status_code == 400  # a second use shows a theft: what came of the first one ends
    assert lab.rest(token, "GET", "/whoami").status_code == 401
    code = allowed(alice)
    first = redeem(lab, code).json()["refresh_token"]
    fields = {"grant_type": "refresh_token", "client_id": "flyte", "refresh_token": first}
    second = lab.client.post("/oauth2/token", data=fields).json()
    again = {**fields, "refresh_token": second["refresh_token"]}
    third = lab.client.post("/oauth2/token", data=again).json()
    assert lab.rest(third["access_token"], "GET", "/whoami").status_code == 200
    assert lab.client.post("/oauth2/token", data=fields).status_code == 400
    assert lab.rest(third["access_token"], "GET", "/whoami").status_code == 401


def test_t41_a_device_is_shown_before_it_gets_anything(lab: Lab, alice: Browser) -> None:
    asked = lab.client.post("/oauth2/device", data={"client_id": "flyte", "device_name": "<b>tv</b>"}).json()
    poll = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": "flyte",
        "device_code": asked["device_code"],
    }
    page = alice.get(asked["verification_uri_complete"])
    assert "127.0.0.1" in page.text
    assert "<b>tv</b>" not in page.text
    assert lab.client.post("/oauth2/token", data=poll).json()["error"] == "authorization_pending"
    body = f"code={asked['user_code']}&answer=allow".encode()
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert alice.post("/device", content=body, headers={**form, "origin": EVIL[0]}).status_code == 403
    assert lab.client.post("/oauth2/token", data=poll).json()["error"] in {
        "authorization_pending",
        "slow_down",
    }
    guesses = {alice.get(f"/device?code={secrets.token_hex(4)}").status_code for _ in range(40)}
    assert 429 in guesses


NEXT = (
    "https://evil.example",
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "javascript:alert(1)",
    "/%0d%0aset-cookie:x",
    "http:evil.example",
    "/\r\nlocation: //evil.example",
    " //evil.example",
)


def test_t41_signing_in_leads_to_no_other_place(lab: Lab, alice: Browser) -> None:
    secret = f"a long and odd password {secrets.token_hex(4)}"
    assert lab.rest("admin", "PUT", "/users/carol/password", {"password": secret}).status_code == 204
    own = {"origin": lab.tower.url, "content-type": "application/x-www-form-urlencoded"}
    for target in NEXT:
        asked = lab.client.get("/login", params={"next": target})
        assert "evil.example" not in asked.text.replace("&#", ""), target
        if target not in NEXT[:4]:  # each sign-in costs a slow hash
            continue
        body = f"name=carol&password={quote(secret)}&next={quote(target, safe='')}".encode()
        done = lab.client.post("/login", content=body, headers=own)
        assert "evil" not in done.headers.get("location", "") + done.text, target
        lab.client.cookies.clear()
    page = {"accept": "text/html", "sec-fetch-mode": "navigate"}
    for host in ("evil.example", "evil.localhost", "probe.evil.example", f"x@{PROJECT}.localhost"):
        assert alice.get("/apps-login", params={"host": host, "next": "/"}, headers=page).status_code == 404
    real = f"probe-{PROJECT}-{DOMAIN}.localhost:{urlsplit(lab.tower.url).port}"
    for target in NEXT:
        answer = alice.get("/apps-login", params={"host": real, "next": target, "state": "s"}, headers=page)
        location = urlsplit(answer.headers["location"])
        assert location.netloc == real
        stolen = lab.client.get(answer.headers["location"])
        assert stolen.status_code == 403  # begun in no browser


def test_t41_guessing_passwords_waits(lab: Lab) -> None:
    own = {"origin": lab.tower.url, "content-type": "application/x-www-form-urlencoded"}
    answers = {}
    for name in ("dave", "nobody-at-all"):
        texts = [f"name={name}&password=x{number}".encode() for number in range(11)]
        tries = [lab.client.post("/login", content=text, headers=own) for text in texts]
        answers[name] = [each.status_code for each in tries]
        assert answers[name][0] == 401
        assert answers[name][-1] == 429
    assert answers["dave"] == answers["nobody-at-all"]


def test_t42_there_is_no_way_around_the_gateway(lab: Lab) -> None:
    """No port; and on the private socket nobody is anybody by what a header says."""
    told = lab.inside_app(
        "alice",
        """
        import os, httpcore, glob
        def main():
            inodes = set()
            for link in glob.glob("/proc/self/fd/*"):
                try: inodes.add(os.readlink(link))
                except OSError: pass
            listening = []
            for name in ("tcp", "tcp6", "udp"):
                for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
                    fields = line.split()
                    if f"socket:[{fields[9]}]" in inodes and fields[3] == "0A": listening.append(fields[1])
            socket = os.environ["FLYTE_APP_SOCKET"]
            kind = oct(os.stat(os.path.dirname(socket)).st_mode & 0o777)
            return [listening, kind, socket]
        """,
    )
    assert told[:2] == [[], "0o700"]
    with httpx.Client(transport=httpx.HTTPTransport(uds=told[2]), trust_env=False, timeout=60.0) as direct:
        forged: list[dict[str, str]] = [
            {},
            {"x-forwarded-user": "admin"},
            {"authorization": "Bearer x"},
            lab.bearer("twr_" + "a" * 12 + "_" + "A" * 43),
            {"authorization": f"Bearer {secrets.token_urlsafe(20)}.{secrets.token_urlsafe(20)}.x"},
            {"cookie": f"tower_session={secrets.token_urlsafe(32)}"},
        ]
        for headers in forged:
            assert direct.get("http://probe/who/async", headers=headers).status_code == 401, headers


def test_t49_no_origin_gets_leave(lab: Lab, alice: Browser) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    host = alice.app(lab)
    for origin in EVIL:
        for url in (
            "/api/v1/keys",
            "/flyteidl2.auth.IdentityService/UserInfo",
            "/",
            "/oauth2/token",
            f"http://{host}/headers",
            f"/apps/{PROJECT}/{DOMAIN}/probe/headers",
        ):
            for answer in (
                lab.client.options(url, headers={"origin": origin, **asked}),
                lab.client.get(url, headers={"origin": origin, **lab.bearer("alice")}),
            ):
                assert not [name for name in answer.headers if name.startswith("access-control-")], url


MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_what_people_write_is_text_on_the_page(lab: Lab, alice: Browser) -> None:
    """Inputs, outputs, errors, labels and logs with markup in them, on the page and in its live parts."""
    code = f"def main():\n    print({MARKUP!r}, flush=True)\n    return {MARKUP!r}"
    for text in (code, f"def main():\n    raise RuntimeError({MARKUP!r})"):
        started = lab.start("alice", text)
        name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
        lab.wait("alice", name)
        place = f"/v2/domain/{DOMAIN}/project/{PROJECT}/runs/{name}"
        page = alice.get(place)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        live = alice.get(f"{place}/events").text
        states = [json.loads(line[6:]) for line in live.splitlines() if line.startswith('data: "')]
        assert states
        assert not [state for state in states if "<script>alert" in state or "<img" in state]
        log = alice.get(f"{place}/logs")
        assert log.headers["content-type"].startswith("text/plain")
        assert log.headers["x-content-type-options"] == "nosniff"

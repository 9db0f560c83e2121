"""A Tower with one caller of each kind, those included whose credential never held or holds no more."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import pytest
from flyteidl2.task import task_definition_pb2
from sqlalchemy import text, update
from tests.identity_world import ADMIN_SOCKET, World, app_socket
from tests.matrix_credentials import (
    API,
    FOREIGN,
    ISSUER,
    STRANGER,
    Agent,
    Headers,
    access,
    delivery,
    provider,
)
from tests.matrix_requests import FORM, WEBSOCKET, Ask, message
from tests.tower.gateway import house as apps
from tests.tower.gateway.echo import Echo
from tests.tower.identity.test_webhook_signatures import SECRET

from tower.control.grants import Download, Upload
from tower.control.privileges import FIELD, GRANTABLE
from tower.identity.attempts import Attempts
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Presented
from tower.identity.oidc import fetch
from tower.identity.principal import Kind
from tower.identity.webhooks import Scheme
from tower.identity.workload import Workload
from tower.issuers import IssuerSettings, RoleOfGroup
from tower.main import server
from tower.main.house import House, compose
from tower.policy.rulebook import Written
from tower.possession import TOKEN_HEADER, text_of
from tower.settings import Settings
from tower.states import Phase
from tower.store import schema as tables

HOST = b"127.0.0.1:8080"
CLOSED, OPEN = "flytesnacks/development/closed", "flytesnacks/development/open"
CONTENT = b"{}"
_REFUSALS = text("SELECT count(*) FROM audit WHERE event = 'access.refuse'")
_SECONDS, _STREAM_SECONDS = 30.0, 3.0
_CODE = re.compile(rb'"(?:code|error)": ?"([a-z_]+)"')
_CONSOLE = ((b"origin", b"http://" + HOST), (b"sec-fetch-site", b"same-origin"))

DEAD = (
    "anonymous",
    "disabled",
    "session of the disabled",
    "expired key of root",
    "deleted key of root",
    "disabled key of root",
    "token of an unknown issuer",
    "issuer's token for another audience",
    "issuer's token signed by another",
    "identity token of root for outside",
    "run token of root without TLS",
    "app token of root without TLS",
    "app's own socket",
    "task that has ended",
    "agent's token alone",
    "agent's token with the proof of another call",
    "delivery signed by another",
)
"""Who is nobody, at every door."""
ORDER = (
    *DEAD,
    "delivery of a third party",
    "nobody",
    "viewer",
    "limited key of root",
    "another site with root's session",
    "session of root at an app",
    "token of an issuer",
    "contributor",
    "service",
    "keeper",
    "app token of root over TLS",
    "app of root",
    "run token of root",
    "agent of a task of root",
    "task of root",
    "privileged task of root",
    "access token of root",
    "session of root",
    "root",
    "machine",
)
"""From the weakest to the strongest: what one deletes is gone for those behind it."""


def _privileged() -> task_definition_pb2.TaskSpec:
    """A task with every privilege that there is."""
    spec = task_definition_pb2.TaskSpec()
    container = spec.task_template.container
    container.image = "x"
    container.args.extend(["flyte-runtime", "task", "--module", "m", "--task", "privileged"])
    container.config.add(key=FIELD, value=json.dumps(sorted(GRANTABLE)))
    return spec


@dataclass(frozen=True)
class Caller:
    """What a caller shows: headers, a socket, or headers that are made for each call."""

    headers: Headers = ()
    workload: Workload | None = None
    secure: bool = False
    key: str = ""
    sign: Callable[[str, bytes, bytes], Headers] | None = None


class Matrix:
    """The doors of a Tower, and its callers by name."""

    def __init__(self, house: House, running: Any, processes: apps.FakeProcesses) -> None:
        self.house, self.processes = house, processes
        self.front = running.public
        self.hosted = running.public._hosted
        self.callers: dict[str, Caller] = {}
        self.known: dict[str, str] = {}
        self._location = ""

    async def people(self) -> None:
        """Everybody, and what they ask for."""
        house, callers = self.house, self.callers
        for name, role, scope in (
            ("nobody", None, "*"),
            ("viewer", "viewer", "flytesnacks"),
            ("contributor", "contributor", "flytesnacks"),
            ("keeper", "admin", "flytesnacks"),
            ("root", "admin", "*"),
            ("disabled", "admin", "*"),
        ):
            await house.identities.add_user(MACHINE, subject=name, role=role, project=scope)
        await house.identities.add_user(
            MACHINE, subject="service", kind=Kind.SERVICE, role="contributor", project="flytesnacks"
        )
        for name in ("nobody", "viewer", "contributor", "keeper", "root", "disabled", "service"):
            callers[name] = self._bearer(await self._key(name, name))
        callers["session of the disabled"] = Caller(self._cookie(await self._session("disabled")))
        await house.identities.set_disabled(MACHINE, "disabled", disabled=True)
        callers["anonymous"] = Caller()
        forbids = Written("x", 'forbid (principal == User::"nobody", action, resource is Key);')
        await house.governance.policies.put_policy(MACHINE, forbids, create=True)
        await house.apps.create(MACHINE, message("/flyteidl2.app.AppService/Create").app, request_id="q")
        await self._keys()
        self.known = {"root_key": callers["root"].key, "deleted_key": callers["deleted key of root"].key}
        await self._sessions()
        await self._apps()
        await self._tasks()
        self._issued()
        callers["access token of root"] = self._bearer(await self._access_token("root"))
        callers["machine"] = Caller(((b"x-flyte-agent", b"1"),), ADMIN_SOCKET)
        assert callers.keys() == set(ORDER)
        self.callers = {name: callers[name] for name in ORDER}

    async def _keys(self) -> None:
        keys, callers = self.house.api_keys, self.callers
        callers["limited key of root"] = self._bearer(await self._key("low", "root", role="viewer"))
        for name in ("deleted", "disabled", "expired"):
            made = await keys.create(MACHINE, name=f"{name}-key", subject="root", expires_in=3600)
            callers[f"{name} key of root"] = self._bearer(made.key.text)
        await keys.delete(MACHINE, "deleted-key")
        await keys.set_disabled(MACHINE, "disabled-key", disabled=True)
        ended = update(tables.api_keys).where(tables.api_keys.c.name == "expired-key")

        def end(tx: Any) -> None:
            tx.execute(ended.values(expires_at=time.time() - 1))

        await self.house.db.write(end)

    async def _sessions(self) -> None:
        text = await self._session("root")
        self.callers["session of root"] = Caller(self._cookie(text))
        self.callers["another site with root's session"] = Caller(
            ((b"cookie", f"tower_session={text}".encode()), (b"sec-fetch-site", b"cross-site"))
        )

    async def _apps(self) -> None:
        house, callers = self.house, self.callers
        config = {
            "flyte.webhooks": [{"path": "/hook", "scheme": "hmac"}],
            "flyte.public_paths": ["/public"],
        }
        for name, more in (("closed", {"config": config}), ("open", {"requires_auth": False})):
            row = await house.apps.create(MACHINE, apps.message(name, desired=1, **more), request_id="q")
            self.known[f"{name}_host"] = f"{row.host}.localhost:8080"
        place = ("flytesnacks", "development", "closed")
        await house.webhooks.set(
            MACHINE, place, "/hook", scheme=Scheme.HMAC, secret=SECRET.decode(), subject="service"
        )
        for name, secret in (
            ("delivery of a third party", SECRET),
            ("delivery signed by another", b"another secret, also long enough"),
        ):
            callers[name] = Caller(sign=delivery(secret))
        console = await self._who(self._cookie(await self._session("root")), "console")
        at = self.known["closed_host"]
        code = await house.logins.create_handover(console, at)
        carried = (await house.logins.sign_in(code, host=at, handover=True)).text
        callers["session of root at an app"] = Caller(
            ((b"cookie", f"tower_session={carried}".encode()), (b"origin", f"http://{at}".encode()))
        )
        root = await self._who(self._bearer(await self._key("gateway", "root")).headers, "gateway")
        socket = app_socket()
        token = self._bearer(await house.grants.exchange(root, socket.id))
        callers["app of root"] = replace(token, workload=socket)
        callers["app's own socket"] = Caller(workload=socket)
        callers["app token of root over TLS"] = replace(token, secure=True)
        callers["app token of root without TLS"] = token
        upload = Upload("flytesnacks", "development", "bundles/flytesnacks/development/x/f", _MD5_HEX, 2)
        self.known["upload"] = house.grants.allow_upload(upload, life=600)[0]
        await house.blobs.put("bundles/flytesnacks/development/y/f", CONTENT)
        download = Download("flytesnacks", "development", "bundles/flytesnacks/development/y/f")
        self.known["download"] = house.grants.allow_download(download, life=600)[0]

    async def _tasks(self) -> None:
        """An attempt by its socket, by its run token, and by its agent on another machine."""
        house, callers = self.house, self.callers
        root = await self._who(self.callers["root"].headers, "rpc")
        running = await World.running(house, root)  # type: ignore[arg-type]
        callers["task of root"] = Caller(((b"x-flyte-agent", b"1"),), running)
        await house.tasks.deploy(
            root, ("flytesnacks", "development", "privileged"), "1", spec=_privileged(), request_id="d"
        )
        privileged = await World.running(house, root, run="r3", task="privileged")  # type: ignore[arg-type]
        callers["privileged task of root"] = Caller(((b"x-flyte-agent", b"1"),), privileged)
        over = await World.running(house, root, run="r2", phase=int(Phase.SUCCEEDED))  # type: ignore[arg-type]
        callers["task that has ended"] = Caller(((b"x-flyte-agent", b"1"),), over)
        _, token = await self.call(callers["task of root"], Ask("", "POST", "/agent/token"))
        callers["run token of root without TLS"] = self._bearer(token.decode())
        callers["run token of root"] = replace(self._bearer(token.decode()), secure=True)
        body = json.dumps({"audience": "https://vault.example.com"}).encode()
        asked = Ask("", "POST", "/api/v1/workload/identity-token", body=body)
        _, answer = await self.call(callers["task of root"], asked)
        callers["identity token of root for outside"] = replace(
            self._bearer(json.loads(answer)["token"]), secure=True
        )
        agent = Agent(house.agents, running.id)
        await agent.begin(house.agents)
        callers["agent of a task of root"] = Caller(sign=agent.sign)
        callers["agent's token alone"] = Caller(((TOKEN_HEADER, agent.token.encode()),))
        callers["agent's token with the proof of another call"] = Caller(
            sign=lambda method, target, body: agent.sign(method, target + b"x", body)
        )
        self.known |= {"agent_ticket": agent.ticket, "half": text_of(agent.half.public)}

    def _issued(self) -> None:
        good = {"iss": ISSUER, "aud": API}
        for name, claims, key in (
            ("token of an issuer", good, FOREIGN),
            ("issuer's token for another audience", {**good, "aud": "https://other.example.com"}, FOREIGN),
            ("issuer's token signed by another", good, STRANGER),
            ("token of an unknown issuer", {**good, "iss": "https://evil.example.com"}, FOREIGN),
        ):
            self.callers[name] = replace(self._bearer(access(claims, key)), secure=True)

    async def _key(self, name: str, user: str, **more: Any) -> str:
        return (await self.house.api_keys.create(MACHINE, name=name, subject=user, **more)).key.text

    async def _session(self, user: str) -> str:
        link = await self.house.logins.create_link(MACHINE, user)
        return (await self.house.logins.sign_in(link, host=HOST.decode())).text

    async def _access_token(self, user: str) -> str:
        """What a program gets for a key of its own."""
        _, client, secret = (await self._key(f"program-of-{user}", user)).split("_", 2)
        fields = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        asked = Ask("", "POST", "/oauth2/token", FORM, urlencode(fields).encode())
        return str(json.loads((await self.call(Caller(), asked))[1])["access_token"])

    async def _who(self, headers: Headers, audience: Any) -> Any:
        return await self.house.chain.authenticate(
            Presented(headers=((b"host", HOST), *headers), host=HOST.decode(), audience=audience)
        )

    @staticmethod
    def _bearer(text: str) -> Caller:
        return Caller(((b"authorization", f"Bearer {text}".encode()),), key=text)

    @staticmethod
    def _cookie(text: str) -> Headers:
        return ((b"cookie", f"tower_session={text}".encode()), *_CONSOLE)

    async def answer(self, caller: Caller, ask: Ask) -> str:
        """The class of the answer: status, code or where it leads, and whether a refusal is on record."""
        before = self._refusals()
        status, content = await self.call(caller, ask)
        assert b'"internal"' not in content, (ask, content)
        told = [str(status)]
        if (code := _CODE.search(content)) is not None and (status >= 400 or content[:1] == b"\x02"):
            told.append(code[1].decode())
        if self._location:
            place = urlsplit(self._location)
            told.append(
                place.path
                + "".join(f" {name}" for name in ("code", "error") if name in parse_qs(place.query))
            )
        if status == 404 and not content:
            told.append("nowhere")
        if status != 401 and self._refusals() != before:
            told.append("refused")
        return " ".join(told)

    def _refusals(self) -> int:
        return int(self.house.db.read_now(lambda reader: reader.execute(_REFUSALS).scalar_one()))

    async def call(self, caller: Caller, ask: Ask) -> tuple[int, bytes]:
        """Status and the first of the answer."""
        path, body, host, kind = ask.path, ask.body, ask.host.encode() or HOST, ask.kind
        for name, value in self.known.items():
            path = path.replace(f"{{{name}}}", value)
            for written in (f"{{{name}}}", quote_plus(f"{{{name}}}")):
                body = body.replace(written.encode(), value.encode())
            host = host.replace(f"{{{name}}}".encode(), value.encode())
        headers = caller.headers
        if ask.client and caller.key.count("_") >= 2:
            _, client, secret = caller.key.split("_", 2)
            headers, body = (
                (),
                body + b"&" + urlencode({"client_id": client, "client_secret": secret}).encode(),
            )
        if caller.sign is not None:
            headers = caller.sign(ask.method, path.encode(), body)
        path, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": ask.method,
            "scheme": "https" if caller.secure else "http", "path": path,
            "raw_path": path.encode(), "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (b"host", host), (b"content-type", kind), (b"content-length", str(len(body)).encode()),
                *headers,
            ],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
            "state": {} if caller.workload is None else {"workload": caller.workload},
        }  # fmt: skip
        if ask.method == WEBSOCKET:
            scope |= {"type": "websocket", "scheme": "wss" if caller.secure else "ws", "subprotocols": []}
            scope["extensions"] = {"websocket.http.response": {}}
            scope["headers"] = [(b"host", host), *headers]
            del scope["method"]
        self._location = ""
        status: list[int] = []
        content: list[bytes] = []
        answered = asyncio.Event()
        given = False

        async def receive() -> dict[str, Any]:
            nonlocal given
            if not given:
                given = True
                if ask.method == WEBSOCKET:
                    return {"type": "websocket.connect"}
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            kind = message["type"].removeprefix("websocket.")
            if kind in {"accept", "close"}:  # a close before the acceptance is a refusal without more
                status.append(101 if kind == "accept" else 403)
                answered.set()
            elif kind == "http.response.start":
                status.append(message["status"])
                self._location = dict(message.get("headers", ())).get(b"location", b"").decode()
            elif message.get("body") or not message.get("more_body"):
                content.append(message.get("body", b""))
                answered.set()

        app = self.front if caller.workload is None else self.hosted
        call = asyncio.create_task(app(scope, receive, send))
        waiting = asyncio.create_task(answered.wait())
        await asyncio.wait({call, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=_STREAM_SECONDS)
        if not status:  # no stream that was opened and has nothing to say
            await asyncio.wait({call, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=_SECONDS)
        for task in (call, waiting):
            task.cancel()
        await asyncio.gather(call, waiting, return_exceptions=True)
        return (status[0] if status else 0), b"".join(content)


_MD5_HEX = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@asynccontextmanager
async def opened(home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Matrix]:
    """The world over a fresh home. Failed credentials make nobody wait: other tests look at that."""
    monkeypatch.setattr(fetch, "get", provider)
    monkeypatch.setattr(Attempts, "begin", lambda self, **_: None)
    processes = apps.FakeProcesses()
    parts = server._gateway_parts
    monkeypatch.setattr(server, "_gateway_parts", lambda house, _: parts(house, processes))
    issuer = IssuerSettings(
        alias="corp",
        issuer=ISSUER,
        client_id="tower",
        audiences=(API,),
        groups_claim="groups",
        roles=(RoleOfGroup("makers", "contributor", "flytesnacks"),),
    )
    echo, uds = Echo(), home / "echo.sock"
    processes.sockets = {CLOSED: uds, OPEN: uds}
    async with (
        apps.serving(echo.app, uds=uds),
        compose(Settings(home=home, issuers=(issuer,))) as house,
    ):
        house.chain.guesses = None
        house.access._denials = None  # each refusal is a record: the cells say where there is one
        async with server._running(house) as running:
            made = Matrix(house, running, processes)
            await made.people()
            yield made

"""Every RPC and every route for every kind of caller: who gets past authorisation stands in a file (T47).

`tests/cases/matrix.json` names the callers who pass, by path; one that is missing there or stale fails. A
caller is refused when the answer is Unauthenticated or when the call left a refusal in the audit trail.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pkgutil
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import flyteidl2
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from tests.identity_world import ADMIN_SOCKET, World, app_socket

from tower.identity.authenticators import MACHINE
from tower.identity.chain import Presented
from tower.identity.principal import Kind
from tower.identity.workload import Workload
from tower.main.house import House, compose
from tower.main.server import _running
from tower.policy.actions import METHODS, ROUTES, AuditLevel
from tower.policy.rulebook import Written
from tower.settings import Settings
from tower.store import audit

FILE = Path(__file__).parents[2] / "cases" / "matrix.json"
HOST = b"127.0.0.1:8080"
PLACE = {
    "project": "flytesnacks",
    "domain": "development",
    "name": "x",
    "host": "h",
    "file": "f",
    "code": "c",
    "run": "x",
    "task": "x",
}
BODIES: dict[str, Any] = {
    "POST /api/v1/users": {"name": "-"},
    "POST /api/v1/bindings": {"user": "x", "role": "viewer"},
    "POST /api/v1/keys": {"name": "-"},
    "POST /api/v1/keys/{name}/rotate": {},
    "POST /api/v1/links": {"user": "x"},
    "POST /api/v1/authorize": {"action": "task:run", "resource": "task:flytesnacks/development/x"},
    "POST /api/v1/groups": {"name": "-"},
    "POST /api/v1/roles": {"name": "-", "actions": ["task:run"]},
    "PUT /api/v1/roles/{name}": {"actions": ["task:run"]},
    "POST /api/v1/policies": {"name": "-", "text": "-"},
    "PUT /api/v1/policies/{name}": {"text": "-"},
    "PUT /api/v1/users/{name}/password": {"password": "-"},
    "POST /api/v1/audit/prune": {"before": 0},
    "POST /api/v1/workload/identity-token": {"audience": "https://vault.example.com"},
    "POST /api/v1/secrets": {"name": "x", "project": "flytesnacks", "value": "eA=="},
    "PUT /api/v1/secrets/{name}": {"value": "eA=="},
    "PUT /api/v1/webhooks": {
        "project": "flytesnacks",
        "domain": "development",
        "app": "x",
        "path": "/hook",
        "scheme": "hmac",
        "secret": "a secret that is long enough to be one",
        "user": "service",
    },
}
QUERIES = {
    "DELETE /api/v1/bindings": "?user=x&role=viewer",
    "DELETE /api/v1/webhooks": "?project=flytesnacks&domain=development&app=x&path=/hook",
}
_TEXTS = {"project": "flytesnacks", "domain": "development", "org": "", "id": "flytesnacks", "version": "1"}
_PREFERRED = {"project_id", "app_id", "task_id", "container"}
_LEFT_OUT = {"request", "secrets", "run_as", "filename_root", "ingress", "timeouts", "code_bundle_uri"}
_LISTS = {
    "flyteidl2.trigger.UpdateTriggersRequest.names",
    "flyteidl2.trigger.DeleteTriggersRequest.names",
}
"""What a call is about where it is about several things at once."""
DOORS = ("rest ", "console ")
SKIPPED = {
    "console POST /signout",  # it ends the session that asks
    "console POST /device",  # other sites are refused before anybody is asked for
    "console POST /account",  # likewise
}


for _module in pkgutil.walk_packages(flyteidl2.__path__, "flyteidl2."):
    if _module.name.endswith("_pb2"):
        importlib.import_module(_module.name)


@dataclass(frozen=True)
class Caller:
    headers: tuple[tuple[bytes, bytes], ...] = ()
    workload: Workload | None = None


class Matrix:
    def __init__(self, house: House, app: Any) -> None:
        self.house, self.app = house, app
        self.callers: dict[str, Caller] = {}
        self.answer = (0, b"")
        self.location = ""

    async def people(self) -> None:
        house = self.house
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
            self.callers[name] = self._bearer(await self._key(name, name))
        await house.identities.set_disabled(MACHINE, "disabled", disabled=True)
        self.callers["anonymous"] = Caller()
        forbids = Written("x", 'forbid (principal == User::"nobody", action, resource is Key);')
        await house.governance.policies.put_policy(MACHINE, forbids, create=True)
        self.callers["limited key of root"] = self._bearer(await self._key("low", "root", role="viewer"))
        root = await self._who(await self._key("gateway", "root"))
        socket = app_socket()
        token = await house.grants.exchange(root, socket.id)
        self.callers["app of root"] = Caller(self._bearer(token).headers, socket)
        running = await World.running(self.house, root)  # type: ignore[arg-type]
        self.callers["task of root"] = Caller(((b"x-flyte-agent", b"1"),), running)
        await house.apps.create(MACHINE, _message("/flyteidl2.app.AppService/Create").app, request_id="q")
        link = await house.logins.create_link(MACHINE, "root")
        text = (await house.logins.sign_in(link, host=HOST.decode())).text
        own_page = ((b"origin", b"http://" + HOST), (b"sec-fetch-site", b"same-origin"))
        self.callers["session of root"] = Caller(((b"cookie", f"tower_session={text}".encode()), *own_page))
        self.callers["access token of root"] = self._bearer(await self._access_token("root"))
        self.callers["another site with root's session"] = Caller(
            ((b"cookie", f"tower_session={text}".encode()), (b"sec-fetch-site", b"cross-site"))
        )
        self.callers["machine"] = Caller(((b"x-flyte-agent", b"1"),), ADMIN_SOCKET)
        # from the weakest to the strongest: what one deletes is gone for those behind it
        for name in (
            "contributor",
            "service",
            "keeper",
            "app of root",
            "task of root",
            "access token of root",
            "session of root",
            "root",
            "machine",
        ):
            self.callers[name] = self.callers.pop(name)

    async def _key(self, name: str, user: str, **more: Any) -> str:
        return (await self.house.api_keys.create(MACHINE, name=name, subject=user, **more)).key.text

    async def _access_token(self, user: str) -> str:
        """What a program gets for a key of its own."""
        _, client, secret = (await self._key(f"program-of-{user}", user)).split("_", 2)
        fields = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        kind, body = b"application/x-www-form-urlencoded", urlencode(fields).encode()
        _, answer = await self._call(Caller(), "POST", "/oauth2/token", kind, body)
        return str(json.loads(answer)["access_token"])

    async def _who(self, key: str) -> Any:
        headers = ((b"host", HOST), *self._bearer(key).headers)
        presented = Presented(
            headers=headers, workload=None, secure=False, host=HOST.decode(), audience="gateway"
        )
        return await self.house.chain.authenticate(presented)

    @staticmethod
    def _bearer(text: str) -> Caller:
        return Caller(((b"authorization", f"Bearer {text}".encode()),))

    async def passes(self, caller: Caller, method: str, path: str, kind: bytes, body: bytes) -> bool:
        before = await self._last_refusal()
        status, answer = await self._call(caller, method, path, kind, body)
        self.answer = status, answer
        if status == 401 or b'"unauthenticated"' in answer or self.location.startswith(("/signin", "/login")):
            return False
        assert b'"internal"' not in answer, (path, answer)
        return await self._last_refusal() == before

    async def _last_refusal(self) -> int:
        page = await self.house.db.read(lambda reader: audit.page(reader, event="access.refuse", limit=1))
        return page[0].seq if page else 0

    async def _call(
        self, caller: Caller, method: str, path: str, kind: bytes, body: bytes
    ) -> tuple[int, bytes]:
        path, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (b"host", HOST), (b"content-type", kind), (b"content-length", str(len(body)).encode()),
                *caller.headers,
            ],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
            "state": {} if caller.workload is None else {"workload": caller.workload},
        }  # fmt: skip
        self.location = ""
        status: list[int] = []
        content: list[bytes] = []
        answered = asyncio.Event()
        given = False

        async def receive() -> dict[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])
                self.location = dict(message.get("headers", ())).get(b"location", b"").decode()
            elif message.get("body") or not message.get("more_body"):
                content.append(message.get("body", b""))
                answered.set()

        call = asyncio.create_task(self.app(scope, receive, send))
        waiting = asyncio.create_task(answered.wait())
        await asyncio.wait({call, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=2)
        for task in (call, waiting):
            task.cancel()
        await asyncio.gather(call, waiting, return_exceptions=True)
        return (status[0] if status else 0), b"".join(content)


@pytest.fixture
async def matrix(tmp_path: Path) -> AsyncIterator[Matrix]:
    async with compose(Settings(home=tmp_path)) as house, _running(house) as running:
        made = Matrix(house, running.public)
        await made.people()
        yield made


def _request(path: str) -> tuple[bytes, bytes]:
    """A request of this RPC about things of flytesnacks/development, and its content type."""
    found, body = _method(path), _message(path).SerializeToString()
    if found.server_streaming or found.client_streaming:
        return b"application/connect+proto", struct.pack(">BI", 0, len(body)) + body
    return b"application/proto", body


def _method(path: str) -> Any:
    service, method = path[1:].split("/")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]


def _message(path: str) -> Any:
    message = message_factory.GetMessageClass(_method(path).input_type)()
    _fill(message, depth=0)
    return message


def _fill(message: Any, *, depth: int) -> None:
    """Every field that leads to a decision: names of things there are or could be; no secrets."""
    texts = {**_TEXTS, **({"name": "flytesnacks"} if message.DESCRIPTOR.name == "ProjectIdentifier" else {})}
    for field in _chosen(message.DESCRIPTOR):
        if field.full_name == "flyteidl2.secret.SecretSpec.type":
            continue  # one of them is not offered, and that is said before anything is decided
        if field.is_repeated:
            _fill(getattr(message, field.name).add(), depth=depth + 1)
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth < 4:
                getattr(message, field.name).SetInParent()
                _fill(getattr(message, field.name), depth=depth + 1)
        elif field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, texts.get(field.name, "x1"))
        elif field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, field.name, bytes(16))
        elif field.type == FieldDescriptor.TYPE_ENUM:
            setattr(
                message, field.name, field.enum_type.values[min(1, len(field.enum_type.values) - 1)].number
            )
        elif field.type == FieldDescriptor.TYPE_INT64:
            setattr(message, field.name, 1)


def _chosen(descriptor: Any) -> list[Any]:
    found, done = [], set()
    for field in sorted(descriptor.fields, key=lambda field: (field.name not in _PREFERRED, field.number)):
        oneof = field.containing_oneof
        if (oneof is not None and oneof.name in done) or field.name in _LEFT_OUT:
            continue
        if field.is_repeated and field.full_name not in _LISTS:
            continue
        if field.message_type is not None and field.message_type.full_name.startswith("google."):
            continue
        done.add("" if oneof is None else oneof.name)
        found.append(field)
    return found


async def test_who_passes_is_what_the_file_says(matrix: Matrix) -> None:
    found: dict[str, list[str]] = {}
    for path, row in METHODS.items():
        if row.action is not None:
            kind, body = _request(path)
            found[path] = [
                name
                for name, caller in matrix.callers.items()
                if await matrix.passes(caller, "POST", path, kind, body)
            ]
    for route, row in ROUTES.items():
        if row.action is None or route in SKIPPED or not route.startswith(DOORS):
            continue
        _, method, template = route.split(" ")
        body = json.dumps(BODIES.get(f"{method} {template}", {})).encode()
        target = template.format(**PLACE) + QUERIES.get(f"{method} {template}", "")
        found[route] = [
            name
            for name, caller in matrix.callers.items()
            if await matrix.passes(caller, method, target, b"application/json", body)
        ]
    if os.environ.get("TOWER_WRITE_MATRIX"):  # then read the difference, line by line
        lines = (f"  {json.dumps(path)}: {json.dumps(names)}" for path, names in found.items())
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    expected: dict[str, list[str]] = json.loads(FILE.read_text())
    assert found.keys() == expected.keys()
    assert {path: sorted(names) for path, names in found.items()} == {
        path: sorted(names) for path, names in expected.items()
    }


def test_the_file_itself_keeps_to_the_rules() -> None:
    """What must hold of any matrix, whatever it says in detail."""
    expected: dict[str, list[str]] = json.loads(FILE.read_text())
    for path, names in expected.items():
        ways = {name in names for name in ("root", "session of root", "access token of root")}
        assert len(ways) == 1, f"{path}: the same person is told apart by what they show"
        if "another site with root's session" in names:
            assert path.startswith("console GET "), f"{path}: another site may look up nothing but a page"
    rows = {**METHODS, **ROUTES}
    for path, names in expected.items():
        row, passing = rows[path], set(names)
        assert not passing & {"anonymous", "disabled"}, path
        assert "viewer" not in passing or "contributor" in passing, path
        assert "contributor" not in passing or {"keeper", "service"} <= passing, path
        assert "keeper" not in passing or "root" in passing, path
        assert "nobody" not in passing or "root" in passing, path
        own = {"key:manage-own", "self:view", "app:use"}
        if row.level is AuditLevel.EFFECT and row.action not in own:
            assert not passing & {"nobody", "viewer", "limited key of root"}, path
        if row.action in {"key:manage", "user:manage", "policy:manage", "audit:prune"}:
            assert not passing & {"app of root", "task of root"}, path
        if row.action in {"key:manage", "user:manage", "audit:prune"}:
            assert "keeper" not in passing, path

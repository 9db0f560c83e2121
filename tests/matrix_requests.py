"""How each RPC and each route is asked in the matrix of callers: about things there are or could be."""

from __future__ import annotations

import importlib
import json
import pkgutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import flyteidl2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor

from tower.control.oauth.discovery import GRANTS, TOKEN_EXCHANGE

WEBSOCKET = "WEBSOCKET"
"""In the place of a method: the handshake of a websocket."""
JSON, FORM = b"application/json", b"application/x-www-form-urlencoded"
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

for _module in pkgutil.walk_packages(flyteidl2.__path__, "flyteidl2."):
    if _module.name.endswith("_pb2"):
        importlib.import_module(_module.name)


@dataclass(frozen=True)
class Ask:
    """One request; `{ticket}` and the like in `path` and `body` are known to the world alone.

    `row` is the route, and what is special about this request in parentheses. With `host` "" it is Tower's
    own. `client`: whoever has a key shows it as the secret of an OAuth client and not as a bearer.
    """

    row: str
    method: str
    path: str
    kind: bytes = JSON
    body: bytes = b""
    host: str = ""
    client: bool = False


_PKCE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
_AUTHORIZE = urlencode(
    {
        "response_type": "code",
        "client_id": "flyte",
        "redirect_uri": "http://127.0.0.1:53593/callback",
        "code_challenge": _PKCE,
        "code_challenge_method": "S256",
        "state": "s",
    }
)
_BOGUS = {
    "code": "x",
    "code_verifier": "x" * 43,
    "redirect_uri": "http://127.0.0.1:53593/callback",
    "refresh_token": "x",
    "device_code": "x",
    "subject_token": "x",
    "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "audience": "tower",
}
_EXCHANGE = {
    "grant_type": TOKEN_EXCHANGE,
    "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "audience": "flytesnacks/development/closed",
}
_APPS = "flytesnacks/development"
_SPECIAL: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "oauth GET /oauth2/authorize": [("", {"path": f"/oauth2/authorize?{_AUTHORIZE}"})],
    "oauth POST /oauth2/authorize": [
        ("", {"path": f"/oauth2/authorize?{_AUTHORIZE}", "form": {"answer": "allow"}})
    ],
    "oauth POST /oauth2/token": [
        *(
            (grant.rpartition(":")[2], {"form": {"grant_type": grant, **_BOGUS, "client_id": "flyte"}})
            for grant in GRANTS
        ),
        *(
            (
                f"{grant.rpartition(':')[2]}, as a client",
                {"form": {"grant_type": grant, **_BOGUS}, "client": True},
            )
            for grant in GRANTS
        ),
        *(
            (
                f"token-exchange, as a client, of {what}",
                {"form": {**_EXCHANGE, "subject_token": text}, "client": True},
            )
            for what, text in (("root's key", "{root_key}"), ("a key that was deleted", "{deleted_key}"))
        ),
    ],
    "oauth POST /oauth2/device": [("", {"form": {"client_id": "flyte"}})],
    "oauth POST /oauth2/revoke": [
        ("", {"form": {"client_id": "flyte", "token": "x"}}),
        ("as a client", {"form": {"token": "x"}, "client": True}),
    ],
    "oauth POST /oauth2/introspect": [
        ("", {"form": {"client_id": "flyte", "token": "x"}}),
        ("as a client", {"form": {"token": "x"}, "client": True}),
    ],
    "nodes POST /nodes/token": [
        ("a made-up ticket", {"body": {"ticket": "x", "key": "{half}"}}),
        ("the ticket of an agent", {"body": {"ticket": "{agent_ticket}", "key": "{half}"}}),
        ("renewal", {"body": {"attempt": "flytesnacks/development/r1/a0/1"}}),
        ("renewal for another attempt", {"body": {"attempt": "flytesnacks/development/r2/a0/1"}}),
    ],
    "gateway ANY /apps/{project}/{domain}/{name}/{path}": [
        ("", {"path": f"/apps/{_APPS}/closed/x"}),
        ("POST", {"method": "POST", "path": f"/apps/{_APPS}/closed/x"}),
        ("an app that is not there", {"path": f"/apps/{_APPS}/absent/x"}),
        ("a public path", {"path": f"/apps/{_APPS}/closed/public"}),
        ("below a public path", {"path": f"/apps/{_APPS}/closed/public/x"}),
        ("a path of a webhook", {"method": "POST", "path": f"/apps/{_APPS}/closed/hook", "body": {}}),
        ("another path of a webhook", {"method": "POST", "path": f"/apps/{_APPS}/closed/other", "body": {}}),
        ("an app for everybody", {"path": f"/apps/{_APPS}/open/x"}),
        ("a websocket", {"method": WEBSOCKET, "path": f"/apps/{_APPS}/closed/ws"}),
        ("a websocket of an app for everybody", {"method": WEBSOCKET, "path": f"/apps/{_APPS}/open/ws"}),
    ],
    "gateway ANY <app host>/{path}": [
        ("", {"path": "/x", "host": "{closed_host}"}),
        ("POST", {"method": "POST", "path": "/x", "host": "{closed_host}"}),
        ("an app that is not there", {"path": "/x", "host": "absent.localhost:8080"}),
        ("a public path", {"path": "/public", "host": "{closed_host}"}),
        ("a path of a webhook", {"method": "POST", "path": "/hook", "host": "{closed_host}", "body": {}}),
        ("an app for everybody", {"path": "/x", "host": "{open_host}"}),
        ("a websocket", {"method": WEBSOCKET, "path": "/ws", "host": "{closed_host}"}),
        (
            "a websocket of an app that is not there",
            {"method": WEBSOCKET, "path": "/ws", "host": "absent.localhost:8080"},
        ),
        ("a websocket of an app for everybody", {"method": WEBSOCKET, "path": "/ws", "host": "{open_host}"}),
    ],
    "gateway GET <app host>/.tower/session": [
        ("", {"path": "/.tower/session?code=x&state=y", "host": "{closed_host}"}),
        ("a websocket", {"method": WEBSOCKET, "path": "/.tower/session", "host": "{closed_host}"}),
    ],
    "data PUT /data/upload/{ticket}": [
        ("a made-up ticket", {"path": "/data/upload/x"}),
        ("a ticket for downloads", {"path": "/data/upload/{download}"}),
        ("a ticket", {"path": "/data/upload/{upload}"}),
    ],
    "data HEAD /data/download/{ticket}": [
        ("a made-up ticket", {"path": "/data/download/x"}),
        ("a ticket for uploads", {"path": "/data/download/{upload}"}),
        ("a ticket", {"path": "/data/download/{download}"}),
    ],
    "data GET /data/download/{ticket}": [
        ("a made-up ticket", {"path": "/data/download/x"}),
        ("a ticket for uploads", {"path": "/data/download/{upload}"}),
        ("a ticket", {"path": "/data/download/{download}"}),
    ],
    "console POST /signin": [("", {"form": {"code": "x"}})],
    "console POST /signin/{code}": [("", {"form": {}})],
    "console POST /login": [("", {"form": {"name": "root", "password": "wrong"}})],
    "console GET /signin/with/{alias}": [
        ("", {"path": "/signin/with/corp"}),
        ("an alias that nobody has", {"path": "/signin/with/other"}),
    ],
    "console GET /signin/with/{alias}/callback": [
        ("", {"path": "/signin/with/corp/callback?code=x&state=y"})
    ],
    "console GET /static/{file}": [("", {"path": "/static/console.css"})],
    "console GET /apps-login": [
        ("", {"path": "/apps-login?host={closed_host}&next=/&state=" + "s" * 32}),
        ("to another host", {"path": "/apps-login?host=evil.example.com&next=/&state=" + "s" * 32}),
    ],
    "console POST /v2/domain/{domain}/project/{project}/runs/{name}/abort": [("", {"form": {}})],
    "console POST /v2/domain/{domain}/project/{project}/runs/{name}/revoke": [("", {"form": {}})],
    "console POST /account": [("", {"form": {"current": "wrong", "new": "short", "again": "short"}})],
    "console POST /device": [("", {"form": {"code": "BCDF-GHJK", "answer": "allow"}})],
    "console POST /signout": [("", {"form": {}})],
}


def asked(route: str) -> Iterator[Ask]:
    """The requests of a route of the other doors."""
    _, method, template = route.split(" ", 2)
    body = BODIES.get(f"{method} {template}", {})
    for what, special in _SPECIAL.get(route, [("", {})]):
        given = dict(special)
        kind, text = JSON, json.dumps(given.pop("body", body))
        if (fields := given.pop("form", None)) is not None:
            kind, text = FORM, urlencode(fields)
        yield Ask(
            row=route + (f" ({what})" if what else ""),
            method=given.pop("method", "GET" if method == "ANY" else method),
            path=given.pop("path", "") or template.format(**PLACE) + QUERIES.get(f"{method} {template}", ""),
            kind=kind,
            body=text.encode(),
            **given,
        )


def rpc(path: str) -> Ask:
    """The request of an RPC."""
    found, body = _method(path), message(path).SerializeToString()
    if found.server_streaming or found.client_streaming:
        kind, body = b"application/connect+proto", struct.pack(">BI", 0, len(body)) + body
        return Ask(path, "POST", path, kind, body)
    return Ask(path, "POST", path, b"application/proto", body)


def _method(path: str) -> Any:
    service, method = path[1:].split("/")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]


def message(path: str) -> Any:
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

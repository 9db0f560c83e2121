"""In front of the public listener: a call of an agent goes where the sockets of this machine lead.

With a token and its proof the call is one of the attempt, as if it had come over the attempt's socket; the
token is taken out and no other door ever sees it. Every other request goes on to `public`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

import structlog

from tower.control.agents import Agents, Held, Over
from tower.direct import Answer, Direct
from tower.errors import HTTP_STATUS, Code, Counterfeit, Exhausted, Fault, Invalid, retry_after
from tower.identity.chain import Refused
from tower.identity.guesses import Guesses
from tower.possession import PEER_HEADER, PROOF_HEADER, TOKEN_HEADER, TOKEN_PATH, public_key
from tower.routes import Table

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 8192
_REFUSED = (TOKEN_HEADER, b"refused")
"""Tells the agent that an answer is about its token, and not the task's business."""

_OWN = frozenset({TOKEN_HEADER, PROOF_HEADER, PEER_HEADER})
_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_ATTEMPT = re.compile(r"[^/\s]{1,128}(/[^/\s]{1,128}){4}")
_log = structlog.get_logger("tower.nodes")


class NodesDoor:
    """The ASGI application in front of `public`; `hosted` is what attempts reach over their sockets."""

    def __init__(
        self,
        agents: Agents,
        *,
        hosted: App,
        public: App,
        guesses: Guesses | None = None,
        refused: Refused | None = None,
    ) -> None:
        """`guesses` bounds what fails here together with the other doors, `refused` is told of it."""
        self._guesses = guesses
        self._refused = refused
        self._agents = agents
        self._hosted = hosted
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            if methods := _TABLE.methods(scope["path"]):
                found = _TABLE.find(scope["method"], scope["path"])
                if found is None:
                    fault = Invalid(f"This is asked for with {methods[0]}.")
                    await _refuse(send, fault, _request_id(scope))
                else:
                    await found[0](self, scope, receive, send)
                return
            for name, _ in scope["headers"]:
                if name == TOKEN_HEADER:
                    await self._call(scope, receive, send)
                    return
        await self._public(scope, receive, send)

    def direct(self, scope: Scope, body: bytes) -> Coroutine[Any, Any, Answer] | None:
        """A request that is here as a whole (`tower.direct`): `public` takes it unless it is an agent's."""
        offered: Direct | None = getattr(self._public, "direct", None)
        if offered is None or TOKEN_HEADER in dict(scope["headers"]):
            return None
        return offered(scope, body)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            token, proof, peer = (_one(scope, name) for name in (TOKEN_HEADER, PROOF_HEADER, PEER_HEADER))
            self._patience(scope, token)
            workload = self._agents.admit(
                token,
                proof,
                method=scope["method"],
                target=_target(scope),
                pid=int(peer) if peer.isdecimal() and len(peer) < 12 else 0,
            )
        except Fault as fault:
            self._note(scope, fault)
            await _refuse(send, fault, _request_id(scope), _REFUSED)
            return
        headers = [pair for pair in scope["headers"] if pair[0] not in _OWN]
        state = {**(scope.get("state") or {}), "workload": workload}
        await self._hosted({**scope, "headers": headers, "state": state}, receive, send)

    def _patience(self, scope: Scope, token: str) -> None:
        """Raise Exhausted where nothing unknown is looked at now."""
        guesses = self._guesses
        if guesses is not None and guesses.busy:
            guesses.check(source=_source(scope), values=[token])

    def _note(self, scope: Scope, fault: Fault) -> None:
        counterfeit = isinstance(fault, Counterfeit)
        if self._guesses is not None and counterfeit:
            self._guesses.failed(source=_source(scope), values=[])
        if self._refused is not None and (counterfeit or isinstance(fault, Exhausted)):
            self._refused(source=_source(scope), door="nodes", keys=(), throttled=not counterfeit)

    async def _token(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _request_id(scope)
        try:
            body = await _whole(receive)
            # tickets and proofs are no guesses' prey, and those who have one must not wait for others
            held = await self._give(scope, body, request_id)
            if self._guesses is not None:
                self._guesses.held(held.token)
        except Fault as fault:
            self._note(scope, fault)
            await _refuse(send, fault, request_id)
            return
        except ConnectionError:
            return
        await _answer(send, 200, {"token": held.token, "expires_at": held.expires_at}, request_id)

    async def _give(self, scope: Scope, body: bytes, request_id: str) -> Held:
        proof = _one(scope, PROOF_HEADER)
        try:
            asked = json.loads(body)
            match asked:
                case {"ticket": str(ticket), "key": str(key), **more} if not more:
                    half = public_key(key)
                case {"attempt": str(attempt), **more} if not more and _ATTEMPT.fullmatch(attempt):
                    return await self._agents.renew(attempt, proof, body)
                case _:
                    raise Invalid("The request has a ticket and a key, or an attempt.")
        except (ValueError, RecursionError) as error:
            raise Invalid("The request is no JSON object as it should be.") from error
        return await self._agents.exchange(ticket, half, proof, body, request_id=request_id)


_TABLE = Table("nodes", [("POST", TOKEN_PATH, NodesDoor._token)])
ROUTES = _TABLE.names


def _source(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _target(scope: Scope) -> bytes:
    """Path and query as they stood in the request line."""
    query: bytes = scope["query_string"]
    path: bytes = scope["raw_path"]
    return path + b"?" + query if query else path


def _one(scope: Scope, wanted: bytes) -> str:
    values = [value for name, value in scope["headers"] if name == wanted]
    if len(values) > 1 or (not values and wanted != PEER_HEADER):
        raise Counterfeit("The call of an agent lacks its token or its proof.")
    return values[0].decode("latin-1") if values else ""


def _request_id(scope: Scope) -> str:
    sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    return sent if _SANE_ID.fullmatch(sent) else secrets.token_hex(16)


async def _whole(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the agent is gone")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise Invalid("The request is too large.")
        more = message.get("more_body", False)
    return body


async def _refuse(send: Send, fault: Fault, request_id: str, *headers: tuple[bytes, bytes]) -> None:
    _log.info(
        "agent refused", code=fault.code.value, cause=fault.cause or fault.message, request_id=request_id
    )
    message = "The server failed." if fault.code is Code.INTERNAL else fault.public
    # the form of the Connect protocol: the agent passes it on to the task as it is
    content: dict[str, Any] = {"code": fault.code.value, "message": message}
    if isinstance(fault, Over):
        content["over"] = True
    wait = retry_after(fault)
    more = ((b"retry-after", wait.encode()),) if wait else ()
    await _answer(send, HTTP_STATUS[fault.code], content, request_id, *headers, *more)


async def _answer(
    send: Send, status: int, content: dict[str, Any], request_id: str, *more: tuple[bytes, bytes]
) -> None:
    body = json.dumps(content).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-request-id", request_id.encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

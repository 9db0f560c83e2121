"""Signing in with the browser on this machine: a code to a loopback address, bound by PKCE (RFC 8252).

A fresh port of 127.0.0.1 listens for one answer. What does not carry this login's own state is refused, and
so is a request that a page of another name made (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import webbrowser
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode, urlsplit

from flyte.errors import DeadlineExceededError, ServerError, UnauthenticatedError
from flyte.transport.login.cache import Entry
from flyte.transport.login.server import CLIENT, AuthServer, Places

WAIT_SECONDS = 300.0
_PATH = "/callback"
_MAX_LINE = 16 * 1024


def pkce() -> tuple[str, str]:
    """A verifier and its S256 challenge (RFC 7636 section 4)."""
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    return verifier, base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def open_browser(url: str) -> bool:
    """Show the page in the person's browser; whether there is one."""
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


async def sign_in(
    server: AuthServer,
    *,
    scope: str,
    device: str,
    show: Callable[[str], None],
    wait: float = WAIT_SECONDS,
) -> Entry:
    """Have a person allow this login. `show` gets the address to open.

    Raises UnauthenticatedError for a no, DeadlineExceededError when nobody answered, ServerError.
    """
    places = await server.places()
    verifier, challenge = pkce()
    state = secrets.token_urlsafe(24)
    answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    listener = _Listener(state, places, answer)
    running = await asyncio.start_server(listener.serve, "127.0.0.1", 0, limit=_MAX_LINE)
    async with running:
        port = running.sockets[0].getsockname()[1]
        listener.host = f"127.0.0.1:{port}"
        redirect = f"http://127.0.0.1:{port}{_PATH}"
        question = {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": redirect,
            "scope": scope,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        show(f"{places.authorization_endpoint}?{urlencode(question)}")
        try:
            told = await asyncio.wait_for(answer, wait)
        except TimeoutError:
            raise DeadlineExceededError("Nobody signed in.", hint="Try again, or use --device.") from None
    if "error" in told:
        if told["error"] == "access_denied":
            raise UnauthenticatedError("The answer in the browser was no.")
        raise ServerError(f"The login was refused: {told.get('error_description') or told['error']}")
    tokens = await server.token(
        grant_type="authorization_code",
        code=told["code"],
        redirect_uri=redirect,
        code_verifier=verifier,
        device_name=device,
    )
    entry = server.entry(tokens, subject="")
    return server.entry(tokens, subject=await server.subject(entry.access_token))


class _Listener:
    """Takes the one answer that carries the state, and tells everything else nothing."""

    def __init__(self, state: str, places: Places, answer: asyncio.Future[dict[str, str]]) -> None:
        self._state = state
        self._issuer = places.issuer
        self._answer = answer
        self.host = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                told = self._read(head.decode("latin-1"))
                text = "You can close this page." if told is not None else "This page is for a login only."
                status = "200 OK" if told is not None else "400 Bad Request"
                writer.write(_page(status, text))
                await writer.drain()
                if told is not None and not self._answer.done():
                    self._answer.set_result(told)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError):
            pass
        finally:
            writer.close()

    def _read(self, head: str) -> dict[str, str] | None:
        line, *fields = head.split("\r\n")
        method, _, rest = line.partition(" ")
        target = rest.rpartition(" ")[0]
        hosts = [
            value.strip() for name, _, value in (f.partition(":") for f in fields) if name.lower() == "host"
        ]
        parts = urlsplit(target)
        if method != "GET" or parts.path != _PATH or hosts != [self.host]:
            return None
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=20)
        told = dict(pairs)
        if len(told) != len(pairs) or not hmac.compare_digest(
            told.get("state", "").encode(), self._state.encode()
        ):
            return None
        if told.get("iss", self._issuer) != self._issuer:  # RFC 9207: another server's answer
            return None
        return told if told.get("code") or told.get("error") else None


def _page(status: str, text: str) -> bytes:
    body = f"<!doctype html><title>flyte</title><p>{text}</p>".encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {len(body)}\r\n"
        "cache-control: no-store\r\nreferrer-policy: no-referrer\r\n"
        "content-security-policy: default-src 'none'\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body

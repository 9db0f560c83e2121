"""The OAuth door over the identity rooms, with a clock that stands still, and a browser in front of it."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from tests.identity_world import HOST, World

ORIGIN = f"http://{HOST}"
BACK = "http://127.0.0.1:49152/callback"


@dataclass
class Proof:
    """A PKCE pair."""

    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


class Server:
    """Shorthands for what clients and browsers do."""

    def __init__(self, world: World, http: httpx.AsyncClient) -> None:
        self.world = world
        self.http = http

    async def post(self, path: str, **fields: str) -> httpx.Response:
        return await self.http.post(path, data=fields)

    async def token(self, grant: str, **fields: str) -> httpx.Response:
        return await self.post("/oauth2/token", grant_type=grant, **fields)

    def question(self, proof: Proof, **changes: str | None) -> str:
        """The address that a command line opens in the browser."""
        fields: dict[str, str | None] = {
            "response_type": "code",
            "client_id": "flyte",
            "redirect_uri": BACK,
            "scope": "all",
            "state": "st-1",
            "code_challenge": proof.challenge,
            "code_challenge_method": "S256",
            **changes,
        }
        return "/oauth2/authorize?" + urlencode({k: v for k, v in fields.items() if v is not None})

    async def answer(
        self, person: str, question: str, answer: str = "allow", **headers: str
    ) -> httpx.Response:
        """Press a button on the consent page as this person."""
        cookie = await self.world.cookie(person)
        sent = {
            "origin": ORIGIN,
            "sec-fetch-site": "same-origin",
            "cookie": f"tower_session={cookie}",
            **headers,
        }
        return await self.http.post(question, data={"answer": answer}, headers=sent)

    async def code(self, person: str, proof: Proof, **changes: str | None) -> str:
        """A code that this person allowed."""
        answered = await self.answer(person, self.question(proof, **changes))
        assert answered.status_code == 303, answered.text
        return told(answered)["code"]

    async def login(self, person: str, **changes: str | None) -> dict[str, Any]:
        """The tokens of a fresh login of this person."""
        proof = Proof()
        code = await self.code(person, proof, **changes)
        answer = await self.token(
            "authorization_code",
            code=code,
            client_id="flyte",
            redirect_uri=BACK,
            code_verifier=proof.verifier,
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def told(answer: httpx.Response) -> dict[str, str]:
    """What a redirect carries."""
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World.opened(tmp_path) as opened:
        await opened.person("alice", "contributor")
        await opened.person("bob", "viewer")
        yield opened


@pytest.fixture
async def server(world: World) -> AsyncIterator[Server]:
    transport = httpx.ASGITransport(app=world.oauth.door, client=("127.0.0.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
        yield Server(world, http)

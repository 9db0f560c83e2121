"""Tokens: how many the token endpoint gives out per second of one core, and what checking one again costs.

Both in one process, without sockets: the door is called as the server calls it. Each token is asked for with
a key's id and secret, checked against the store's facts, audited in the hash chain and fsynced before the
answer. Beside it stands the signature alone, made by the library that all of it rests on.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tower.clock import SystemClock
from tower.identity import keys
from tower.identity.accesstokens import AccessTokens
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Presented
from tower.identity.keyring import KeyRing
from tower.identity.principal import Kind
from tower.main.house import House, compose
from tower.settings import Settings

GOAL_PER_SECOND = 1000.0
GOAL_MICROSECONDS = 15.0
_AT_ONCE = 64
_TOKENS = 3000


def main() -> dict[str, Any]:
    """Measure; the ratio is the worse of the two against its goal, so that 1 is just met."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(home: Path) -> dict[str, Any]:
    async with compose(Settings(home=home)) as house:
        await house.identities.add_user(MACHINE, subject="robot", kind=Kind.SERVICE)
        key = (await house.api_keys.create(MACHINE, name="robot", subject="robot")).key
        await _issue(house, key, 200)
        wall, busy, token = await _issue(house, key, _TOKENS)
        minted = _minted()
        verified = _each(_verifier(token, home), 20_000)
        named = await _named(house, token, 5_000)
    signed = 1e6 / _each(_signer(), 2_000)
    per_core, from_cache = _TOKENS / busy, verified
    ratio = max(GOAL_PER_SECOND / per_core, from_cache / GOAL_MICROSECONDS)
    return {
        "bench": "tokens",
        "unit": "tokens per second of one core",
        "tokens_per_core_second": round(per_core),
        "tokens_per_second": round(_TOKENS / wall),
        "minted_per_second": round(minted),
        "signatures_per_second": round(signed),
        "verify_from_cache_us": round(from_cache, 2),
        "name_the_caller_us": round(named, 1),
        "ratio": round(ratio, 3),
        "goal": 1.0,
        "met": ratio <= 1.0,
        "says": (
            f"{per_core:.0f} tokens a second of one core, audited and durable ({minted:.0f} minted alone, "
            f"{signed:.0f} bare signatures); {from_cache:.1f} µs to check one again, "
            f"{named:.0f} µs to name its caller"
        ),
    }


async def _issue(house: House, key: keys.ApiKey, count: int) -> tuple[float, float, str]:
    """Seconds by the clock and of CPU (all threads of the process) for so many tokens, and one of them."""
    body = urlencode(
        {"grant_type": "client_credentials", "client_id": key.id, "client_secret": key.secret}
    ).encode()
    left, last = count, b""

    async def ask() -> None:
        nonlocal left, last
        while left > 0:
            left -= 1
            last = await _post(house.oauth.door, "/oauth2/token", body)

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask() for _ in range(_AT_ONCE)))
    wall, busy = time.perf_counter() - began, time.process_time() - used
    return wall, busy, last.partition(b'"access_token":"')[2].partition(b'"')[0].decode()


async def _post(app: Any, path: str, body: bytes) -> bytes:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"content-length", str(len(body)).encode()),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200, sent
    return b"".join(message.get("body", b"") for message in sent[1:])


def _minted() -> float:
    with tempfile.TemporaryDirectory() as folder:
        clock = SystemClock()
        tokens = AccessTokens(keys=KeyRing(Path(folder), clock=clock), clock=clock, ours=lambda _: True)
        each = _each(
            lambda: tokens.mint(
                issuer="http://127.0.0.1:8080",
                subject="robot",
                client="robot",
                holder="robot",
                scope="all",
                life=600.0,
            ),
            2_000,
        )
    return 1e6 / each


def _verifier(token: str, home: Path) -> Any:
    clock = SystemClock()
    ring = KeyRing(home / "signing-keys", clock=clock)
    tokens = AccessTokens(keys=ring, clock=clock, ours=lambda _: True)
    tokens.verify(token)

    def check() -> None:
        assert tokens.recognises(token)
        tokens.verify(token)

    return check


async def _named(house: House, token: str, count: int) -> float:
    """Microseconds for the whole chain: headers, credential, login or key, person."""
    presented = Presented(
        headers=((b"host", b"127.0.0.1:8080"), (b"authorization", b"Bearer " + token.encode())),
        host="127.0.0.1:8080",
        audience="rpc",
    )
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count // 5):
            await house.chain.authenticate(presented)
        times.append((time.perf_counter() - began) / (count // 5) * 1e6)
    return statistics.median(times)


def _signer() -> Any:
    key = Ed25519PrivateKey.generate()
    content = b"x" * 300
    return lambda: key.sign(content)


def _each(work: Any, count: int) -> float:
    """Microseconds for one, the median of five rounds."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count // 5):
            work()
        times.append((time.perf_counter() - began) / (count // 5) * 1e6)
    return statistics.median(times)

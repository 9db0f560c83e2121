"""The few requests that go out to an identity provider: bounded in time and size, no redirects."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from tower.errors import Unavailable
from tower.issuers import safe_url

SECONDS = 10.0
MAX_ANSWER = 1024 * 1024

_MAX_HEADER = 16 * 1024


async def get(url: str, *, bearer: str = "") -> dict[str, Any]:
    """The JSON object at an address. Raises Unavailable for every other answer."""
    headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
    status, found = await _request("GET", url, headers=headers)
    if status != 200:
        raise unavailable(f"GET {url}: status {status}")
    return found


async def post(
    url: str, fields: Mapping[str, str], *, basic: tuple[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Send a form; the status and the JSON object of the answer. Raises Unavailable for any other."""
    headers = {}
    if basic is not None:
        headers["authorization"] = _basic(*basic)
    return await _request("POST", url, headers=headers, data=dict(fields))


async def _request(
    method: str, url: str, *, headers: Mapping[str, str], data: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    if not safe_url(url):
        raise unavailable(f"{url} is neither https nor on this machine")
    # not at the top of this file: megabytes that a Tower without identity providers never needs
    import aiohttp

    try:
        # one session for one request: there are only a few an hour, and nothing to close at the end
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                max_line_size=_MAX_HEADER,
                max_field_size=_MAX_HEADER,
            ) as session,
            session.request(
                method,
                url,
                headers={"accept": "application/json", **headers},
                data=data,
                allow_redirects=False,
            ) as answer,
        ):
            content = await answer.content.read(MAX_ANSWER + 1)
            while len(content) <= MAX_ANSWER and not answer.content.at_eof():
                content += await answer.content.read(MAX_ANSWER + 1 - len(content))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise unavailable(f"{method} {url}: {error!r}") from error
    if len(content) > MAX_ANSWER:
        raise unavailable(f"{method} {url}: an answer of more than {MAX_ANSWER} bytes")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise unavailable(f"{method} {url}: status {answer.status}, no JSON") from error
    if not isinstance(found, dict):
        raise unavailable(f"{method} {url}: status {answer.status}, no JSON object")
    return answer.status, found


def unavailable(cause: str) -> Unavailable:
    """That an identity provider does not answer as it should; who calls may try again."""
    return Unavailable(
        "The identity provider cannot be reached at the moment.", hint="Try again in a moment.", cause=cause
    )


def _basic(name: str, secret: str) -> str:
    """Client authentication by header: both halves are form-encoded first (RFC 6749 section 2.3.1)."""
    return "Basic " + b64encode(f"{quote_plus(name)}:{quote_plus(secret)}".encode()).decode("ascii")

"""A request that is here as a whole gets to the same door as any other, or to none directly."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast

import pytest

from tower.control.agents import Agents
from tower.direct import Answer
from tower.main.doors import Doors
from tower.main.proxy import BehindProxy
from tower.nodes.door import NodesDoor
from tower.possession import TOKEN_HEADER


class Rpc:
    """Takes everything, and says what it saw."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing goes this way here")

    def direct(self, scope: Any, body: bytes) -> Coroutine[Any, Any, Answer] | None:
        return self.answer(scope, body)

    async def answer(self, scope: Any, body: bytes) -> Answer:
        return 200, [], f"{scope['scheme']} {scope['client'][0]} {body.decode()}".encode()


async def other(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing goes this way here")


def request(path: str = "/a.Service/Method", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": "http",
        "client": ("10.0.0.1", 1),
        "path": path,
        "raw_path": path.encode(),
        "headers": [(b"host", b"x"), *headers],
    }


def claims(scope: Any) -> bool:
    return bool(dict(scope["headers"])[b"host"] == b"app.x")


DOORS = Doors([("/a.Service/", Rpc()), ("/data/", other)], otherwise=other, claimed=claims, claimer=other)


async def said(app: Any, scope: dict[str, Any]) -> bytes | None:
    answer = app.direct(scope, b"body")
    return None if answer is None else (await answer)[2]


@pytest.mark.parametrize(
    "path",
    ["/", "/a.Service", "/a.ServiceX/Method", "/a.Service/Method/more", "/data/x", "/b.Service/Method"],
)
async def test_other_paths_are_not_answered_directly(path: str) -> None:
    assert await said(DOORS, request(path)) is None


async def test_a_host_of_an_app_is_the_gateways_whatever_its_path() -> None:
    scope = request()
    assert await said(DOORS, scope) == b"http 10.0.0.1 body"
    scope["headers"] = [(b"host", b"app.x")]
    assert await said(DOORS, scope) is None


async def test_a_call_of_an_agent_is_not_answered_directly() -> None:
    front = NodesDoor(cast("Agents", None), hosted=other, public=DOORS)
    assert await said(front, request()) == b"http 10.0.0.1 body"
    assert await said(front, request("/a.Service/Method", (TOKEN_HEADER, b"t"))) is None
    assert await said(NodesDoor(cast("Agents", None), hosted=other, public=other), request()) is None


async def test_behind_a_proxy_the_caller_is_whom_it_names() -> None:
    front = BehindProxy(NodesDoor(cast("Agents", None), hosted=other, public=DOORS), "https://x")
    forwarded = (b"x-forwarded-for", b"10.9.9.9, 10.0.0.7")
    assert await said(front, request("/a.Service/Method", forwarded)) == b"https 10.0.0.7 body"

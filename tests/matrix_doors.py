"""What is mounted: every RPC and route, read from the doors of a running Tower and not from the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tower.console.door import Console
from tower.gateway import door as gateway
from tower.main.doors import Doors, nothing_here
from tower.nodes import door as nodes
from tower.oauth.door import Door as OAuthDoor
from tower.rest.door import Door as RestDoor
from tower.rpc import attesting, transfer
from tower.rpc.chain import Door as RpcDoor


def mounted(front: nodes.NodesDoor) -> set[str]:
    """The paths of RPCs, and `<door> <METHOD> <path template>` of everything else."""
    found = {*nodes.ROUTES}
    for doors in (front._hosted, front._public):
        assert isinstance(doors, Doors)
        if doors._claimer is not None:
            assert isinstance(doors._claimer, gateway.Gateway)
            found |= {*gateway.ROUTES}
        for app in {id(app): app for _, app in doors._prefixes}.values():
            found |= set(_routes(app))
        if doors._otherwise is not nothing_here:
            found |= set(_routes(doors._otherwise))
    return found


def _routes(app: Any) -> Iterator[str]:
    match app:
        case RpcDoor():
            yield from app._routes
        case RestDoor():
            yield from _tables("rest", app._app)
        case OAuthDoor():
            yield from _tables("oauth", app._app)
        case Console():
            yield from _tables("console", app._app)
        case transfer.Transfer():
            yield from transfer.ROUTES
        case attesting.AttestedDoor():
            yield from attesting.ROUTES
        case _:
            raise AssertionError(f"{app} is a door that the matrix does not know")


def _tables(door: str, app: Any) -> Iterator[str]:
    for route in app.routes:
        for each in getattr(getattr(route, "original_router", None), "routes", [route]):
            methods = set(each.methods) - ({"HEAD"} if "GET" in each.methods else set())
            yield from (f"{door} {method} {each.path}" for method in methods)

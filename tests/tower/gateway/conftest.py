"""A house with one app `echo` behind a gateway, both under real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.tower.gateway.echo import Echo
from tests.tower.gateway.house import DOMAIN, House, built, serving

HOST = f"echo-flytesnacks-development.{DOMAIN}"


@dataclass(slots=True)
class Street:
    """The house, the gateway's port, the app behind it, and alice's key (a viewer of the project)."""

    house: House
    port: int
    echo: Echo
    alice: str

    @property
    def host(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def origin(self) -> str:
        return f"http://{self.host}"

    def client(self, key: str | None = None, *, host: str | None = None, **headers: str) -> httpx.AsyncClient:
        """A client that calls the app by its host name."""
        sent = {"host": host or self.host, **headers}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers=sent, trust_env=False, timeout=60.0
        )

    async def browser(self, name: str = "alice") -> dict[str, str]:
        """The cookie header of a person signed in to the app."""
        console = f"127.0.0.1:{self.port}"
        session = await self.house.session(name, console)
        return {"cookie": f"tower_session={await self.house.app_session(session, console, self.host)}"}


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    echo = Echo()
    async with built(tmp_path, max_body=1024 * 1024) as house:
        alice = await house.person("alice")
        await house.deploy("echo")
        uds = tmp_path / "echo.sock"
        gateway = house.gateway(recheck_seconds=0.05)
        async with serving(echo.app, uds=uds), serving(gateway) as port:
            house.processes.sockets["flytesnacks/development/echo"] = uds
            yield Street(house, port, echo, alice)
            await gateway.close()

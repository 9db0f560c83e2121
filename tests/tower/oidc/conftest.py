"""Three issuers of a real certified provider, and a house that lets their people in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.idp.running import API, TOWER_SECRET, Idp, available
from tests.tower.gateway.house import House, built

from tower.identity.offers import Presented
from tower.identity.principal import Principal
from tower.issuers import IssuerSettings, RoleOfGroup


@pytest.fixture(scope="session")
def idp() -> Iterator[Idp]:
    if reason := available():
        pytest.skip(reason)
    with Idp.started(corp="RS256", labs="EdDSA", edge="ES256") as running:
        yield running


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "corp.secret"
    path.touch(mode=0o600)
    path.write_text(TOWER_SECRET + "\n")
    return path


@dataclass(slots=True)
class Federated:
    """A house whose settings name the issuers; `who` asks its chain."""

    house: House
    idp: Idp

    async def who(self, token: str, audience: Any = "rpc") -> Principal:
        headers = ((b"authorization", f"Bearer {token}".encode()),)
        return await self.house.chain.authenticate(
            Presented(headers=headers, host="127.0.0.1:1", audience=audience)
        )

    def rest(self, token: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.house.rooms.rest),
            base_url="http://tower",
            headers={"authorization": f"Bearer {token}"},
        )


def corp(idp: Idp, **changes: Any) -> IssuerSettings:
    values: dict[str, Any] = {
        "alias": "corp",
        "issuer": idp.urls["corp"],
        "client_id": "tower",
        "audiences": (API,),
        "scopes": ("openid", "profile", "email", "groups"),
        "label": "Example Corp",
        "groups_claim": "groups",
        "groups": {"staff": "everyone"},
        "roles": (RoleOfGroup("makers", "contributor", "flytesnacks", "development"),),
    }
    return IssuerSettings(**{**values, **changes})


@pytest.fixture
async def federated(tmp_path: Path, idp: Idp, secret_file: Path) -> AsyncIterator[Federated]:
    issuers = (
        corp(idp, client_secret_file=secret_file),
        IssuerSettings(alias="labs", issuer=idp.urls["labs"], audiences=(API,), algorithms=("EdDSA",)),
        IssuerSettings(
            alias="edge",
            issuer=idp.urls["edge"],
            client_id="tower",
            client_secret_file=secret_file,
            audiences=(API,),
            subject="email",
            email_domains=("example.com",),
        ),
    )
    async with built(tmp_path / "home", issuers=issuers) as house:
        yield Federated(house, idp)

"""Threats by tokens of identity providers and by deliveries of third parties, each as one attack."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.idp.running import OTHER_API, Idp, available
from tests.tower.gateway.echo import Echo
from tests.tower.gateway.house import built, serving
from tests.tower.gateway.test_third_party_webhooks import BODY, PATHS, PLACE, Post
from tests.tower.identity.test_webhook_signatures import signed
from tests.tower.oidc.test_foreign_tokens import Reader, decoded, encoded

from tower.errors import Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.oidc.provider import REFETCH_SECONDS
from tower.identity.principal import Kind

pytestmark = pytest.mark.xdist_group("idp")


@pytest.fixture(scope="module")
def idp() -> Iterator[Idp]:
    if reason := available():
        pytest.skip(reason)
    with Idp.started(corp="RS256", labs="ES256") as running:
        yield running


async def test_t12_a_token_that_its_issuer_did_not_sign_is_refused(idp: Idp) -> None:
    reader = Reader(idp)
    header, payload, signature = idp.program("corp").split(".")
    fields, claims = decoded(header), decoded(payload)
    other = idp.program("labs").rpartition(".")[2]

    for token in (
        f"{encoded({**fields, 'alg': 'none'})}.{payload}.",
        f"{encoded({**fields, 'alg': 'HS256'})}.{payload}.{signature}",
        f"{encoded({**fields, 'kid': ''})}.{payload}.{signature}",
        f"{encoded({**fields, 'jku': idp.urls['labs'] + '/jwks'})}.{payload}.{other}",
        f"{header}.{encoded({**claims, 'sub': 'alice'})}.{signature}",
        f"{header}.{payload}.{other}",
    ):
        with pytest.raises(Unauthenticated):
            await reader.read(token)


async def test_t13_a_token_of_another_time_audience_issuer_or_kind_is_refused(idp: Idp) -> None:
    reader = Reader(idp)
    granted = idp.person("corp", "alice")
    good = granted["access_token"]
    assert await reader.read(good) == "alice"
    assert await reader.read(idp.program("labs")) is None  # an issuer that is not in the settings

    for token in (granted["id_token"], idp.program("corp", resource=OTHER_API)):
        with pytest.raises(Unauthenticated):
            await reader.read(token)
    for seconds in (-500, 300 + 60):
        reader.clock.time = time.time() + seconds
        with pytest.raises(Unauthenticated):
            await reader.read(good if seconds > 0 else idp.program("corp"))


async def test_t45_a_thousand_bad_tokens_cause_one_fetch_of_keys_at_most(idp: Idp) -> None:
    reader = Reader(idp)
    header, payload, signature = idp.program("corp").split(".")
    assert await reader.read(f"{header}.{payload}.{signature}") == "robot"
    before = idp.hits("corp")
    reader.clock.time += REFETCH_SECONDS

    for number in range(1000):
        with pytest.raises(Unauthenticated):
            await reader.read(f"{encoded({**decoded(header), 'kid': str(number)})}.{payload}.{signature}")

    assert idp.hits("corp") <= before + 1
    assert await reader.read(idp.program("corp")) == "robot"


@pytest.mark.parametrize("path", PATHS)
async def test_t48_only_a_fresh_delivery_with_the_right_signature_runs_as_the_mapped_identity(
    tmp_path: Path, path: str
) -> None:
    echo = Echo()
    async with built(tmp_path) as house:
        await house.identities.add_user(
            MACHINE, subject="robot", kind=Kind.SERVICE, role="viewer", project="flytesnacks"
        )
        await house.deploy("hooks", config={"flyte.webhooks": [{"path": path, "scheme": PATHS[path]}]})
        gateway = house.gateway()
        async with serving(echo.app, uds=tmp_path / "hooks.sock"), serving(gateway) as port:
            house.processes.sockets["/".join(PLACE)] = tmp_path / "hooks.sock"
            post = Post(house, echo, port)
            await post.map(path)
            good = signed(PATHS[path], BODY, at=time.time())
            forged = await post.send(path, secret=b"the secret of somebody else")
            genuine = await post.send(path, headers=good)
            repeated = await post.send(path, headers=good)
            await gateway.close()

        assert [forged.status_code, genuine.status_code, repeated.status_code] == [401, 200, 401]
        (seen,) = echo.seen
        headers = dict(seen["headers"])  # type: ignore[call-overload]
        assert house.claims(headers["authorization"].removeprefix("Bearer ")).subject == "robot"

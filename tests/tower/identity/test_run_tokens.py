"""Run tokens: genuine ones over TLS name the executor of a live attempt, and nothing else names anybody."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from tests.identity_world import FakeClock

from tower.errors import Unauthenticated
from tower.identity.offers import Offer, Presented, Source
from tower.identity.principal import Actor, ActorKind, Credential, CredentialKind, Kind, Principal
from tower.identity.runtokens import RunTokenBearers, RunTokens
from tower.identity.signing import SigningKey
from tower.identity.tokens import AppTokens
from tower.identity.workload import Workload, WorkloadKind

ATTEMPT = "flytesnacks/development/r1/a0/1"
OVER_TLS = Presented(headers=(), secure=True, host="tower.example", audience="rpc")


class Attempts:
    """The one attempt that is running, until `over`."""

    def __init__(self) -> None:
        self.over = False

    async def attempt(self, attempt_id: str) -> Principal | None:
        if self.over or attempt_id != ATTEMPT:
            return None
        return Principal(
            subject="alice",
            kind=Kind.USER,
            name="Alice",
            credential=Credential(CredentialKind.WORKLOAD, ATTEMPT, attested=True, parent="key1"),
            actors=(Actor(ActorKind.RUN, ATTEMPT),),
        )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def tokens(key: SigningKey, clock: FakeClock) -> RunTokens:
    return RunTokens(keys=key, clock=clock, issuer="tower")


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
def bearers(tokens: RunTokens, attempts: Attempts) -> RunTokenBearers:
    return RunTokenBearers(tokens=tokens, attempts=attempts)


def bearer(text: str) -> Offer:
    return Offer(Source.AUTHORIZATION, text)


def mint(tokens: RunTokens, *, subject: str = "alice", attempt: str = ATTEMPT) -> str:
    return tokens.mint(subject=subject, attempt=attempt, life=600)[0]


async def test_names_the_executor_but_not_as_attested(bearers: RunTokenBearers, tokens: RunTokens) -> None:
    principal = await bearers.authenticate(bearer(mint(tokens)), OVER_TLS)
    assert principal is not None
    assert (principal.subject, principal.credential.kind) == ("alice", CredentialKind.WORKLOAD)
    assert (principal.credential.id, principal.credential.attested) == (ATTEMPT, False)
    assert principal.credential.expires_at is not None
    assert principal.actors == (Actor(ActorKind.RUN, ATTEMPT),)


async def test_ends_with_the_attempt_and_with_its_time(
    bearers: RunTokenBearers, tokens: RunTokens, attempts: Attempts, clock: FakeClock
) -> None:
    token = mint(tokens)
    attempts.over = True
    with pytest.raises(Unauthenticated, match="over"):
        await bearers.authenticate(bearer(token), OVER_TLS)
    attempts.over = False
    clock.time += 600
    with pytest.raises(Unauthenticated, match="expired"):
        await bearers.authenticate(bearer(token), OVER_TLS)


async def test_is_bound_to_attempt_and_subject(bearers: RunTokenBearers, tokens: RunTokens) -> None:
    for token in (mint(tokens, subject="bob"), mint(tokens, attempt=ATTEMPT[:-1] + "2")):
        with pytest.raises(Unauthenticated):
            await bearers.authenticate(bearer(token), OVER_TLS)


@pytest.mark.parametrize(
    "presented",
    [
        replace(OVER_TLS, secure=False),
        replace(OVER_TLS, audience="console"),
        replace(OVER_TLS, workload=Workload(WorkloadKind.APP, "flytesnacks/development/app", 1)),
        replace(OVER_TLS, workload=Workload(WorkloadKind.ATTEMPT, ATTEMPT, 1)),
        replace(OVER_TLS, workload=Workload(WorkloadKind.ADMIN, "admin", 1)),
    ],
)
async def test_no_other_door(bearers: RunTokenBearers, tokens: RunTokens, presented: Presented) -> None:
    with pytest.raises(Unauthenticated):
        await bearers.authenticate(bearer(mint(tokens)), presented)


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_forgeries_do_not_hold(
    bearers: RunTokenBearers, tokens: RunTokens, key: SigningKey, clock: FakeClock
) -> None:
    token = mint(tokens)
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    foreign = RunTokens(keys=SigningKey.generate(), clock=clock, issuer="tower")
    for forged in (
        f"{header}.{_part({**claims, 'sub': 'bob'})}.{signature}",
        f"{_part({'alg': 'none', 'typ': 'run+jwt'})}.{payload}.",
        f"{_part({'alg': 'Ed25519', 'typ': 'run+jwt', 'kid': key.kid, 'jwk': {}})}.{payload}.{signature}",
        mint(foreign),
        mint(RunTokens(keys=key, clock=clock, issuer="elsewhere")),
    ):
        with pytest.raises(Unauthenticated):
            await bearers.authenticate(bearer(forged), OVER_TLS)


async def test_kinds_of_tokens_are_told_apart(
    bearers: RunTokenBearers, tokens: RunTokens, key: SigningKey, clock: FakeClock
) -> None:
    app, _ = AppTokens(key=key, clock=clock, issuer="tower").mint(
        subject="alice",
        app="flytesnacks/development/app",
        before=(),
        parent_kind=CredentialKind.API_KEY,
        parent="key1",
        root="key1",
        ceilings=(),
        life=60,
    )
    assert await bearers.authenticate(bearer(app), OVER_TLS) is None
    with pytest.raises(Unauthenticated):
        AppTokens(key=key, clock=clock, issuer="tower").verify(mint(tokens))
    assert not tokens.recognises("twr_x_y")

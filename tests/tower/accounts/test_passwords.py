"""Built-in accounts: what a password must be, how it is kept, and what guessing costs."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.identity_world import HOST, FakeClock, World

from tower.errors import Denied, Exhausted, Invalid, NotFound, Precondition, Unauthenticated
from tower.identity import passwords
from tower.identity.attempts import Attempts, Rate
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Kind

GOOD = "rain falls on the old harbour"


async def sign_in(world: World, name: str = "alice", password: str = GOOD, source: str = "10.0.0.1") -> str:
    return (await world.oauth.accounts.sign_in(name, password, host=HOST, source=source)).text


async def test_a_password_opens_a_session(world: World) -> None:
    await world.oauth.accounts.set_password(MACHINE, "alice", GOOD)
    caller = await world.who(cookie=await sign_in(world), audience="console")
    assert (caller.subject, caller.credential.kind) == ("alice", "session")
    assert [record.decision for record in await world.records(event="session.create")] == ["password"]


async def test_the_store_keeps_argon2id_at_the_cost_of_rfc_9106(world: World) -> None:
    await world.oauth.accounts.set_password(MACHINE, "alice", GOOD)
    with closing(sqlite3.connect(world.home / "tower.db")) as store:
        ((kept,),) = store.execute("SELECT hash FROM passwords").fetchall()
        whole = "\n".join(store.iterdump())
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert GOOD not in whole
    one, two = passwords.hash_password(GOOD), passwords.hash_password(GOOD)
    assert one != two
    assert passwords.verify(GOOD, one)
    assert passwords.verify(GOOD, two)


async def test_every_way_of_being_wrong_is_answered_alike(world: World) -> None:
    accounts = world.oauth.accounts
    for name in ("bob", "carol"):
        await world.person(name)
    await accounts.set_password(MACHINE, "alice", GOOD)
    await accounts.set_password(MACHINE, "bob", GOOD)
    await world.identities.set_disabled(MACHINE, "bob", disabled=True)
    await world.identities.add_user(MACHINE, subject="robot", kind=Kind.SERVICE)
    answers = set()
    for name, password in (
        ("alice", "wrong"),
        ("alice", ""),
        ("alice", "x" * 100_000),
        ("ALICE", GOOD),
        ("nobody", GOOD),
        ("bob", GOOD),
        ("carol", GOOD),
        ("robot", GOOD),
        ("", ""),
        ("x" * 10_000, GOOD),
        ("alice\ud800", GOOD),
    ):
        with pytest.raises(Unauthenticated) as refused:
            await sign_in(world, name, password)
        answers.add((type(refused.value), refused.value.public))
    assert len(answers) == 1
    for record in await world.records(event="auth.refuse"):
        assert record.subject == "anonymous"
        assert "nobody" not in record.detail  # it may be a password in the wrong field


async def test_an_unknown_name_costs_as_much_as_a_known_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.oauth.accounts.set_password(MACHINE, "alice", GOOD)
    passwords.verify("warm", None)
    checked: list[int] = []

    class Counting(type(passwords._HASHER)):  # type: ignore[misc]
        def verify(self, *arguments: object) -> bool:
            checked.append(1)
            return bool(super().verify(*arguments))

    monkeypatch.setattr(passwords, "_HASHER", Counting())
    for name in ("alice", "nobody", "robot"):
        with pytest.raises(Unauthenticated):
            await sign_in(world, name, "wrong")
    assert len(checked) == 3


async def test_guessing_is_throttled_by_account_and_by_source(world: World) -> None:
    await world.oauth.accounts.set_password(MACHINE, "alice", GOOD)

    async def guess(name: str, source: str) -> type[Exception]:
        with pytest.raises((Unauthenticated, Exhausted)) as refused:
            await sign_in(world, name, "wrong", source)
        return refused.type

    for name in ("alice", "nobody"):  # the same, whether the account exists or not
        seen = [await guess(name, f"10.0.{len(name)}.{number}") for number in range(12)]
        assert seen == [Unauthenticated] * 10 + [Exhausted] * 2
    with pytest.raises(Exhausted):
        await sign_in(world)
    world.clock.time += 31.0
    await sign_in(world)
    seen = [await guess(f"user{number}", "10.9.9.9") for number in range(52)]
    assert seen[-1] is Exhausted
    assert seen[:50] == [Unauthenticated] * 50


async def test_being_right_is_not_counted(world: World) -> None:
    await world.oauth.accounts.set_password(MACHINE, "alice", GOOD)
    for _ in range(12):
        await sign_in(world)


@pytest.mark.parametrize(
    "password",
    [
        "",
        "short",
        "a" * 40,
        "ababababababab",
        "password",
        "password1234",
        "alicealicealice",
        "changeme1234",
        "x1" * 600,
    ],
)
async def test_weak_passwords_are_refused(world: World, password: str) -> None:
    with pytest.raises(Invalid):
        await world.oauth.accounts.set_password(MACHINE, "alice", password)


async def test_setting_a_password_ends_sessions_and_needs_the_right(world: World) -> None:
    accounts = world.oauth.accounts
    key = await world.person("bob", "contributor")
    with pytest.raises(Denied):
        await accounts.set_password(await world.who(bearer=key), "alice", GOOD)
    await accounts.set_password(MACHINE, "alice", GOOD)
    cookie = await sign_in(world)
    await accounts.set_password(MACHINE, "alice", GOOD + " again")
    with pytest.raises(Unauthenticated):
        await world.who(cookie=cookie, audience="console")
    with pytest.raises(Unauthenticated):
        await sign_in(world)
    await accounts.delete_password(MACHINE, "alice")
    with pytest.raises(Unauthenticated):
        await sign_in(world, password=GOOD + " again")
    with pytest.raises(NotFound):
        await accounts.delete_password(MACHINE, "alice")
    with pytest.raises(NotFound):
        await accounts.set_password(MACHINE, "nobody", GOOD)
    await world.identities.add_user(MACHINE, subject="robot", kind=Kind.SERVICE)
    with pytest.raises(Precondition):
        await accounts.set_password(MACHINE, "robot", GOOD)


async def test_a_person_changes_their_own_password_and_stays(world: World) -> None:
    accounts = world.oauth.accounts
    await accounts.set_password(MACHINE, "alice", GOOD)
    here, there = await sign_in(world), await sign_in(world)
    caller = await world.who(cookie=here, audience="console")
    with pytest.raises(Unauthenticated):
        await accounts.change_password(caller, current="wrong", new=GOOD + "!", source="10.0.0.1")
    await accounts.change_password(caller, current=GOOD, new=GOOD + "!", source="10.0.0.1")
    assert (await world.who(cookie=here, audience="console")).subject == "alice"
    with pytest.raises(Unauthenticated):
        await world.who(cookie=there, audience="console")
    key = await world.who(bearer=await world.key("k", "alice"))
    with pytest.raises(Denied):
        await accounts.change_password(key, current=GOOD + "!", new=GOOD, source="10.0.0.1")


async def test_a_hash_of_an_earlier_cost_is_renewed(world: World) -> None:
    from argon2 import PasswordHasher

    cheap = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(GOOD)
    from tower.store import oauth

    await world.db.write(lambda tx: oauth.set_password(tx, "alice", cheap, at=0.0, by="machine"))
    await sign_in(world)
    kept = await world.db.read(lambda reader: oauth.password(reader, "alice"))
    assert kept is not None
    assert "m=65536" in kept
    await sign_in(world)


def test_the_same_letters_in_another_spelling_are_the_same_password() -> None:
    assert passwords.verify(
        "e\u0301te\u0301 au port de Marseille", passwords.hash_password("été au port de Marseille")
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 50), st.integers(0, 3)), max_size=60))
def test_no_account_is_guessed_faster_than_its_rate(steps: list[tuple[bool, float, int]]) -> None:
    clock = FakeClock()
    attempts = Attempts(
        clock=clock, account=Rate(burst=5, seconds=10.0), source=Rate(burst=1000, seconds=0.1)
    )
    began, failures = clock.time, 0
    for right, wait, source in steps:
        clock.time += wait
        try:
            attempts.begin(account="alice", source=f"10.0.0.{source}")
        except Exhausted:
            continue
        if right:
            attempts.succeeded(account="alice", source=f"10.0.0.{source}")
        else:
            failures += 1
        assert failures <= 5 + (clock.time - began) / 10.0 + 1e-6


def test_memory_is_bounded_and_a_network_is_one_source() -> None:
    clock = FakeClock()
    attempts = Attempts(clock=clock, source=Rate(burst=3, seconds=60.0), capacity=16)
    for number in range(100):
        attempts.begin(account=f"user{number}", source=f"10.0.0.{number}")
    assert len(attempts._accounts._levels) <= 16
    for number in range(3):
        attempts.begin(account=f"v6-{number}", source=f"2001:db8::{number:x}")
    with pytest.raises(Exhausted):
        attempts.begin(account="v6-3", source="2001:db8::ffff:3")


async def test_an_operator_signs_a_person_out_everywhere_but_their_keys(world: World) -> None:
    accounts = world.oauth.accounts
    await accounts.set_password(MACHINE, "alice", GOOD)
    cookie = await sign_in(world)
    key = await world.key("k", "alice")
    await accounts.end_logins(MACHINE, "alice")
    with pytest.raises(Unauthenticated):
        await world.who(cookie=cookie, audience="console")
    assert (await world.who(bearer=key)).subject == "alice"
    assert (await world.who(cookie=await sign_in(world), audience="console")).subject == "alice"
    with pytest.raises(NotFound):
        await accounts.end_logins(MACHINE, "nobody")
    with pytest.raises(Denied):
        await accounts.end_logins(await world.who(bearer=key), "alice")

"""A record is under a signature soon after it was written, and at once when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select
from tests.identity_world import World

from tower.control import auditing
from tower.control.auditing import PROMPT, SECONDS_BETWEEN, prove_home
from tower.errors import Denied
from tower.identity.authenticators import MACHINE
from tower.store.schema_audit import audit, audit_checkpoints


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World.opened(tmp_path) as opened:
        (tmp_path / "signing.key").write_bytes((tmp_path / "signing-key.pem").read_bytes())
        (tmp_path / "signing.key").chmod(0o600)
        yield opened


async def unsigned(world: World) -> int:
    found = await world.db.read(lambda reader: prove_home(world.home, reader))
    assert found.broken is None
    return found.last - found.signed


async def rows(world: World) -> int:
    return int(
        await world.db.read(
            lambda reader: reader.execute(select(func.count()).select_from(audit_checkpoints)).scalar() or 0
        )
    )


async def test_the_next_turn_signs_what_was_recorded_and_writes_no_row(world: World) -> None:
    await world.identities.add_user(MACHINE, subject="alice")
    assert await unsigned(world) == 1
    await world.governance.auditing.turn()
    assert (await unsigned(world), await rows(world)) == (0, 0)
    for number in range(3):
        await world.identities.add_user(MACHINE, subject=f"u{number}")
        world.clock.time += PROMPT
        await world.governance.auditing.turn()
        assert (await unsigned(world), await rows(world)) == (0, 0)


async def test_a_minute_makes_a_row_for_exports_and_silence_none(world: World) -> None:
    await world.identities.add_user(MACHINE, subject="alice")
    world.clock.time += SECONDS_BETWEEN
    await world.governance.auditing.turn()
    assert await rows(world) == 1
    for _ in range(3):
        world.clock.time += SECONDS_BETWEEN
        await world.governance.auditing.turn()
    assert await rows(world) == 1


async def test_a_clock_that_is_set_back_stops_no_signature(world: World) -> None:
    await world.governance.auditing.turn()
    world.clock.time -= 7200
    await world.identities.add_user(MACHINE, subject="alice")
    await world.governance.auditing.turn()
    assert (await unsigned(world), await rows(world)) == (0, 1)


async def test_the_loop_signs_without_being_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "PROMPT", 0.01)
    written = asyncio.Event()
    loop, keep = asyncio.get_running_loop(), auditing._keep

    def noticed(path: Path, checkpoint: object) -> None:
        keep(path, checkpoint)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(auditing, "_keep", noticed)
    world.governance.auditing.start()
    try:
        await world.identities.add_user(MACHINE, subject="alice")
        async with asyncio.timeout(120):
            await written.wait()
        assert await unsigned(world) == 0
    finally:
        await world.governance.auditing.stop()
    assert await rows(world) == 1


async def test_what_is_cut_behind_a_prompt_signature_is_missed(world: World) -> None:
    """Who gets at the database alone cannot take back what happened a second ago."""
    for name in ("alice", "bob"):
        await world.identities.add_user(MACHINE, subject=name)
    await world.governance.auditing.turn()
    await world.db.write(lambda tx: tx.execute(delete(audit).where(audit.c.seq == 2)) and None)
    found = await world.db.read(lambda reader: prove_home(world.home, reader))
    assert found.broken is not None


async def test_who_may_read_the_trail_has_it_signed(world: World) -> None:
    key = await world.person("bob", "contributor", "flytesnacks")
    root = await world.person("root", "admin")
    with pytest.raises(Denied):
        await world.governance.auditing.signed(await world.who(bearer=key))
    through = await world.governance.auditing.signed(await world.who(bearer=root))
    assert (await unsigned(world), through) == (0, len(await world.records()))

"""Checkpoints are signed by the ring's keys: what an old one signed stays provable, a stranger's never is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.identity_world import World

from tower.audit import Damage
from tower.control.auditing import prove_home
from tower.control.proving import prove_export, read_export, signed_by_file
from tower.control.vouching import KEYS_FILE, kept, line, vouch
from tower.identity.authenticators import MACHINE
from tower.identity.keyring import RETIRE_SECONDS
from tower.identity.signing import SigningKey
from tower.main.proof import exported, prove


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World.opened(tmp_path) as opened:
        key = (opened.home / "signing-key.pem").read_bytes()
        (opened.home / "signing.key").write_bytes(key)
        (opened.home / "signing.key").chmod(0o600)
        yield opened


async def _turns(world: World, times: int = 3) -> list[str]:
    """Something is recorded and signed, then the keys rotate until the old ones are gone; who signed."""
    used = []
    for number in range(times):
        await world.identities.add_user(MACHINE, subject=f"u{number}")
        made = await world.governance.auditing.checkpoint()
        assert made is not None
        used.append(made.key_id)
        world.clock.time += RETIRE_SECONDS + 1
        world.ring.rotate()
    return used


def _public(world: World, tmp_path: Path) -> Path:
    """What `tower audit key` prints, in a file elsewhere."""
    public = SigningKey.load(world.home / "signing.key").key.public_key
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[union-attr]
    file = tmp_path / "elsewhere.pem"
    file.write_bytes(pem)
    return file


def _export(world: World) -> str:
    return "".join(exported(world.home))


async def test_old_checkpoints_hold_after_their_keys_are_gone(world: World) -> None:
    used = await _turns(world)
    assert len(set(used)) == 3
    assert all(world.ring.find(kid) is None for kid in used[:-1])
    proof = await world.db.read(lambda reader: prove_home(world.home, reader))
    assert (proof.broken, proof.signed) == (None, 3)
    assert (world.home / KEYS_FILE).stat().st_mode & 0o777 == 0o600


async def test_one_public_key_is_all_that_another_machine_needs(world: World, tmp_path: Path) -> None:
    await _turns(world)
    key, file = _public(world, tmp_path), tmp_path / "chain.jsonl"
    file.write_text(await asyncio.to_thread(_export, world))
    found, _ = prove(tmp_path / "no-home-here", file=file, key=key)
    assert (found.broken, found.records, found.signed) == (None, 3, 3)


async def test_a_stranger_cannot_vouch_for_a_key(world: World, tmp_path: Path) -> None:
    """Another key.s word counts nowhere, nor does a key that is put in the place of another."""
    await _turns(world)
    genuine_key = _public(world, tmp_path)
    lines = (await asyncio.to_thread(_export, world)).splitlines()
    head, mallory, theirs = json.loads(lines[0]), SigningKey.generate(), SigningKey.generate()

    def broken(keys: list[object]) -> Damage | None:
        export = read_export([json.dumps({**head, "keys": keys}), *lines[1:]])
        found = prove_export(export, genuine=signed_by_file(genuine_key, export.keys)).broken
        return None if found is None else found.damage

    assert broken(head["keys"]) is None
    assert broken([]) is Damage.FORGED
    assert broken([line(vouch(mallory, theirs, at=1.0))]) is Damage.FORGED
    swapped = [
        {**head["keys"][0], "public": line(vouch(mallory, theirs, at=1.0))["public"]},
        *head["keys"][1:],
    ]
    assert broken(swapped) is Damage.FORGED

    (world.home / KEYS_FILE).write_text(json.dumps(line(vouch(mallory, theirs, at=1.0))) + "\nnonsense\n")
    proof = await world.db.read(lambda reader: prove_home(world.home, reader))
    assert proof.broken is not None
    assert proof.broken.damage is Damage.FORGED


async def test_each_key_is_kept_once(world: World) -> None:
    await _turns(world, times=2)
    await world.identities.add_user(MACHINE, subject="more")
    await world.governance.auditing.checkpoint()
    await world.identities.add_user(MACHINE, subject="again")
    await world.governance.auditing.checkpoint()
    ids = [each.key_id for each in kept(world.home)]
    assert len(ids) == len(set(ids)) == 2  # the first of the three is the installation's own

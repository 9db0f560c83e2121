"""A stored chain with checkpoints: whatever is done to it in the database is found, and pruning is not."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update
from tests.identity_world import World

from tower.audit import Checkpoint, Damage, Entry, Event, Head, Outcome, Record, seal
from tower.control.auditing import HEAD_FILE, prove_home
from tower.control.proving import (
    Proof,
    checkpoint_line,
    prove,
    prove_export,
    read_export,
    record_line,
    sign,
    signed_by_us,
)
from tower.errors import Denied, Invalid
from tower.identity.authenticators import MACHINE
from tower.identity.signing import SigningKey
from tower.store.schema_audit import audit, audit_checkpoints

KEY = SigningKey.generate()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World.opened(tmp_path) as opened:
        yield opened


async def filled(world: World, *, steps: int = 3) -> None:
    """Some people, and a checkpoint after each step; the key lies where a real home has it."""
    (world.home / "signing.key").write_bytes((world.home / "signing-key.pem").read_bytes())
    (world.home / "signing.key").chmod(0o600)
    for step in range(steps):
        for number in range(3):
            await world.identities.add_user(MACHINE, subject=f"u{step}-{number}")
        world.clock.time += 3600
        assert await world.governance.auditing.checkpoint() is not None


async def proof(world: World) -> Proof:
    return await world.db.read(lambda reader: prove_home(world.home, reader))


async def test_a_whole_chain_is_whole_and_a_checkpoint_comes_only_with_news(world: World) -> None:
    await filled(world)
    found = await proof(world)
    assert (found.records, found.first, found.last, found.signed, found.broken) == (9, 1, 9, 9, None)
    assert await world.governance.auditing.checkpoint() is None
    await world.identities.add_user(MACHINE, subject="late")
    assert (await proof(world)).signed == 9


def rehash(tx: Any, start: int) -> None:
    """Make the chain anew from a record on, as one who can write the database would."""
    rows = [Entry(**row._mapping) for row in tx.execute(select(audit).order_by(audit.c.seq))]
    previous = rows[0].previous
    for row in rows:
        if row.seq >= start:
            moved = Entry(**{**record_fields(row), "previous": previous})
            tx.execute(
                update(audit).where(audit.c.seq == row.seq).values(previous=previous, hash=moved.digest())
            )
            previous = moved.digest()
        else:
            previous = row.hash


def record_fields(row: Entry) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Entry.__dataclass_fields__}


def edit(tx: Any) -> None:
    tx.execute(update(audit).where(audit.c.seq == 5).values(subject="nobody"))


def edit_and_rehash(tx: Any) -> None:
    edit(tx)
    rehash(tx, 5)


def drop(tx: Any) -> None:
    tx.execute(delete(audit).where(audit.c.seq == 5))


def drop_and_renumber(tx: Any) -> None:
    drop(tx)
    for seq in range(6, 10):
        tx.execute(update(audit).where(audit.c.seq == seq).values(seq=seq - 1))
    rehash(tx, 5)


def swap(tx: Any) -> None:
    for before, after in ((5, 99), (6, 5), (99, 6)):
        tx.execute(update(audit).where(audit.c.seq == before).values(seq=after))


def cut(tx: Any) -> None:
    tx.execute(delete(audit).where(audit.c.seq > 7))


def cut_with_checkpoints(tx: Any) -> None:
    cut(tx)
    tx.execute(delete(audit_checkpoints).where(audit_checkpoints.c.seq > 7))


def cut_the_beginning(tx: Any) -> None:
    tx.execute(delete(audit).where(audit.c.seq <= 3))


def empty(tx: Any) -> None:
    tx.execute(delete(audit))
    tx.execute(delete(audit_checkpoints))


def sign_oneself(tx: Any) -> None:
    edit_and_rehash(tx)
    tx.execute(delete(audit_checkpoints))
    row = tx.execute(select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc())).first()
    made = sign(SigningKey.generate(), Head(row.seq, row.hash), 1.0)
    tx.execute(
        audit_checkpoints.insert().values(
            **{name: getattr(made, name) for name in Checkpoint.__dataclass_fields__}
        )
    )


@pytest.mark.parametrize(
    ("damage", "seq", "kind"),
    [
        pytest.param(edit, 5, Damage.EDITED, id="edited"),
        pytest.param(edit_and_rehash, 6, Damage.REPLACED, id="edited and hashed again"),
        pytest.param(drop, 5, Damage.MISSING, id="deleted"),
        pytest.param(drop_and_renumber, 6, Damage.REPLACED, id="deleted, renumbered, hashed again"),
        pytest.param(swap, 5, Damage.EDITED, id="reordered"),
        pytest.param(cut, 8, Damage.TRUNCATED, id="cut"),
        pytest.param(cut_with_checkpoints, 8, Damage.TRUNCATED, id="cut with its checkpoints"),
        pytest.param(cut_the_beginning, 1, Damage.MISSING, id="without its beginning"),
        pytest.param(empty, 1, Damage.TRUNCATED, id="empty"),
        pytest.param(sign_oneself, 9, Damage.FORGED, id="signed with another key"),
    ],
)
async def test_whatever_is_done_to_the_database_is_found_and_named(
    world: World, damage: Callable[[Any], None], seq: int, kind: Damage
) -> None:
    await filled(world)
    await world.db.write(damage)
    broken = (await proof(world)).broken
    assert broken is not None
    assert (broken.seq, broken.damage) == (seq, kind)


async def test_pruning_keeps_the_chain_provable_and_nobody_else_can_do_it(world: World) -> None:
    await filled(world)
    ada = await world.who(bearer=await world.person("ada", "admin"))
    with pytest.raises(Denied):
        await world.governance.auditing.prune(ada, before=0)
    with pytest.raises(Invalid):
        await world.governance.auditing.prune(MACHINE, before=world.clock.now() + 10)
    done = await world.governance.auditing.prune(MACHINE, before=world.clock.now() - 1800)
    assert (done.records, done.through) == (6, 6)
    found = await proof(world)
    assert (found.first, found.broken) == (7, None)
    await world.governance.auditing.checkpoint()
    assert (await proof(world)).broken is None
    await world.db.write(lambda tx: tx.execute(delete(audit).where(audit.c.seq <= 8)) and None)
    broken = (await proof(world)).broken
    assert broken is not None
    assert broken.damage is Damage.MISSING


async def test_a_prune_that_was_not_recorded_is_a_deletion(world: World) -> None:
    await filled(world)

    def silently(tx: Any) -> None:
        tx.execute(delete(audit).where(audit.c.seq <= 6))
        tx.execute(delete(audit_checkpoints).where(audit_checkpoints.c.seq < 6))

    await world.db.write(silently)
    broken = (await proof(world)).broken
    assert broken is not None
    assert (broken.seq, broken.damage) == (1, Damage.MISSING)


async def test_the_kept_head_is_the_operators_alone(world: World) -> None:
    await filled(world)
    assert (world.home / HEAD_FILE).stat().st_mode & 0o777 == 0o600


async def test_an_export_is_proved_by_itself(world: World) -> None:
    await filled(world)
    text = b"".join([line async for line in await world.governance.auditing.export(MACHINE)]).decode()
    genuine = signed_by_us(SigningKey.load_or_create(world.home / "signing.key"))
    lines = text.splitlines()
    assert prove_export(read_export(lines), genuine=genuine).broken is None
    other = signed_by_us(SigningKey.generate())
    assert prove_export(read_export(lines), genuine=other).broken is not None
    for number in range(1, len(lines) - 1):
        without = [*lines[:number], *lines[number + 1 :]]
        kind = json.loads(lines[number])["type"]
        broken = prove_export(read_export(without), genuine=genuine).broken
        assert (broken is None) is (kind == "checkpoint"), lines[number]
    for line in ("{", "[]", '{"type":"record"}', '{"type":"end"}', "1", '{"type":"record","seq":true}'):
        with pytest.raises(Invalid, match="Line 2"):
            read_export([lines[0], line])


words = st.text(max_size=6)


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Entry], list[Checkpoint]]:
    entries: list[Entry] = []
    checkpoints: list[Checkpoint] = []
    head = Head()
    for number in range(draw(st.integers(2, 9))):
        record = Record(
            at=float(number),
            event=draw(st.sampled_from(Event)),
            outcome=Outcome.ALLOWED,
            subject=draw(words),
            credential_kind="api_key",
            credential_id="k",
        )
        entry = seal(record, after=head)
        entries.append(entry)
        head = Head(entry.seq, entry.hash)
        if draw(st.booleans()):
            checkpoints.append(sign(KEY, head, float(number)))
    checkpoints.append(sign(KEY, head, 99.0))
    return entries, checkpoints


@settings(max_examples=100, deadline=None)
@given(chains(), st.data())
def test_no_part_of_a_signed_chain_can_go_or_change(
    chain: tuple[list[Entry], list[Checkpoint]], data: st.DataObject
) -> None:
    entries, checkpoints = chain
    genuine = signed_by_us(KEY)
    assert prove(entries, checkpoints, genuine=genuine).broken is None
    kept = data.draw(st.lists(st.sampled_from(entries), unique=True, max_size=len(entries) - 1))
    assert prove(kept, checkpoints, genuine=genuine).broken is not None
    number = data.draw(st.integers(0, len(entries) - 1))
    edited = [*entries]
    edited[number] = Entry(**{**record_fields(edited[number]), "subject": edited[number].subject + "x"})
    broken = prove(edited, checkpoints, genuine=genuine).broken
    assert broken is not None
    assert broken.seq == number + 1


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=0, max_size=80), st.integers(0, 3))
def test_no_other_signature_passes(noise: bytes, shift: int) -> None:
    head = Head(7 + shift, "ab" * 32)
    made = sign(KEY, Head(7, "ab" * 32), 1.0)
    forged = Checkpoint(head.seq, head.hash, 1.0, KEY.kid, base64.urlsafe_b64encode(noise).decode())
    assert not signed_by_us(KEY)(forged)
    moved = Checkpoint(head.seq, head.hash, 1.0, KEY.kid, made.signature)
    assert signed_by_us(KEY)(moved) is (shift == 0)


@given(chains())
@settings(max_examples=30, deadline=None)
def test_lines_of_an_export_say_exactly_what_is_stored(
    chain: tuple[list[Entry], list[Checkpoint]],
) -> None:
    entries, checkpoints = chain
    lines = [json.dumps({"type": "export", "after": 0})]
    lines += [json.dumps(record_line(entry)) for entry in entries]
    lines += [json.dumps(checkpoint_line(each)) for each in checkpoints]
    lines += [json.dumps({"type": "end", "seq": entries[-1].seq})]
    export = read_export(lines)
    assert (list(export.entries), list(export.checkpoints)) == (entries, checkpoints)
    assert prove_export(export, genuine=signed_by_us(KEY)).broken is None

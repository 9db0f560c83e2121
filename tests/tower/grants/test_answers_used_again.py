"""Whom an attempt acts for is worked out once, and again as soon as anything that it was made of changes."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from tests.grounds_world import Grounds
from tests.rpc_world import RpcWorld

from tower.identity.principal import ActorKind, Principal
from tower.states import Phase
from tower.store import schema as tables
from tower.store.runs import ActionKey


@pytest.fixture
async def grounds(rpc: RpcWorld) -> Grounds:
    return await Grounds.opened(rpc)


async def elsewhere(grounds: Grounds) -> None:
    """Somebody else's commits: whatever is remembered per commit is asked for again."""
    await grounds.asked("alice")


def place(principal: Principal) -> ActionKey:
    return ActionKey(*principal.credential.id.split("/")[:4])


async def test_commits_of_others_leave_the_answer_alone(grounds: Grounds) -> None:
    task = await grounds.lease(await grounds.asked("alice"))
    child = await grounds.child(task)
    first = await grounds.call(task), await grounds.call(child)
    for _ in range(3):
        await elsewhere(grounds)
        again = await grounds.call(task), await grounds.call(child)
        assert again[0] is first[0]
        assert again[1] is first[1]


@pytest.mark.parametrize("link", [0, 1])
@pytest.mark.parametrize(
    "change",
    [
        {"phase": int(Phase.ABORTED)},
        {"grant_revoked_at": 1.0, "grant_revoked_by": "root"},
        {"task_name": "other.task"},
        {"executed_by": "nobody"},
        {"actors": "no json"},
        {"ceilings": '[{"source": "x"'},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_row_that_changed_is_worked_out_again(
    grounds: Grounds, change: dict[str, object], link: int
) -> None:
    """Of the child itself, or of the run that asked for it: what was remembered does not stand in for it."""
    task = await grounds.lease(await grounds.asked("alice"))
    child = await grounds.child(task)
    before = await grounds.call(child)
    await elsewhere(grounds)
    assert await grounds.call(child) is before
    chain = [actor.id for actor in before.actors if actor.kind is ActorKind.RUN]
    key = ActionKey(*chain[link].split("/")[:4])
    which = [tables.actions.c[name] == value for name, value in key._asdict().items()]
    await grounds.world.db.write(
        lambda tx: tx.execute(update(tables.actions).where(*which).values(**change)).rowcount
    )
    standing, attempt = grounds.world.standing, before.credential.id
    known = standing._known.get(attempt)
    try:
        after = await standing.attempt(attempt)
    except Exception:
        after = None
    assert after is not before
    assert known is not None


async def test_the_end_of_an_attempt_is_the_end_of_the_answer(grounds: Grounds) -> None:
    key = await grounds.asked("alice")
    task = await grounds.lease(key)
    principal = await grounds.call(task)
    which = [tables.attempts.c[name] == value for name, value in place(principal)._asdict().items()]
    await grounds.world.db.write(
        lambda tx: tx.execute(update(tables.attempts).where(*which).values(phase=int(Phase.FAILED))).rowcount
    )
    assert "over" in await grounds.refusal(task)

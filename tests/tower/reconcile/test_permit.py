"""Rights are looked at when an attempt starts, with the real directory and policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import delete, update
from tests.tower.reconcile.conftest import House

from tower.control.access import Access
from tower.control.directory import Directory
from tower.control.reconcile import LivePermit
from tower.control.standing import Standing
from tower.policy.engine import Engine
from tower.states import Phase
from tower.store import attempts
from tower.store.database import Transaction
from tower.store.schema import actions, api_keys, bindings, users

KEY_ID = "0123456789ab"


def person(tx: Transaction) -> None:
    who = {"created_at": 0.0, "created_by": "root"}
    tx.insert(users, subject="alice", kind="user", name="alice", **who)
    tx.insert(bindings, subject="alice", role="contributor", project="p", domain="development", **who)
    tx.insert(api_keys, id=KEY_ID, name="k", subject="alice", hash=b"x", **who)


@pytest.fixture
async def ask(idle: House) -> Callable[[], object]:
    await idle.db.write(person)
    directory = Directory(db=idle.db, clock=idle.clock)
    access = Access(db=idle.db, engine=Engine(), directory=directory)
    permit = LivePermit(Standing(db=idle.db, clock=idle.clock, access=access, directory=directory))
    key = await idle.launch("add", {"x": 1, "y": 1}, credential_id=KEY_ID)
    leased = await idle.db.write(lambda tx: attempts.lease(tx, idle.row(key)))
    assert leased is not None

    async def asked() -> str:
        return await permit(leased, leased.attempts)

    return asked


async def test_who_may_still_run_it_runs_it(ask: Callable[[], object]) -> None:
    assert await ask() == ""  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (update(users).values(disabled_at=1.0), "account"),
        (update(api_keys).values(deleted_at=1.0), "key"),
        (delete(bindings), "may not run"),
        (update(bindings).values(role="viewer"), "may not run"),
        (update(bindings).values(project="q"), "may not run"),
        (update(actions).values(grant_revoked_at=1.0, grant_revoked_by="root"), "was revoked by root"),
        (update(actions).values(grant_expires_at=1.0), "ended at 1970-01-01"),
        (update(actions).values(phase=int(Phase.ABORTED)), "does not hold"),
    ],
)
async def test_who_lost_the_right_does_not(
    idle: House, ask: Callable[[], object], change: object, word: str
) -> None:
    await idle.db.write(lambda tx: tx.execute(change) and None)  # type: ignore[call-overload,func-returns-value]
    assert word in await ask()  # type: ignore[misc,operator]

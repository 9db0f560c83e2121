"""Runs that wait and run, and what their tasks are taken for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flyteidl2.task import run_pb2
from tests.rpc_world import DOMAIN, PROJECT, RpcWorld, create_run

from tower.control.events import Events
from tower.control.grants import actors_to_text
from tower.control.launches import Launch
from tower.control.reconcile import LivePermit
from tower.control.standinggrants import Seen, StandingGrants
from tower.errors import Unauthenticated
from tower.identity.chain import Presented
from tower.identity.principal import Principal
from tower.identity.workload import Workload, WorkloadKind
from tower.states import Phase
from tower.store import attempts, runs
from tower.store.runs import ActionKey


def socket(key: ActionKey, attempt: int = 1) -> Workload:
    return Workload(WorkloadKind.ATTEMPT, "/".join((*key, str(attempt))), 1)


class Grounds:
    """A world with runs in it, and what their tasks are taken for."""

    def __init__(self, rpc: RpcWorld) -> None:
        self.rpc, self.world = rpc, rpc.world
        self.grants = StandingGrants(
            db=self.world.db,
            clock=self.world.clock,
            access=self.world.access,
            events=Events(),
            settings=self.world.settings,
        )
        self.permit = LivePermit(self.world.standing)
        self.keys: dict[str, str] = {}

    async def person(self, name: str, role: str = "contributor") -> None:
        self.keys[name] = await self.world.person(name, role)

    async def principal(self, name: str) -> Principal:
        return await self.world.who(bearer=self.keys[name])

    async def asked(self, who: Principal | str, **launch: Any) -> ActionKey:
        """A run that waits."""
        principal = await self.principal(who) if isinstance(who, str) else who
        asked = Launch(PROJECT, DOMAIN, run_pb2.RunSpec(), task=(PROJECT, DOMAIN, "env.main"), **launch)
        asked = replace(asked, inputs=create_run(inputs={"x": self.world.clock.count}).inputs)
        return (await self.rpc.runs.launch(principal, asked, request_id=self.world.clock.name("q"))).row.key

    async def lease(self, key: ActionKey) -> Workload:
        """The next attempt of an action; its socket."""
        row = self.world.db.read_now(lambda reader: runs.get(reader, key))
        assert row is not None
        leased = await self.world.db.write(lambda tx: attempts.lease(tx, row))
        assert leased is not None
        return socket(key, leased.attempts)

    async def child(self, parent: Workload) -> Workload:
        """A running action that the task of this socket asked for."""
        principal = await self.call(parent)
        key = ActionKey(*parent.id.split("/")[:4])
        row = self.world.db.read_now(lambda reader: runs.get(reader, key))
        assert row is not None
        child = replace(
            row,
            action=self.world.clock.name("c")[-8:],
            parent=row.action,
            phase=Phase.QUEUED,
            attempts=0,
            request_id=None,
            actors=actors_to_text(principal.actors),
            grant_expires_at=None,
        )
        await self.world.db.write(lambda tx: runs.insert(tx, child))
        return await self.lease(child.key)

    async def call(self, workload: Workload) -> Principal:
        """Whom Tower takes a call over this socket for."""
        return await self.world.chain.authenticate(Presented(headers=(), workload=workload))

    async def refusal(self, workload: Workload) -> str:
        with pytest.raises(Unauthenticated) as caught:
            await self.call(workload)
        return caught.value.message

    async def starts(self, key: ActionKey) -> str:
        """Why the next attempt of a queued action does not start, or ""."""
        leased = await self.lease(key)
        row = self.world.db.read_now(lambda reader: runs.get(reader, key))
        assert row is not None
        return await self.permit(row, int(leased.id.rpartition("/")[2]))

    async def revoke(self, who: str, key: ActionKey) -> Seen:
        return await self.grants.revoke(await self.principal(who), key, request_id="q")

    @classmethod
    async def opened(cls, rpc: RpcWorld) -> Grounds:
        """With alice and bob, who contribute, root, who administers, and a task."""
        made = cls(rpc)
        for name in ("alice", "bob"):
            await made.person(name)
        await made.person("root", "admin")
        await rpc.deploy(rpc.caller(made.keys["alice"]))
        return made

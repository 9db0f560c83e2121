"""A composed house with its console under a real server, a task and a run in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from flyteidl2.task import run_pb2
from sqlalchemy import insert, update
from tests.rpc_world import named, task_spec
from tests.tower.gateway.house import House, built, serving

from tower.clock import SystemClock
from tower.console.door import Console, build
from tower.console.parts import Parts
from tower.control.launches import Launch
from tower.identity.principal import Principal
from tower.states import Phase
from tower.store import logs
from tower.store.schema import actions, attempts

PLACE = ("flytesnacks", "development")


@dataclass(slots=True)
class Town:
    """The house, its console and the port."""

    house: House
    console: Console
    port: int
    gateway_port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def client(self, session: str = "", **headers: str) -> httpx.AsyncClient:
        """A browser, signed in with this session text."""
        sent = {"accept": "text/html", **headers}
        if session:
            sent["cookie"] = f"tower_session={session}"
        return httpx.AsyncClient(base_url=self.url, headers=sent, trust_env=False, timeout=60.0)

    async def session(self, name: str) -> str:
        return await self.house.session(name, self.host)

    async def caller(self, name: str) -> Principal:
        return await self.house.principal(("authorization", f"Bearer {await self.house.key(name)}"))

    async def run(self, name: str = "alice", **inputs: Any) -> str:
        """A run of env.main asked for by somebody; its page's path."""
        caller = await self.caller(name)
        rooms = self.house.rooms
        task = (*PLACE, "env.main")
        await rooms.tasks.deploy(caller, task, "v1", spec=task_spec(), request_id="d")
        asked = Launch(*PLACE, run_pb2.RunSpec(), task=task, inputs=named(inputs or {"x": 1}))
        launched = await rooms.runs.launch(caller, asked, request_id=rooms.clock.name("q"))
        return f"/v2/domain/development/project/flytesnacks/runs/{launched.row.run}"

    async def move(self, path: str, phase: Phase, **values: Any) -> None:
        """What the loop that runs attempts does: run and attempt are in another phase now."""
        run = path.rpartition("/")[2]
        at = SystemClock().now()
        ended = {"ended_at": at} if phase.terminal else {}
        place = {"project": PLACE[0], "domain": PLACE[1], "run": run, "action": "a0", "attempt": 1}

        def write(tx: Any) -> None:
            tx.execute(
                update(actions)
                .where(actions.c.run == run)
                .values(phase=int(phase), attempts=1, started_at=at - 1.5, **ended, **values)
            )
            of_run = attempts.c.run == run
            if not tx.execute(update(attempts).where(of_run).values(phase=int(phase), **ended)).rowcount:
                row = {**place, "phase": int(phase), "created_at": at, "started_at": at, "has_logs": True}
                tx.execute(insert(attempts).values(**row, **ended))

        await self.house.db.write(write)
        self.house.events.publish(("action", *PLACE, run, "a0"), ("runs", *PLACE))

    def write_log(self, path: str, text: str) -> None:
        """What the attempt prints."""
        log_id = "/".join((*PLACE, path.rpartition("/")[2], "a0", "1"))
        sink = logs.LogSink(
            logs.attempt_path(self.house.settings.home, log_id),
            1_000_000,
            now=self.house.rooms.clock.now,
            changed=lambda: self.house.events.publish(("log", log_id)),
        )
        sink.write(text.encode())
        sink.close()


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with built(tmp_path) as house:
        await house.person("alice", "contributor")
        await house.person("bob")
        rooms = house.rooms
        place: list[str] = []
        console = build(
            Parts(
                chain=rooms.chain,
                access=rooms.access,
                directory=rooms.directory,
                logins=rooms.logins,
                accounts=rooms.oauth.accounts,
                federation=rooms.oidc.federation,
                devices=rooms.oauth.devices,
                projects=rooms.projects,
                runs=rooms.runs,
                grants=rooms.standing_grants,
                watching=rooms.watching,
                data=rooms.data,
                tailing=rooms.tailing,
                tasks=rooms.tasks,
                apps=rooms.apps,
                triggers=rooms.schedules.views,
                settings=rooms.settings,
                base_url=lambda host: place[0],
            )
        )
        async with serving(console) as port:
            place.append(f"http://127.0.0.1:{port}")
            yield Town(house, console, port)

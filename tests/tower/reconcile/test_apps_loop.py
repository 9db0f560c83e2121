"""Apps as they are wanted: started, restarted, replaced, asleep, stopped. Processes are real, time is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from flyteidl2.app import app_definition_pb2
from tests.tower.reconcile.conftest import FakeClock, House

from tower.control.reconcile import AppSupervisor
from tower.control.reconcile.appprocess import AppRunner
from tower.errors import Unavailable
from tower.states import AppStatus, Desired
from tower.store import apps as store
from tower.store import logs
from tower.store.apps import AppRow

SERVER = """
import asyncio, os, signal, sys

async def answer(reader, writer):
    line = (await reader.readline()).decode()
    if "/die" in line:
        os._exit(3)
    if "/slow" in line:
        print("slow request", flush=True)
        await asyncio.get_running_loop().create_future()
    body = os.environ["WORD"].encode()
    if "/env" in line:
        body = "\\n".join(sorted(os.environ)).encode()
    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n" % len(body))
    writer.write(b"connection: close\\r\\n\\r\\n" + body)
    await writer.drain()
    writer.close()

async def main():
    if os.environ["WORD"] == "broken":
        sys.exit("this app cannot start")
    await asyncio.start_unix_server(answer, os.environ["FLYTE_APP_SOCKET"])
    print("serving", os.environ["WORD"], flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()

asyncio.run(main())
"""
KEY = ("p", "development", "echo")


class Apps:
    """What `control.apps` does to rows, and the loop under test."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.said: list[tuple[int, AppStatus, str]] = []
        self.supervisor = self._supervisor()

    def _supervisor(self) -> AppSupervisor:
        runner = AppRunner(self.house.parts, ready_seconds=30, grace=5)
        return AppSupervisor(self.house.parts, report=self.report, runner=runner)

    async def restart(self) -> None:
        await self.supervisor.stop()
        self.supervisor = self._supervisor()
        await self.supervisor.start()

    async def report(
        self,
        project: str,
        domain: str,
        name: str,
        *,
        revision: int,
        status: AppStatus,
        message: str = "",
        started_at: float | None = None,
    ) -> bool:
        def write(tx: object) -> bool:
            done = store.set_status(
                tx,  # type: ignore[arg-type]
                project,
                domain,
                name,
                revision=revision,
                status=status,
                message=message,
                started_at=started_at,
            )
            tx.after_commit(lambda: self.house.events.publish(("app", *KEY)))  # type: ignore[attr-defined]
            return done

        self.said.append((revision, status, message))
        return await self.house.db.write(write)

    async def deploy(self, word: str, *, desired: Desired = Desired.ACTIVE, min_replicas: int = 0) -> AppRow:
        uri, digest = await self.house.bundle({"server.py": SERVER})
        app = app_definition_pb2.App()
        app.metadata.id.name = "echo"
        app.metadata.code_bundle_uri = uri
        app.spec.container.command.extend(["python", "server.py"])
        app.spec.container.env.add(key="WORD", value=word)
        app.spec.autoscaling.replicas.min = min_replicas
        before = self.row()
        row = AppRow(
            *KEY,
            host="echo-p-development",
            revision=1 if before is None else before.revision + 1,
            spec=app.SerializeToString(),
            digest="",
            code_digest=digest,
            description="",
            requires_auth=True,
            desired=desired,
            status=AppStatus.PENDING,
            message="",
            deployed_by="alice",
            created_at=0.0,
            updated_at=self.house.clock.now(),
            started_at=None,
        )
        await self._write(lambda tx: (store.insert if before is None else store.replace)(tx, row))
        return row

    async def want(self, desired: Desired) -> None:
        from dataclasses import replace

        row = self.row()
        assert row is not None
        await self._write(lambda tx: store.set_desired(tx, replace(row, desired=desired)))

    async def delete(self) -> None:
        await self._write(lambda tx: store.remove(tx, *KEY))

    async def _write(self, change: object) -> None:
        def write(tx: object) -> None:
            change(tx)  # type: ignore[operator]
            tx.after_commit(lambda: self.house.events.publish(("apps",), ("app", *KEY)))  # type: ignore[attr-defined]

        await self.house.db.write(write)

    def row(self) -> AppRow | None:
        return self.house.db.read_now(lambda reader: store.get(reader, *KEY))

    async def until(self, status: AppStatus, *, revision: int = 1, message: str = "") -> AppRow:
        with self.house.events.subscribe(("app", *KEY)) as changed:
            async with asyncio.timeout(120):
                while True:
                    changed.clear()
                    row = self.row()
                    if (
                        row is not None
                        and (row.status, row.revision) == (status, revision)
                        and message in row.message
                    ):
                        return row
                    await changed.wait()

    async def until_said(self, status: AppStatus, *, times: int) -> None:
        with self.house.events.subscribe(("app", *KEY)) as changed:
            async with asyncio.timeout(120):
                while [said for _, said, _ in self.said].count(status) < times:
                    changed.clear()
                    await changed.wait()

    async def get(self, path: str = "/") -> str:
        """A request as the gateway makes it."""
        with self.supervisor.serving(*KEY):
            socket = await self.supervisor.wake(*KEY, 30.0)
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
                return (await reader.read()).decode().rpartition("\r\n\r\n")[2]
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def printed(self, text: str) -> str:
        path = logs.app_path(self.house.home, "/".join(KEY))
        with self.house.events.subscribe(("log", "/".join(KEY))) as changed:
            async with asyncio.timeout(120):
                while True:
                    changed.clear()
                    output = "".join(line.text for line in logs.read(path)[0])
                    if text in output:
                        return output
                    await changed.wait()


@pytest.fixture
async def apps(idle: House) -> AsyncIterator[Apps]:
    apps = Apps(idle)
    await apps.supervisor.start()
    yield apps
    await apps.supervisor.stop()


async def settled() -> None:
    """Let everything that can run now, run."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_deployed_app_comes_up_and_answers(apps: Apps) -> None:
    await apps.deploy("one")
    row = await apps.until(AppStatus.ACTIVE)
    assert row.started_at == apps.house.clock.now()
    assert await apps.get() == "one"
    assert "serving one" in await apps.printed("serving")
    assert [status for _, status, _ in apps.said] == [AppStatus.DEPLOYING, AppStatus.ACTIVE]


async def test_an_app_knows_its_place_and_nothing_else(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWER_CANARY", "leak")
    await apps.deploy("one")
    names = set((await apps.get("/env")).split("\n"))
    assert names == {
        "PATH",
        "VIRTUAL_ENV",
        "HOME",
        "LANG",
        "PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPATH",
        "TMPDIR",
        "WORD",
        "FLYTE_AGENT_SOCKET",
        "FLYTE_APP_NAME",
        "FLYTE_APP_PEER",
        "FLYTE_APP_SOCKET",
        "FLYTE_INTERNAL_EXECUTION_DOMAIN",
        "FLYTE_INTERNAL_EXECUTION_PROJECT",
        "_U_EP_OVERRIDE",
        "_U_ORG_NAME",
    } | ({"LC_CTYPE"} & names)


async def test_a_started_app_is_told_as_started(apps: Apps) -> None:
    await apps.deploy("one", desired=Desired.STARTED)
    await apps.until(AppStatus.STARTED)


async def test_stop_and_start(apps: Apps) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.ACTIVE)
    await apps.want(Desired.STOPPED)
    await apps.until(AppStatus.STOPPED)
    assert apps.house.agent.open_sockets == 0
    with pytest.raises(Unavailable, match="stopped"):
        await apps.get()
    await apps.want(Desired.ACTIVE)
    await apps.until(AppStatus.ACTIVE)
    assert await apps.get() == "one"


async def test_a_new_revision_takes_over_and_the_old_one_drains(apps: Apps) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.ACTIVE)
    slow = asyncio.create_task(apps.get("/slow"))
    await apps.printed("slow request")
    await apps.deploy("two")
    await apps.until(AppStatus.ACTIVE, revision=2)
    assert await apps.get() == "two"
    assert not slow.done()
    assert apps.house.agent.open_sockets == 2
    slow.cancel()
    with suppress(asyncio.CancelledError):
        await slow
    await apps.want(Desired.STOPPED)
    await apps.until(AppStatus.STOPPED, revision=2)
    assert apps.house.agent.open_sockets == 0


async def test_a_broken_revision_leaves_the_old_one_serving(apps: Apps) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.ACTIVE)
    await apps.deploy("broken")
    row = await apps.until(AppStatus.PENDING, revision=2, message="exit status")
    assert "before it answered" in row.message
    assert await apps.get() == "one"


async def test_an_app_that_dies_is_started_again_a_little_later(apps: Apps) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.ACTIVE)
    assert await apps.get("/die") == ""
    row = await apps.until(AppStatus.PENDING, message="exit status 3")
    assert row.message == "The app ended with exit status 3."
    waiting = asyncio.create_task(apps.get())
    await settled()
    assert not waiting.done()
    apps.house.clock.advance(1.0)
    assert await waiting == "one"
    await apps.until(AppStatus.ACTIVE)


async def test_an_app_that_never_starts_is_given_up_with_its_last_words(apps: Apps) -> None:
    await apps.deploy("broken")
    pauses = []
    for failures in range(1, 5):
        await apps.until_said(AppStatus.PENDING, times=failures)
        await settled()
        ((due, _),) = apps.house.clock.timers
        pauses.append(due - apps.house.clock.now())
        apps.house.clock.advance(pauses[-1])
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    row = await apps.until(AppStatus.FAILED)
    assert "this app cannot start" in row.message
    with pytest.raises(Unavailable, match="does not start"):
        await apps.get()
    await apps.deploy("fixed")
    await apps.until(AppStatus.ACTIVE, revision=2)
    assert await apps.get() == "fixed"


async def test_an_idle_app_sleeps_and_a_request_wakes_it(apps: Apps, clock: FakeClock) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.ACTIVE)
    clock.advance(800)
    assert await apps.get() == "one"
    clock.advance(800)
    await settled()
    assert apps.house.agent.open_sockets == 1
    clock.advance(200)
    await apps.until(AppStatus.ACTIVE, message="Asleep")
    assert apps.house.agent.open_sockets == 0
    assert await apps.get() == "one"
    assert [status for _, status, _ in apps.said][-2:] == [AppStatus.SCALING_UP, AppStatus.ACTIVE]


async def test_an_app_in_use_does_not_sleep(apps: Apps, clock: FakeClock) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.ACTIVE)
    slow = asyncio.create_task(apps.get("/slow"))
    await apps.printed("slow request")
    for _ in range(5):
        clock.advance(1000)
        await settled()
    assert apps.house.agent.open_sockets == 1
    slow.cancel()


@pytest.mark.parametrize(("desired", "replicas"), [(Desired.STARTED, 0), (Desired.ACTIVE, 1)])
async def test_an_app_that_must_stay_up_does_not_sleep(
    apps: Apps, clock: FakeClock, desired: Desired, replicas: int
) -> None:
    await apps.deploy("one", desired=desired, min_replicas=replicas)
    await apps.until(AppStatus.ACTIVE if desired is Desired.ACTIVE else AppStatus.STARTED)
    clock.advance(10_000)
    await settled()
    assert apps.house.agent.open_sockets == 1


async def test_after_a_restart_an_app_waits_for_its_first_request(apps: Apps) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.ACTIVE)
    await apps.restart()
    await settled()
    assert apps.house.agent.open_sockets == 0
    assert await apps.get() == "one"


async def test_after_a_restart_an_app_that_must_stay_up_is_up(apps: Apps) -> None:
    await apps.deploy("one", desired=Desired.STARTED)
    await apps.until(AppStatus.STARTED)
    apps.said.clear()
    await apps.restart()
    with apps.house.events.subscribe(("app", *KEY)) as changed:
        while (1, AppStatus.STARTED, "") not in apps.said:
            changed.clear()
            await asyncio.wait_for(changed.wait(), 120)
    assert await apps.get() == "one"


async def test_a_deleted_app_is_gone(apps: Apps) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.ACTIVE)
    ((_, task),) = apps.supervisor._keepers.values()
    await apps.delete()
    await asyncio.wait_for(task, 120)
    assert apps.house.agent.open_sockets == 0
    with pytest.raises(Unavailable):
        await apps.get()


async def test_stopping_while_it_starts(apps: Apps) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.DEPLOYING)
    await apps.want(Desired.STOPPED)
    await apps.until(AppStatus.STOPPED)
    assert apps.house.agent.open_sockets == 0


async def test_who_waits_too_long_is_told_to_try_again(apps: Apps) -> None:
    await apps.deploy("one")
    with pytest.raises(Unavailable, match="still starting"):
        await apps.supervisor.wake(*KEY, 0.0)


async def test_the_working_folder_is_its_own_copy(apps: Apps) -> None:
    await apps.deploy("one")
    await apps.until(AppStatus.ACTIVE)
    (room,) = (apps.house.home / "work").glob("*/*")
    (room / "server.py").write_text("raise SystemExit(9)")
    (code,) = (apps.house.home / "code").glob("*/server.py")
    assert code.read_text() == SERVER
    assert Path(room).stat().st_mode & 0o777 == 0o700

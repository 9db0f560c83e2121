"""Processes that wait for an attempt: known before they are given one, given once, ended with the rest."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import select
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
from tests.suites.executor_suite import Heard, living

import flyte
from tower.errors import Unavailable
from tower.executors.port import Exit, Limits, TaskJob
from tower.executors.process import ProcessExecutor, template
from tower.executors.process.folders import entrust
from tower.executors.process.isolation import Isolation, Wanted, choose
from tower.executors.process.work import Work

CODE = """
import os, signal
from pathlib import Path
from flyte._environment import TaskEnvironment

env = TaskEnvironment("work")

@env.task
def mark() -> None:
    Path("mark").write_text(f"{os.environ['RUN_NAME']} {os.getuid()}")
    print("marked", flush=True)

@env.task
def stay() -> None:
    print("stays", flush=True)
    signal.pause()
"""


class Place:
    """Makes jobs of one kind, each in folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        (self.bundle / "mywork.py").write_text(textwrap.dedent(CODE))
        (folder / "attempts").mkdir()
        folder.chmod(0o711)
        self.count = 0

    def job(self, task: str = "mark") -> TaskJob:
        self.count += 1
        directory = self.folder / "attempts" / str(self.count)
        directory.mkdir(mode=0o700)
        return TaskJob(
            id=f"p/d/r{self.count}/a0/1",
            python=Path(sys.executable),
            bundle=self.bundle,
            module="mywork",
            task=f"work.{task}",
            directory=directory,
            agent_socket=directory / "agent",
            env={"PATH": "/usr/bin:/bin"},
            needs=(Path(sys.base_prefix), Path(msgpack.__file__).parents[1]),
        )


def own(job: TaskJob, *, task: str = "mark", who: str = "alice") -> TaskJob:
    """An attempt where a process waits."""
    return replace(job, task=f"work.{task}", env={**job.env, "RUN_NAME": who})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def isolations() -> dict[str, Isolation]:
    source = Path(flyte.__file__).parents[1]
    best, _ = choose(Wanted.PREFERRED, visible=(source,))
    return {"best": best, "none": Isolation(mode=choose(Wanted.OFF)[0].mode)}


@pytest.fixture(params=["best", "none"])
async def executor(
    request: pytest.FixtureRequest, isolations: dict[str, Isolation]
) -> AsyncIterator[ProcessExecutor]:
    executor = ProcessExecutor(isolation=isolations[request.param])
    yield executor
    await executor.close()


class Waiting:
    """A process that waits, and when it has gone without an attempt."""

    def __init__(self, executor: ProcessExecutor, job: TaskJob) -> None:
        self.job = job
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        assert executor.prepare(job, gone=lambda: self.gone.set_result(None))


async def first(executor: ProcessExecutor, place: Place) -> None:
    """An attempt of the kind, which has a template."""
    job = own(place.job())
    process = await executor.start_task(job, on_output=lambda _: None, on_start=lambda _: None)
    assert await asyncio.wait_for(process.wait(), 60) == Exit(0)


def waits(executor: ProcessExecutor, job: TaskJob) -> bool:
    """Whether a process waits in the job's folders."""
    slot = executor._slots.get(job.directory)
    return slot is not None and slot.waits


async def ready(executor: ProcessExecutor, place: Place) -> Waiting:
    await first(executor, place)
    waiting = Waiting(executor, place.job())
    async with asyncio.timeout(60):
        while not waits(executor, waiting.job):
            await asyncio.sleep(0)
    return waiting


async def test_the_process_that_waits_becomes_the_attempt(executor: ProcessExecutor, place: Place) -> None:
    waiting = await ready(executor, place)
    (waiting.job.directory / "inputs.pb").write_bytes(b"")
    heard = Heard()
    job = own(waiting.job, who="bob")
    process = await executor.start_task(job, on_output=heard.on_output, on_start=heard.pids.append)
    assert heard.pids == [process.pid]
    assert await asyncio.wait_for(process.finished(), 60) == Exit(0)
    assert await asyncio.wait_for(process.wait(), 60) == Exit(0)
    who, user = (job.directory / "mark").read_text().split()
    assert who == "bob"
    assert int(user) == (job.directory / "mark").stat().st_uid
    assert heard.output == b"marked\n"
    assert not waits(executor, job)
    assert not waiting.gone.done()


async def test_no_code_runs_before_its_process_is_registered(executor: ProcessExecutor, place: Place) -> None:
    waiting = await ready(executor, place)
    job = own(waiting.job)
    seen: list[bool] = []

    def registering(pid: int) -> None:
        # it is known, lives, and cannot begin as long as this has not returned
        seen.append(living(pid))
        raise LookupError("nobody takes it in")

    with pytest.raises(LookupError):
        await executor.start_task(job, on_output=lambda _: None, on_start=registering)
    assert seen == [True]
    await executor.close()
    assert not (job.directory / "mark").exists()


async def test_one_that_has_ended_is_given_nothing(executor: ProcessExecutor, place: Place) -> None:
    waiting = await ready(executor, place)
    executor.discard(waiting.job.directory)
    await asyncio.wait_for(waiting.gone, 60)
    assert not waits(executor, waiting.job)


async def test_one_that_was_killed_is_no_attempt(executor: ProcessExecutor, place: Place) -> None:
    waiting = await ready(executor, place)
    pids: list[int] = []
    executor.discard(waiting.job.directory)
    while waits(executor, waiting.job):
        await asyncio.sleep(0)
    if not waiting.gone.done():
        with pytest.raises(Unavailable):
            await executor.start_task(own(waiting.job), on_output=lambda _: None, on_start=pids.append)
    assert pids == []
    assert not (waiting.job.directory / "mark").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"module": "other"},
        {"limits": Limits(memory=1 << 29)},
        {"env": {"PATH": "/elsewhere"}},
        {"agent_socket": Path("/elsewhere")},
    ],
)
async def test_it_takes_no_attempt_of_another_kind(
    executor: ProcessExecutor, place: Place, change: dict[str, object]
) -> None:
    waiting = await ready(executor, place)
    pids: list[int] = []
    with pytest.raises(Unavailable):
        await executor.start_task(
            replace(own(waiting.job), **change),  # type: ignore[arg-type]
            on_output=lambda _: None,
            on_start=pids.append,
        )
    assert pids == []
    await asyncio.wait_for(waiting.gone, 60)  # and it has ended


async def test_an_attempt_in_it_is_stopped_as_others_are(executor: ProcessExecutor, place: Place) -> None:
    waiting = await ready(executor, place)
    heard = Heard()
    process = await executor.start_task(
        own(waiting.job, task="stay"), on_output=heard.on_output, on_start=heard.pids.append
    )
    await heard.until(b"stays")
    await process.stop(30)
    assert (await process.wait()).code == 128 + signal.SIGTERM
    assert not living(process.pid)


async def test_one_that_cannot_be_given_its_attempt_ends(
    executor: ProcessExecutor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await ready(executor, place)
    works = set(executor._works)

    def full(work: Work) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Work, "hear", full)
        with pytest.raises(Unavailable):
            await executor.start_task(own(waiting.job), on_output=lambda _: None, on_start=lambda _: None)
    assert executor._works == works
    await asyncio.wait_for(waiting.gone, 60)


async def test_the_end_of_one_is_told_without_descriptors(
    executor: ProcessExecutor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await ready(executor, place)

    def full(*_: object, **__: object) -> Work:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(executor, "_hold", full)
        executor.discard(waiting.job.directory)
        await asyncio.wait_for(waiting.gone, 60)


async def test_one_that_cannot_be_held_ends(
    executor: ProcessExecutor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await first(executor, place)

    def full(pid: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", full)
        waiting = Waiting(executor, place.job())
        await asyncio.wait_for(waiting.gone, 60)
    assert waiting.job.directory not in executor._slots


@pytest.fixture
def many() -> Iterator[None]:
    """More descriptors are open than `select` has numbers for, as on a busy server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip(f"a process of this user may have {hard} descriptors, and 2048 are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with ExitStack() as held:
        while held.enter_context(open("/dev/null", "rb")).fileno() < 1100:
            pass
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many")
async def test_a_busy_server_has_rooms_ahead_too(executor: ProcessExecutor, place: Place) -> None:
    waiting = await ready(executor, place)
    assert waits(executor, waiting.job)
    heard = Heard()
    process = await executor.start_task(
        own(waiting.job), on_output=heard.on_output, on_start=heard.pids.append
    )
    await heard.until(b"marked")
    assert (await process.wait()).code == 0


async def test_it_ends_with_the_executor(executor: ProcessExecutor, place: Place) -> None:
    waiting = await ready(executor, place)
    slot = executor._slots[waiting.job.directory]
    descriptor = os.pidfd_open(slot.pid)
    await executor.close()
    with os.fdopen(descriptor, "rb"):
        assert select.select([descriptor], [], [], 60)[0]  # the process that the descriptor is of has ended
    assert not executor.prepare(place.job(), gone=lambda: None)


async def test_a_template_is_idle_while_only_such_a_one_waits(
    executor: ProcessExecutor, place: Place
) -> None:
    await ready(executor, place)
    (forking,) = executor._pool.templates
    assert forking.idle


def reap(executor: ProcessExecutor) -> None:
    """As if all that is idle had been so for long."""
    usual, executor._pool._idle_seconds = executor._pool._idle_seconds, -1.0
    executor._pool.reap()
    executor._pool._idle_seconds = usual


async def test_one_that_was_claimed_is_there_when_its_attempt_starts(
    executor: ProcessExecutor, place: Place
) -> None:
    """Between the two the template is not idle, however long it had nothing to do before."""
    waiting = await ready(executor, place)
    assert executor.claim(waiting.job.directory)
    reap(executor)
    heard = Heard()
    process = await executor.start_task(
        own(waiting.job), on_output=heard.on_output, on_start=heard.pids.append
    )
    assert await asyncio.wait_for(process.wait(), 60) == Exit(0)
    assert heard.output == b"marked\n"


async def test_one_that_was_claimed_and_is_not_used_holds_its_template_no_longer(
    executor: ProcessExecutor, place: Place
) -> None:
    waiting = await ready(executor, place)
    assert executor.claim(waiting.job.directory)
    executor.discard(waiting.job.directory)
    await asyncio.wait_for(waiting.gone, 60)
    assert not executor.claim(waiting.job.directory)
    reap(executor)
    assert executor._pool.templates == []


async def test_a_template_is_not_asked_at_once_for_what_it_refused(
    executor: ProcessExecutor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal is of the moment: a later template, or the same one later, may have its environment."""
    await first(executor, place)
    other = {"PATH": "/elsewhere"}
    await asyncio.wait_for(Waiting(executor, replace(place.job(), env=other)).gone, 60)
    assert not executor.prepares(replace(place.job(), env=other))
    assert not executor.prepare(replace(place.job(), env=other), gone=lambda: None)
    assert executor.prepares(place.job())
    with monkeypatch.context() as patch:
        patch.setattr(template, "_REFUSED_SECONDS", -1.0)
        assert executor.prepares(replace(place.job(), env=other))
    reap(executor)
    assert not executor.prepares(place.job())  # there is no template any more
    job = replace(own(place.job()), env=other)
    process = await executor.start_task(job, on_output=lambda _: None, on_start=lambda _: None)
    assert await asyncio.wait_for(process.wait(), 60) == Exit(0)
    assert executor.prepares(replace(place.job(), env=other))


async def test_without_a_template_nothing_waits(executor: ProcessExecutor, place: Place) -> None:
    assert not executor.prepare(place.job(), gone=lambda: None)


def test_only_a_plain_file_of_towers_own_is_handed_over(tmp_path: Path) -> None:
    plain, secret = tmp_path / "plain", tmp_path / "secret"
    plain.write_bytes(b"x")
    secret.write_bytes(b"x")
    user = os.geteuid()
    entrust(plain, user)
    entrust(tmp_path / "nothing", user)
    os.symlink(secret, tmp_path / "link")
    os.link(secret, tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "hard", "pipe"):
        with pytest.raises(Unavailable):
            entrust(tmp_path / name, user)

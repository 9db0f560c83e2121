"""The process executor, with control groups where the machine has them and with rlimits everywhere."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.suites.executor_suite import ExecutorSuite, Jobs, ended, living, sleeping, started
from tests.tower.executors.conftest import STAND_IN

from tower.errors import Unavailable
from tower.executors.port import Exit, Limits
from tower.executors.process import ProcessExecutor
from tower.executors.process.cgroups import Cgroups
from tower.executors.process.isolation import Isolation, Mode, Wanted, choose, interpreter


class TestWithRlimits(ExecutorSuite):
    @pytest.fixture
    async def executor(self) -> AsyncIterator[ProcessExecutor]:
        executor = ProcessExecutor(package="standin", groups=None)
        assert executor.enforcement == "rlimits"
        yield executor
        await executor.close()


def groups() -> Cgroups:
    found = Cgroups.open()
    if found is None:
        pytest.skip("this machine lets us make no control groups")
    return found


class TestWithControlGroups(ExecutorSuite):
    @pytest.fixture
    async def executor(self) -> AsyncIterator[ProcessExecutor]:
        executor = ProcessExecutor(package="standin", groups=groups())
        assert executor.enforcement.startswith("cgroups")
        yield executor
        await executor.close()

    async def test_a_daemon_does_not_outlive_its_attempt(self, executor: ProcessExecutor, jobs: Jobs) -> None:
        exit_, heard = await ended(executor, jobs.task("leave_a_daemon"))
        assert exit_.code == 0
        assert not sleeping(heard.output.strip())

    async def test_the_kernel_says_that_memory_ran_out(self, executor: ProcessExecutor, jobs: Jobs) -> None:
        exit_, _ = await ended(executor, jobs.task("eat", limits=Limits(memory=64 << 20)))
        assert exit_ == Exit(137, 9, out_of_memory=True)

    async def test_the_number_of_processes_is_limited(self, executor: ProcessExecutor, jobs: Jobs) -> None:
        (jobs.bundle / "bomb.py").write_text(
            textwrap.dedent(
                """
                import os, signal
                def bomb(message):
                    made = 0
                    try:
                        while True:
                            if os.fork() == 0:
                                signal.pause()
                            made += 1
                    except OSError:
                        print(made, flush=True)
                """
            )
        )
        exit_, heard = await ended(executor, jobs.task("bomb", module="bomb", limits=Limits(processes=10)))
        assert exit_.code == 0
        assert heard.output == b"9\n"

    async def test_no_group_stays_behind(self, jobs: Jobs) -> None:
        found = groups()
        parents = set(found._parents.values())
        executor = ProcessExecutor(package="standin", groups=found)
        await ended(executor, jobs.task("hello"))
        assert all(parent.is_dir() for parent in parents)
        await executor.close()
        assert not any(parent.exists() for parent in parents)


@pytest.fixture(scope="session")
def isolation(python: Path) -> Isolation:
    """The best that this machine can do."""
    found, why = choose(Wanted.PREFERRED, visible=(STAND_IN, *interpreter(python)))
    if not found.mode.namespaces:
        pytest.skip(f"this machine does not isolate: {why}")
    return found


class TestIsolated(TestWithControlGroups):
    @pytest.fixture
    async def executor(self, isolation: Isolation) -> AsyncIterator[ProcessExecutor]:
        executor = ProcessExecutor(package="standin", groups=groups(), isolation=isolation)
        yield executor
        await executor.close()


class TestIsolatedWithRlimits(ExecutorSuite):
    @pytest.fixture
    async def executor(self, isolation: Isolation) -> AsyncIterator[ProcessExecutor]:
        executor = ProcessExecutor(package="standin", groups=None, isolation=isolation)
        yield executor
        await executor.close()


class TestWithLandlockAlone(ExecutorSuite):
    @pytest.fixture
    async def executor(self, isolation: Isolation) -> AsyncIterator[ProcessExecutor]:
        alone = replace(isolation, mode=Mode.LANDLOCK)
        executor = ProcessExecutor(package="standin", isolation=alone)
        yield executor
        await executor.close()


async def test_groups_that_a_dead_tower_left_are_emptied() -> None:
    found = groups()
    dead = await asyncio.create_subprocess_exec(
        "sleep", "1000"
    )  # alive until all is laid out: others sweep too
    stale = [parent.parent / f"tower-{dead.pid}-abc" / "7" for parent in set(found._parents.values())]
    for path in stale:
        path.mkdir(parents=True)
    left = await asyncio.create_subprocess_exec("sleep", "1000")
    (stale[0] / "cgroup.procs").write_text(str(left.pid))
    dead.kill()
    await dead.wait()
    groups().close()
    assert await asyncio.wait_for(left.wait(), 60) == -signal.SIGKILL
    groups().close()
    assert not any(path.exists() for path in stale)
    found.close()


@pytest.fixture
async def executor() -> AsyncIterator[ProcessExecutor]:
    executor = ProcessExecutor(package="standin", largest_pool=1)
    yield executor
    await executor.close()


def template_pids(executor: ProcessExecutor) -> list[int]:
    return [template.pid for template in executor._pool.templates]


async def test_one_template_serves_all_attempts_of_a_bundle(executor: ProcessExecutor, jobs: Jobs) -> None:
    await ended(executor, jobs.task("hello"))
    (first,) = template_pids(executor)
    await ended(executor, jobs.task("seven"))
    assert template_pids(executor) == [first]


async def test_a_dead_template_ends_its_attempts_and_is_replaced(
    executor: ProcessExecutor, jobs: Jobs
) -> None:
    process, heard = await started(executor, jobs.task("wait_for_ever"))
    await heard.until(b"waiting")
    (pid,) = template_pids(executor)
    os.kill(pid, signal.SIGKILL)
    assert (await asyncio.wait_for(process.wait(), 60)).signal == signal.SIGKILL
    assert not living(process.pid)
    assert (await ended(executor, jobs.task("hello")))[0] == Exit(0)
    assert template_pids(executor) != [pid]


async def test_an_idle_template_makes_room(
    executor: ProcessExecutor, jobs: Jobs, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await ended(executor, jobs.task("hello"))
    (old,) = template_pids(executor)
    other = Jobs(tmp_path_factory.mktemp("other"), jobs.python)
    await ended(executor, other.task("hello"))
    (new,) = template_pids(executor)
    assert new != old
    await asyncio.gather(*executor._pool._leaving)
    assert not living(old)


async def test_a_result_is_known_before_the_process_has_ended(executor: ProcessExecutor, jobs: Jobs) -> None:
    process, heard = await started(executor, jobs.task("say_done_and_stay"))
    assert await asyncio.wait_for(process.finished(), 120) == Exit(0)
    assert heard.output == b"before\n"
    assert living(process.pid)
    await process.stop(0)
    assert not living(process.pid)
    assert await process.finished() == Exit(0)


async def test_without_a_word_the_end_is_the_result(executor: ProcessExecutor, jobs: Jobs) -> None:
    process, _ = await started(executor, jobs.task("seven"))
    assert await asyncio.wait_for(process.finished(), 120) == Exit(7)


async def test_an_idle_template_is_reaped(jobs: Jobs) -> None:
    executor = ProcessExecutor(package="standin", idle_seconds=0)
    process, _ = await started(executor, jobs.task("wait_for_ever"))
    (pid,) = template_pids(executor)
    executor._pool.reap()
    assert template_pids(executor) == [pid]
    await process.stop(10)
    executor._pool.reap()
    assert template_pids(executor) == []
    await asyncio.gather(*executor._pool._leaving)
    assert not living(pid)
    await executor.close()


async def test_a_template_cannot_lend_its_identity_to_a_stranger(
    executor: ProcessExecutor, jobs: Jobs
) -> None:
    """The code of a bundle owns its template; it may lie to us, but not about its children (T8)."""
    process, _ = await started(executor, jobs.task("wait_for_ever"))
    (template,) = executor._pool.templates
    assert not template._child_called(os.getpid())
    assert not template._child_called(1)
    assert template._child_called(process.pid) == process.pid
    await process.stop(5)


async def test_a_missing_runtime_is_told_with_its_reason(jobs: Jobs) -> None:
    executor = ProcessExecutor(package="no_such_runtime")
    with pytest.raises(Unavailable) as raised:
        await started(executor, jobs.task("hello"))
    assert "no_such_runtime" in raised.value.cause
    await executor.close()


async def test_children_die_with_tower(tmp_path: Path, jobs: Jobs) -> None:
    """Kill -9 of Tower leaves neither templates nor attempts nor apps behind."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import asyncio, sys
            from pathlib import Path
            sys.path.insert(0, {str(Path(__file__).parents[3])!r})
            from tests.suites.executor_suite import Jobs, started
            from tower.executors.port import AppJob
            from tower.executors.process import ProcessExecutor

            async def main():
                executor = ProcessExecutor(package="standin", groups=None)
                folder = Path({str(tmp_path)!r}, "inner"); folder.mkdir()
                jobs = Jobs(folder, Path({str(jobs.python)!r}))
                process, heard = await started(executor, jobs.task("wait_for_ever"))
                await heard.until(b"waiting")
                app = AppJob("p/d/a", jobs.python, None, "", "", folder, folder / "a", folder / "b",
                             command=("sleep", "1000"), env={{"PATH": "/usr/bin:/bin"}})
                sleeper = await executor.start_app(app, on_output=print, on_start=lambda pid: None)
                (template,) = executor._pool.templates
                print(process.pid, template.pid, sleeper.pid, flush=True)
                await asyncio.Event().wait()

            asyncio.run(main())
            """
        )
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, script, stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"]}
    )
    assert parent.stdout is not None
    pids = [int(word) for word in (await parent.stdout.readline()).split()]
    assert len(pids) == 3
    descriptors = [os.pidfd_open(pid) for pid in pids]
    parent.kill()
    await parent.wait()
    loop = asyncio.get_running_loop()
    for descriptor in descriptors:
        gone = asyncio.Event()
        loop.add_reader(descriptor, gone.set)
        await asyncio.wait_for(gone.wait(), 60)
        loop.remove_reader(descriptor)
        os.close(descriptor)

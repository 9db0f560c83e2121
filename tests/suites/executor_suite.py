"""What every executor does, whatever it runs work on. A subclass gives the fixtures `executor` and `jobs`."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import textwrap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tower.errors import Fault
from tower.executors.port import AppJob, Executor, Exit, Limits, Process, TaskJob

NO_DUMP = (
    1 if (most := resource.getrlimit(resource.RLIMIT_CORE)[1]) == resource.RLIM_INFINITY else min(1, most)
)
"""Bytes that a dump of a process may have: at 1 the kernel makes none, nor hands one to a program."""

CODE = """
import os, signal, subprocess, sys, time
import threading

def hello(message):
    print("hello", os.environ["WHO"], flush=True)
    print("to stderr", file=sys.stderr)

def leave_a_file(message):
    open("mark", "w").write(os.getcwd())

def environment(message):
    for name in sorted(os.environ):
        print(name)
    fds = [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)]
    print("fds", sorted(set(fds) - {message.get("said")}))

def seven(message):
    sys.exit(7)

def killed(message):
    os.kill(os.getpid(), signal.SIGKILL)

def chatter(message):
    for _ in range(64):
        sys.stdout.write("x" * 65536)
    open("done", "w").close()

def say_done_and_stay(message):
    print("before", flush=True)
    os.write(message["said"], b"x")
    signal.pause()

def wait_for_ever(message):
    print("waiting", flush=True)
    signal.pause()

def stubborn(message):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("waiting", flush=True)
    while True:
        signal.pause()

def leave_a_process(message):
    mark = "1000." + str(time.time_ns())
    subprocess.Popen(["sleep", mark])
    print(mark, flush=True)

def leave_a_daemon(message):
    reader, writer = os.pipe()
    mark = "1000." + str(time.time_ns())
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print(mark, flush=True)
            os.write(writer, b"x")
            os.execvp("sleep", ["sleep", mark])
        os._exit(0)
    os.wait()
    os.read(reader, 1)

def eat(message):
    blocks = []
    while True:
        blocks.append(bytearray(os.urandom(1 << 20)) )

def remember(message):
    import code_of_a_task as me
    print(getattr(me, "SECRET", "nothing"))
    me.SECRET = os.environ["WHO"]

def limits(message):
    import resource
    print(resource.getrlimit(resource.RLIMIT_CORE))
    print([line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")][0].split()[1])
"""

THREADED = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()

def hello(message):
    print("hello from", message["id"])
"""


@dataclass
class Heard:
    """What came out of one job."""

    pids: list[int] = field(default_factory=list)
    output: bytearray = field(default_factory=bytearray)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_output(self, chunk: bytes) -> None:
        self.output += chunk
        self.changed.set()

    async def until(self, text: bytes) -> None:
        """Wait until the output holds `text`."""
        async with asyncio.timeout(60):
            while text not in self.output:
                self.changed.clear()
                await self.changed.wait()


class Jobs:
    """Makes jobs in a folder of their own."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.python = python
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        folder.chmod(0o711)  # as the folders of rooms are: where Tower is root, its tasks are not
        (self.bundle / "code_of_a_task.py").write_text(textwrap.dedent(CODE))
        (self.bundle / "threaded.py").write_text(THREADED)
        self.count = 0

    def task(self, function: str, **changes: object) -> TaskJob:
        """A job that calls one function of the code above."""
        self.count += 1
        directory = self.folder / f"attempt-{self.count}"
        directory.mkdir(mode=0o700)
        job = TaskJob(
            id=f"p/d/r{self.count}/a0/1",
            python=self.python,
            bundle=self.bundle,
            module="code_of_a_task",
            task=function,
            directory=directory,
            agent_socket=directory / "agent.sock",
            env={"WHO": "alice", "PATH": f"{self.python.parent}:/usr/bin:/bin"},
        )
        return replace(job, **changes)  # type: ignore[arg-type]


async def started(executor: Executor, job: TaskJob) -> tuple[Process, Heard]:
    heard = Heard()
    process = await executor.start_task(job, on_output=heard.on_output, on_start=heard.pids.append)
    return process, heard


async def ended(executor: Executor, job: TaskJob) -> tuple[Exit, Heard]:
    process, heard = await started(executor, job)
    return await asyncio.wait_for(process.wait(), 120), heard


def living(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}


def sleeping(mark: bytes) -> bool:
    """Whether a process with this word in its command line goes on living, whatever its own table calls it.

    One that the kernel is about to clear away, and lists still, does not.
    """
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if mark not in path.read_bytes().split(b"\0"):
                continue
            descriptor = os.pidfd_open(int(path.parent.name))
            try:
                if not select.select([descriptor], [], [], 30.0)[0]:
                    return True
            finally:
                os.close(descriptor)
    return False


class ExecutorSuite:
    async def test_runs_a_function_with_exactly_its_environment(self, executor: Executor, jobs: Jobs) -> None:
        os.environ["TOWER_CANARY"] = "leak"
        try:
            exit_, heard = await ended(executor, jobs.task("environment"))
        finally:
            del os.environ["TOWER_CANARY"]
        assert exit_ == Exit(0)
        assert heard.output.decode().split("\n")[:3] == ["PATH", "WHO", "fds [0, 1, 2]"]

    async def test_tells_the_process_before_its_code_and_its_output_in_order(
        self, executor: Executor, jobs: Jobs
    ) -> None:
        # it stays until it is told: one that was over before anybody looked is told of no more
        process, heard = await started(executor, jobs.task("wait_for_ever"))
        assert heard.pids == [process.pid]
        await heard.until(b"waiting")
        await process.stop(0.1)
        process, heard = await started(executor, jobs.task("hello"))
        assert await process.wait() == Exit(0)
        assert heard.output == b"hello alice\nto stderr\n"

    async def test_works_in_its_directory(self, executor: Executor, jobs: Jobs) -> None:
        job = jobs.task("leave_a_file")
        await ended(executor, job)
        assert (job.directory / "mark").read_text() == str(job.directory)

    @pytest.mark.parametrize(("function", "expected"), [("seven", Exit(7)), ("killed", Exit(137, 9))])
    async def test_tells_how_it_ended(
        self, executor: Executor, jobs: Jobs, function: str, expected: Exit
    ) -> None:
        assert (await ended(executor, jobs.task(function)))[0] == expected

    async def test_output_beyond_the_limit_is_dropped_and_does_not_block(
        self, executor: Executor, jobs: Jobs
    ) -> None:
        job = jobs.task("chatter", limits=Limits(output=100_000))
        exit_, heard = await ended(executor, job)
        assert exit_ == Exit(0, output_truncated=True)
        assert len(heard.output) == 100_000
        assert (job.directory / "done").exists()

    async def test_stop_asks_first(self, executor: Executor, jobs: Jobs) -> None:
        process, heard = await started(executor, jobs.task("wait_for_ever"))
        await heard.until(b"waiting")
        await process.stop(20)
        assert (await process.wait()).signal == 15

    async def test_stop_insists(self, executor: Executor, jobs: Jobs) -> None:
        process, heard = await started(executor, jobs.task("stubborn"))
        await heard.until(b"waiting")
        await process.stop(0.05)
        assert (await process.wait()).signal == 9

    async def test_nothing_of_an_attempt_outlives_it(self, executor: Executor, jobs: Jobs) -> None:
        exit_, heard = await ended(executor, jobs.task("leave_a_process"))
        assert exit_.code == 0
        assert not sleeping(heard.output.strip())

    async def test_attempts_share_no_state(self, executor: Executor, jobs: Jobs) -> None:
        for who in ("alice", "bob"):
            env = {"WHO": who, "PATH": "/usr/bin:/bin"}
            _, heard = await ended(executor, jobs.task("remember", env=env))
            assert heard.output == b"nothing\n"

    async def test_code_with_threads_runs_too(self, executor: Executor, jobs: Jobs) -> None:
        for _ in range(2):
            job = jobs.task("hello", module="threaded")
            exit_, heard = await ended(executor, job)
            assert exit_ == Exit(0)
            assert heard.output.decode() == f"hello from {job.id}\n"

    async def test_no_core_files_and_no_new_privileges(self, executor: Executor, jobs: Jobs) -> None:
        _, heard = await ended(executor, jobs.task("limits"))
        assert heard.output.decode().split("\n")[:2] == [str((NO_DUMP, NO_DUMP)), "1"]

    async def test_memory_is_limited(self, executor: Executor, jobs: Jobs) -> None:
        exit_, _ = await ended(executor, jobs.task("eat", limits=Limits(memory=128 << 20)))
        assert exit_.out_of_memory or exit_.code == 77

    async def test_many_at_once(self, executor: Executor, jobs: Jobs) -> None:
        results = await asyncio.gather(*(ended(executor, jobs.task("hello")) for _ in range(20)))
        assert all(exit_ == Exit(0) and heard.output.startswith(b"hello") for exit_, heard in results)

    async def test_a_cancelled_start_leaves_nothing(self, executor: Executor, jobs: Jobs) -> None:
        heard = Heard()
        job = jobs.task("wait_for_ever")
        start = asyncio.create_task(
            executor.start_task(job, on_output=heard.on_output, on_start=heard.pids.append)
        )
        await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert (await ended(executor, jobs.task("hello")))[0] == Exit(0)

    async def test_close_ends_everything(self, executor: Executor, jobs: Jobs) -> None:
        process, heard = await started(executor, jobs.task("stubborn"))
        await heard.until(b"waiting")
        close: Callable[[], object] = executor.close
        await close()  # type: ignore[misc]
        assert not living(process.pid)
        with pytest.raises(Fault):
            await started(executor, jobs.task("hello"))

    async def test_an_interpreter_that_cannot_start_is_a_fault(self, executor: Executor, jobs: Jobs) -> None:
        with pytest.raises(Fault):
            await started(executor, jobs.task("hello", python=Path("/nonexistent/python")))

    async def test_an_app_listens_on_its_socket_and_is_stopped(self, executor: Executor, jobs: Jobs) -> None:
        (jobs.bundle / "an_app.py").write_text(
            "import os, socket\n"
            "def serve():\n"
            "    s = socket.socket(socket.AF_UNIX)\n"
            "    s.bind(os.environ['FLYTE_APP_SOCKET']); s.listen()\n"
            "    print('listening', flush=True)\n"
            "    while True:\n"
            "        c, _ = s.accept(); c.sendall(c.recv(100).upper()); c.close()\n"
        )
        directory = jobs.folder / "app"
        directory.mkdir()
        heard = Heard()
        job = AppJob(
            id="p/d/app",
            python=jobs.python,
            bundle=jobs.bundle,
            module="an_app",
            app="serve",
            directory=directory,
            app_socket=directory / "app.sock",
            agent_socket=directory / "agent.sock",
            env={"FLYTE_APP_SOCKET": str(directory / "app.sock"), "PATH": "/usr/bin:/bin"},
        )
        process = await executor.start_app(job, on_output=heard.on_output, on_start=heard.pids.append)
        assert heard.pids == [process.pid]
        await heard.until(b"listening")
        reader, writer = await asyncio.open_unix_connection(str(job.app_socket))
        writer.write(b"ping")
        assert await reader.read() == b"PING"
        writer.close()
        await writer.wait_closed()
        await process.stop(10)
        assert (await process.wait()).signal == 15

    async def test_an_app_by_command(self, executor: Executor, jobs: Jobs) -> None:
        heard = Heard()
        job = AppJob(
            id="p/d/app",
            python=jobs.python,
            bundle=None,
            module="",
            app="",
            directory=jobs.folder,
            app_socket=jobs.folder / "app.sock",
            agent_socket=jobs.folder / "agent.sock",
            command=("echo", "$HOME", "two words"),
            env={"PATH": "/usr/bin:/bin"},
        )
        process = await executor.start_app(job, on_output=heard.on_output, on_start=heard.pids.append)
        assert await process.wait() == Exit(0)
        assert heard.output == b"$HOME two words\n"

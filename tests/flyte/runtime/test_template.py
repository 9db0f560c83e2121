"""The template process over a real socket, with real forks."""

from __future__ import annotations

import array
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.core import execution_pb2
from flyteidl2.task import common_pb2

NO_DUMP = (
    1 if (most := resource.getrlimit(resource.RLIMIT_CORE)[1]) == resource.RLIM_INFINITY else min(1, most)
)
"""Bytes that a dump of a process may have: at 1 the kernel makes none, nor hands one to a program."""

MODULE = """
from __future__ import annotations
import os, sys, random, asyncio, resource, signal
import flyte
from flyte._environment import TaskEnvironment

env = TaskEnvironment("work")
IMPORTED_IN = os.getpid()
REGION = os.getenv("REGION")

@env.task
def look() -> dict:
    path = "/proc/self/fd/"
    fds = [name for name in os.listdir(path) if os.path.exists(path + name)]
    limit = lambda kind: resource.getrlimit(kind)[0]
    return {
        "pid": os.getpid(), "imported_in": IMPORTED_IN, "session": os.getsid(0), "env": dict(os.environ),
        "cwd": os.getcwd(), "fds": {fd: os.readlink(path + fd) for fd in fds},
        "random": random.random(), "region": REGION, "umask": os.umask(0o077),
        "core": limit(resource.RLIMIT_CORE), "data": limit(resource.RLIMIT_DATA),
        "stdin": sys.stdin.read(),
    }

@env.task
async def waits(x: int) -> int:
    await asyncio.sleep(0.01)
    print("hello from", x)
    print("to stderr", file=sys.stderr)
    return x

@env.task
def fails() -> int:
    raise ValueError("no")

@env.task
def hangs() -> int:
    print("hanging", flush=True)
    signal.pause()
    return 1

@env.task
def dies() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 1

@env.task
def hogs() -> int:
    return len(bytearray(1 << 30))
"""

MODULES = {
    "threaded": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    ),
    "opened": "held = open(__file__)\n",
    "nosy": "import os\nname = os.environ.get('RUN_NAME')\n",
    "copies": "import os\nname = dict(os.environ)\n",
    "broken": "raise RuntimeError('at import')\n",
}
TASKS = """
import flyte
from flyte._environment import TaskEnvironment
env = TaskEnvironment(__name__)

@env.task
def one() -> int:
    return 1
"""


class Tower:
    """The other side of the protocol."""

    def __init__(self, directory: Path, bundle: Path) -> None:
        self.directory = directory
        self.bundle = bundle
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(120)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "flyte.runtime.worker"),
                *("--control-fd", str(theirs.fileno()), "--bundle", str(bundle)),
            ],
            env={"PATH": "/usr/bin", "LANG": "C.UTF-8"},
            pass_fds=[theirs.fileno()],
            cwd="/",
        )
        theirs.close()
        assert self.receive() == {"event": "ready", "done": True, "ahead": True}

    def receive(self) -> dict[str, Any]:
        packet = self.socket.recv(1 << 17)
        assert packet, "the template ended"
        found: dict[str, Any] = json.loads(packet)
        return found

    def start(
        self, identity: str, task: str, *, module: str = "mywork", x: int | None = None, **change: Any
    ) -> int:
        """Send a start message; answers the reading end of the attempt's output."""
        groups = change.pop("groups", [])
        directory = self.directory / identity
        directory.mkdir()
        inputs = common_pb2.Inputs()
        if x is not None:
            inputs.literals.add(name="x").value.scalar.primitive.integer = x
        (directory / "inputs.pb").write_bytes(inputs.SerializeToString())
        env = {
            "PATH": "/bin",
            "RUN_NAME": identity,
            "FLYTE_AGENT_SOCKET": "/x/y.sock",
            **change.pop("env", {}),
        }
        message = {
            "op": "start",
            "id": identity,
            "module": module,
            "task": task,
            "directory": str(directory),
            "agent_socket": "/x/y.sock",
            "env": env,
            "limits": {"memory": None, "cpu": None, "processes": None},
            "cgroups": len(groups),
            **change,
        }
        reading, writing = os.pipe()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing, *groups]))]
        self.socket.sendmsg([json.dumps(message).encode()], rights)
        os.close(writing)
        return reading

    def finish(self, identity: str, reading: int) -> tuple[int, str]:
        """Wait for an attempt that was started last; its wait status and its output."""
        assert self.receive()["event"] == "started"
        ended = self.receive()
        assert ended["event"] == "exited"
        assert ended["id"] == identity
        with os.fdopen(reading) as output:
            return ended["status"], output.read()

    def run(self, identity: str, task: str, **change: Any) -> tuple[int, str]:
        return self.finish(identity, self.start(identity, task, **change))

    def output(self, identity: str) -> Any:
        import msgpack

        raw = (self.directory / identity / "outputs.pb").read_bytes()
        literal = common_pb2.Outputs.FromString(raw).literals[0].value
        if literal.scalar.HasField("binary"):
            return msgpack.unpackb(literal.scalar.binary.value)
        return literal.scalar.primitive.integer


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / "mywork.py").write_text(MODULE)
    for name, text in MODULES.items():
        (directory / f"{name}.py").write_text(text + TASKS)
    return directory


@pytest.fixture
def tower(tmp_path: Path, bundle: Path) -> Iterator[Tower]:
    (tmp_path / "attempts").mkdir()
    made = Tower(tmp_path / "attempts", bundle)
    yield made
    made.socket.close()
    assert made.process.wait(120) == 0


def test_attempts_are_forks_with_a_life_of_their_own(tower: Tower, tmp_path: Path) -> None:
    status, _ = tower.run("first", "work.look")
    assert status == 0
    first = tower.output("first")
    tower.run("second", "work.look")
    second = tower.output("second")
    assert first["imported_in"] == second["imported_in"] == tower.process.pid
    assert first["pid"] != second["pid"]
    assert first["session"] == first["pid"]
    assert first["random"] != second["random"]
    assert second["env"] == {"PATH": "/bin", "RUN_NAME": "second", "FLYTE_AGENT_SOCKET": "/x/y.sock"}
    assert second["cwd"] == str(tmp_path / "attempts" / "second")
    assert second["umask"] == 0o077
    assert second["core"] == NO_DUMP
    assert second["stdin"] == ""


def test_nothing_of_the_template_is_open_in_an_attempt(tower: Tower) -> None:
    hanging = tower.start("hanging", "work.hangs")
    assert tower.receive()["event"] == "started"
    with os.fdopen(hanging) as output:
        assert output.readline() == "hanging\n"
        reading = tower.start("look", "work.look")
        tower.finish("look", reading)
        fds = tower.output("look")["fds"]
        # descriptor 3 is the listing itself, and gone when it is looked at
        assert set(fds) == {"0", "1", "2"}
        assert fds["0"] == "/dev/null"
        assert fds["1"] == fds["2"]
        assert fds["1"].startswith("pipe:")
        tower.socket.close()
        assert output.read() == ""  # the other attempt ended with the template


def test_async_task_and_output(tower: Tower) -> None:
    status, text = tower.run("a", "work.waits", x=7)
    assert status == 0
    assert text == "hello from 7\nto stderr\n"
    assert tower.output("a") == 7


def test_many_at_the_same_time(tower: Tower) -> None:
    readings = {str(number): tower.start(str(number), "work.waits", x=number) for number in range(12)}
    ended = set()
    while len(ended) < 12:
        event = tower.receive()
        if event["event"] == "exited":
            assert event["status"] == 0
            ended.add(event["id"])
    for identity, reading in readings.items():
        with os.fdopen(reading) as output:
            assert f"hello from {identity}\n" in output.read()
        assert tower.output(identity) == int(identity)


def test_errors_and_signals(tower: Tower) -> None:
    status, text = tower.run("a", "work.fails")
    assert status == 0
    assert "ValueError: no" in text
    raw = (tower.directory / "a" / "error.pb").read_bytes()
    error = execution_pb2.ErrorDocument.FromString(raw).error
    assert error.code == "ValueError"
    assert "worker" not in error.message
    status, _ = tower.run("b", "work.dies")
    assert os.WTERMSIG(status) == signal.SIGKILL
    status, text = tower.run("c", "broken.one", module="broken")
    assert status == 0
    assert "RuntimeError: at import" in text


def test_memory_limit(tower: Tower) -> None:
    status, text = tower.run(
        "a", "work.hogs", limits={"memory": 400 * 1024 * 1024, "cpu": None, "processes": None}
    )
    assert status == 0
    assert "MemoryError" in text


def test_cgroup_files_get_a_zero_from_the_attempt(tower: Tower, tmp_path: Path) -> None:
    files = [tmp_path / "memory.procs", tmp_path / "cpu.procs"]
    for file in files:
        file.touch()
    groups = [os.open(file, os.O_WRONLY) for file in files]
    status, _ = tower.run("a", "work.look", groups=groups)
    for group in groups:
        os.close(group)
    assert status == 0
    assert [file.read_text() for file in files] == ["0", "0"]


def test_limits_that_cannot_be_set_stop_the_attempt(tower: Tower) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    status, text = tower.run("a", "work.look", groups=[full])
    os.close(full)
    assert os.WEXITSTATUS(status) == 120
    assert "could not be started" in text
    assert not (tower.directory / "a" / "outputs.pb").exists()


@pytest.mark.parametrize(
    ("module", "reason"), [("threaded", "threads"), ("opened", "files"), ("nosy", "RUN_NAME")]
)
def test_what_must_not_be_forked(tower: Tower, module: str, reason: str) -> None:
    for identity in ("a", "b"):
        reading = tower.start(identity, f"{module}.one", module=module)
        answer = tower.receive()
        assert answer["event"] == "unsafe"
        assert answer["id"] == identity
        assert reason in answer["reason"]
        with os.fdopen(reading) as output:
            assert output.read() == ""


def test_a_copy_of_the_environment_is_harmless(tower: Tower) -> None:
    status, _ = tower.run("a", "copies.one", module="copies")
    assert status == 0


def test_a_variable_that_the_import_read_is_the_attempts_own(tower: Tower) -> None:
    tower.run("a", "work.look", env={"REGION": "north"})
    assert tower.output("a")["region"] == "north"
    tower.run("b", "work.look", env={"REGION": "north"})
    assert tower.output("b")["region"] == "north"
    tower.start("c", "work.look", env={"REGION": "south"})
    answer = tower.receive()
    assert answer["event"] == "unsafe"
    assert "environment" in answer["reason"]
    assert answer["once"]  # the next one with the variables of the import is forked again
    assert tower.run("d", "work.look", env={"REGION": "north"})[0] == 0


def test_rubbish_on_the_socket_is_survived(tower: Tower) -> None:
    for packet in (b"{}", b"[1]", b"\xff\xfe", b'{"op":"start"}'):
        tower.socket.send(packet)
    assert tower.run("a", "work.waits", x=1)[0] == 0


def test_the_attempt_dies_with_the_template(tower: Tower) -> None:
    reading = tower.start("a", "work.hangs")
    assert tower.receive()["event"] == "started"
    with os.fdopen(reading) as output:
        assert output.readline() == "hanging\n"
        tower.process.kill()
        assert output.read() == ""
    tower.process.wait(120)
    tower.process.returncode = 0


def spare(tower: Tower) -> int:
    """The process that waits for the next attempt, once there is one."""
    while True:
        children = Path(f"/proc/{tower.process.pid}/task/{tower.process.pid}/children").read_text().split()
        if len(children) == 1:
            return int(children[0])


def test_the_next_attempt_gets_the_process_that_waits_for_it(tower: Tower) -> None:
    tower.run("first", "work.look")
    waiting = spare(tower)
    status, text = tower.run("second", "work.look")
    assert (status, text) == (0, "")
    second = tower.output("second")
    assert second["pid"] == second["session"] == waiting
    assert second["env"] == {"PATH": "/bin", "RUN_NAME": "second", "FLYTE_AGENT_SOCKET": "/x/y.sock"}
    assert set(second["fds"]) == {"0", "1", "2"}
    assert second["stdin"] == ""
    assert second["core"] == NO_DUMP
    status, text = tower.run("third", "work.waits", x=3)
    assert (status, text) == (0, "hello from 3\nto stderr\n")


def test_while_one_runs_the_next_one_finds_a_process_that_waits(tower: Tower) -> None:
    reading = tower.start("first", "work.hangs")
    running = tower.receive()["pid"]
    children = Path(f"/proc/{tower.process.pid}/task/{tower.process.pid}/children")
    while len(waiting := set(children.read_text().split()) - {str(running)}) != 1:
        pass
    status, text = tower.run("second", "work.look")
    assert (status, text) == (0, "")
    second = tower.output("second")
    assert {str(second["pid"])} == waiting
    assert set(second["fds"]) == {"0", "1", "2"}
    os.kill(running, signal.SIGKILL)
    assert tower.receive() == {"event": "exited", "id": "first", "status": signal.SIGKILL}
    os.close(reading)


def test_the_process_that_waits_holds_nothing_and_ends_with_the_template(tower: Tower) -> None:
    tower.run("first", "work.look")
    waiting = Path(f"/proc/{spare(tower)}")
    while len(held := sorted(os.listdir(waiting / "fd"), key=int)) > 4:
        pass  # it is closing what it inherited
    assert held[:3] == ["0", "1", "2"]
    assert os.readlink(waiting / "fd" / held[3]).startswith("socket:")
    tower.socket.close()
    assert tower.process.wait(120) == 0
    assert not waiting.exists()


def test_a_waiting_process_that_was_killed_or_lacks_a_module_is_not_used(tower: Tower) -> None:
    tower.run("first", "work.look")
    waiting = os.pidfd_open(spare(tower))
    signal.pidfd_send_signal(waiting, signal.SIGKILL)
    assert select.select([waiting], [], [], 120)[0]  # it has ended
    os.close(waiting)
    status, _ = tower.run("second", "work.waits", x=2)
    assert status == 0
    assert tower.output("second") == 2
    waiting = spare(tower)
    (tower.bundle / "late.py").write_text(TASKS)
    status, _ = tower.run("third", "late.one", module="late")
    assert status == 0
    assert tower.output("third") == 1
    assert not Path(f"/proc/{waiting}").exists()


def exhausted(tower: Tower, identity: str, *, most: int) -> dict[str, Any]:
    """Start an attempt while the template may have descriptors below this number only; what became of it."""
    usual = resource.prlimit(tower.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(tower.process.pid, resource.RLIMIT_NOFILE, (most, usual[1]))
    reading = tower.start(identity, "work.waits", x=1)
    answer = tower.receive()
    if answer["event"] == "started":
        answer = tower.receive()
    resource.prlimit(tower.process.pid, resource.RLIMIT_NOFILE, usual)
    os.close(reading)
    return answer


@pytest.mark.parametrize("waits", [False, True], ids=["as the last one left it", "with a child that waits"])
def test_without_descriptors_one_start_is_refused_and_nothing_else_ends(tower: Tower, waits: bool) -> None:
    reading = tower.start("first", "work.hangs")
    running = tower.receive()["pid"]
    refused, ended = set(), set()
    for most in range(1, 30):  # each step of a start finds that there is no descriptor for it
        if waits:
            assert tower.run(f"before {most}", "work.waits", x=0)[0] == 0
        answer = exhausted(tower, f"at {most}", most=most)
        assert answer["id"] == f"at {most}"
        if answer["event"] == "unsafe":
            assert answer["once"]
            refused.add(most)
        else:
            assert answer["event"] == "exited"
            assert os.waitstatus_to_exitcode(answer["status"]) in {0, 120}
            ended.add(answer["status"])
    assert 1 in refused
    assert 0 in ended
    assert tower.run("last", "work.waits", x=2)[0] == 0
    os.kill(running, signal.SIGKILL)
    assert tower.receive() == {"event": "exited", "id": "first", "status": signal.SIGKILL}
    os.close(reading)


def test_a_message_whose_descriptors_are_not_there_is_answered(tower: Tower) -> None:
    reading = tower.start("short", "work.waits", x=1, cgroups=2)
    answer = tower.receive()
    assert (answer["event"], answer["id"], answer["once"]) == ("unsafe", "short", True)
    os.close(reading)
    assert tower.run("next", "work.waits", x=1)[0] == 0


SHORT = """
import json, os, socket, sys
from flyte.runtime import child
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if (pid := os.fork()) == 0:
    child.wait(theirs, bundle=None, sandbox=None, apart=False)
gate, opener = os.pipe()
os.close(opener)
message = dict(op="start", id="x", module="os", task="x", directory=sys.argv[1], env={}, cgroups=1)
socket.send_fds(ours, [json.dumps(message).encode()], [gate, 1])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_process_that_waits_runs_nothing_without_its_control_groups(tmp_path: Path) -> None:
    """The kernel gives it as many descriptors as it has room for; without those nothing would limit it."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "120\n"
    assert list(tmp_path.iterdir()) == []  # neither a result nor an error of code that ran

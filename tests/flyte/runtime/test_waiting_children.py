"""Children that wait in the folders of an attempt that nobody has asked for yet, over a real socket."""

from __future__ import annotations

import array
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from flyteidl2.task import common_pb2

CODE = """
import os
from pathlib import Path
from flyte._environment import TaskEnvironment

env = TaskEnvironment("work")

@env.task
def look() -> str:
    print("hello")
    fds = sorted(os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
                 if int(name) > 2 and os.path.exists("/proc/self/fd/" + name))
    run, mask = os.environ["RUN_NAME"], os.umask(0o077)
    return f"{os.getpid()} {os.getcwd()} {run} {sorted(os.environ)} {fds} {mask:o}"
"""


class Template:
    """A template whose platform this test is."""

    def __init__(self, folder: Path, *options: str, output: IO[bytes] | None = None) -> None:
        self.folder = folder
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        (self.bundle / "mywork.py").write_text(CODE)
        self.channels: list[socket.socket] = []
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(60)
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "flyte.runtime.worker"),
                    *("--control-fd", str(theirs.fileno()), "--bundle", str(self.bundle)),
                    *options,
                ],
                env={"PATH": "/usr/bin"},
                pass_fds=[theirs.fileno()],
                cwd="/",
                stderr=output,
            )
        assert self.receive()["ahead"] is True

    def receive(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.control.recv(1 << 17))
        return found

    def prepare(self, name: str, **change: Any) -> socket.socket:
        """Have a child wait in a folder of that name; our end of its socket."""
        (self.folder / name).mkdir()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
            message = self.message(name) | {"op": "prepare", "id": f"ahead/{name}", **change}
            self.control.sendmsg([json.dumps(message).encode()], rights)
        ours.settimeout(60)
        self.channels.append(ours)
        return ours

    def message(self, name: str) -> dict[str, Any]:
        return {
            "op": "start",
            "id": name,
            "module": "mywork",
            "task": "work.look",
            "directory": str(self.folder / name),
            "env": {"PATH": "/bin"},
            "limits": {},
        }

    def give(self, channel: socket.socket, name: str, **change: Any) -> tuple[str, bytes]:
        """Make a child the attempt; what it printed, and what it said on the other pipe."""
        output, writer = os.pipe()
        said, sayer = os.pipe()
        message = self.message(name) | {"done": True, "env": {"PATH": "/bin", "RUN_NAME": name}, **change}
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer, sayer]))]
        channel.sendmsg([json.dumps(message).encode()], rights)
        os.close(writer)
        os.close(sayer)
        with os.fdopen(output) as printed, os.fdopen(said, "rb") as heard:
            return printed.read(), heard.read()

    def result(self, name: str) -> str:
        raw = (self.folder / name / "outputs.pb").read_bytes()
        value: str = common_pb2.Outputs.FromString(raw).literals[0].value.scalar.primitive.string_value
        return value

    def close(self) -> None:
        for each in (self.control, *self.channels):
            each.close()
        self.process.wait(60)


@pytest.fixture
def template(tmp_path: Path) -> Iterator[Template]:
    template = Template(tmp_path)
    yield template
    template.close()


def test_a_child_becomes_the_attempt_that_it_is_given(template: Template) -> None:
    channel = template.prepare("one")
    started = template.receive()
    assert (started["event"], started["id"]) == ("started", "ahead/one")
    assert template.give(channel, "one") == ("hello\n", b"\0")
    pid, cwd, run, *rest = template.result("one").split(" ", 3)
    assert (int(pid), cwd, run) == (started["pid"], str(template.folder / "one"), "one")
    assert rest[0].startswith("['PATH', 'RUN_NAME']")
    assert rest[0].count("pipe:") == 1  # the one on which it says that it has done
    assert "socket:" not in rest[0]
    assert rest[0].endswith("77")
    assert template.receive() == {"event": "exited", "id": "ahead/one", "status": 0}


@pytest.mark.parametrize(
    "change", [{"directory": "/elsewhere"}, {"module": "another"}, {"op": "prepare"}, {"op": "what"}]
)
def test_it_becomes_no_other_attempt(template: Template, change: dict[str, str]) -> None:
    channel = template.prepare("one")
    assert template.receive()["event"] == "started"
    printed, said = template.give(channel, "one", **change)
    assert printed.startswith("The attempt could not be started")
    assert said == b""
    assert not (template.folder / "one" / "outputs.pb").exists()
    assert os.waitstatus_to_exitcode(template.receive()["status"]) == 120


def test_without_an_attempt_it_ends_and_has_run_nothing(template: Template) -> None:
    channel = template.prepare("one")
    assert template.receive()["event"] == "started"
    channel.close()
    assert os.waitstatus_to_exitcode(template.receive()["status"]) == 120
    assert list((template.folder / "one").iterdir()) == []


def test_one_that_is_killed_is_told_of(template: Template) -> None:
    template.prepare("one")
    os.kill(template.receive()["pid"], signal.SIGKILL)
    assert template.receive() == {"event": "exited", "id": "ahead/one", "status": signal.SIGKILL}


def test_it_ends_with_its_template(template: Template) -> None:
    channel = template.prepare("one")
    waiting = os.pidfd_open(template.receive()["pid"])
    template.process.kill()
    template.process.wait(60)
    assert channel.recv(1) == b""  # its end is closed
    os.close(waiting)


ORPHAN = """
import os
from flyte.runtime import child
if (middle := os.fork()) == 0:
    if (orphan := os.fork()) == 0:
        child._die_with_template()
        os._exit(0)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(orphan, 0)[1]))
print(os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1]))
"""


def test_one_whose_template_ended_before_it_ran_ends_too() -> None:
    """It has another parent by then, which it must not take for its template."""
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "120\n"


def test_code_of_another_environment_waits_for_nothing(template: Template) -> None:
    template.prepare("one")
    assert template.receive()["event"] == "started"
    template.prepare("two", env={"PATH": "/elsewhere"})
    refused = template.receive()
    assert (refused["event"], refused["id"]) == ("unsafe", "ahead/two")


def test_a_fork_that_fails_says_nothing_of_the_next_one(tmp_path: Path) -> None:
    sandbox = tmp_path / "sandbox.py"
    sandbox.write_text("def fork(): raise BlockingIOError(11, 'too many processes')")
    template = Template(tmp_path, "--sandbox", str(sandbox))
    try:
        template.prepare("one", sandbox={"namespaces": True})
        ended = template.receive()
        assert (ended["event"], ended["id"], ended["status"]) == ("exited", "ahead/one", 120 << 8)
        output = os.open(os.devnull, os.O_WRONLY)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [output]))]
        message = template.message("two") | {"sandbox": {"namespaces": True}, "done": False}
        template.control.sendmsg([json.dumps(message).encode()], rights)
        os.close(output)
        refused = template.receive()
        assert (refused["event"], refused["id"], refused.get("once")) == ("unsafe", "two", True)
    finally:
        template.close()


def test_a_child_that_fails_to_be_one_is_no_second_template(tmp_path: Path) -> None:
    """What the child of a fork needs may be missing only there."""
    sandbox = tmp_path / "sandbox.py"
    sandbox.write_text(
        "import os\ndef fork():\n    if (pid := os.fork()) == 0: raise OSError(24, 'x')\n    return pid\n"
    )
    template = Template(tmp_path, "--sandbox", str(sandbox))
    try:
        template.prepare("one", sandbox={"namespaces": True})
        assert template.receive()["event"] == "started"
        assert template.receive() == {"event": "exited", "id": "ahead/one", "status": 120 << 8}
        output = os.open(os.devnull, os.O_WRONLY)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [output]))]
        message = template.message("two") | {"sandbox": {"namespaces": True}, "done": False}
        template.control.sendmsg([json.dumps(message).encode()], rights)
        os.close(output)
        assert template.receive()["event"] == "started"
        assert template.receive() == {"event": "exited", "id": "two", "status": 120 << 8}
    finally:
        template.close()


def test_without_descriptors_no_child_waits_and_the_template_lives(template: Template) -> None:
    usual = resource.prlimit(template.process.pid, resource.RLIMIT_NOFILE)
    waiting = []
    for most in range(1, 20):
        resource.prlimit(template.process.pid, resource.RLIMIT_NOFILE, (most, usual[1]))
        channel = template.prepare(str(most))
        answer = template.receive()
        resource.prlimit(template.process.pid, resource.RLIMIT_NOFILE, usual)
        assert answer["id"] == f"ahead/{most}"
        if answer["event"] == "started":
            waiting.append(most)
            channel.close()
            assert template.receive()["event"] == "exited"
        else:
            assert (answer["event"], answer["status"]) == ("exited", 120 << 8)
    assert 1 not in waiting
    assert 19 in waiting
    channel = template.prepare("last")
    assert template.receive()["event"] == "started"
    assert template.give(channel, "last") == ("hello\n", b"\0")


def test_one_that_cannot_wait_says_why_where_its_template_does(tmp_path: Path) -> None:
    sandbox = tmp_path / "sandbox.py"
    sandbox.write_text("def close(plan): raise OSError(1, 'it may not')")
    said = tmp_path / "said"
    with said.open("wb") as output:
        template = Template(tmp_path, "--sandbox", str(sandbox), output=output)
    try:
        template.prepare("one", sandbox={"namespaces": False})
        assert template.receive()["event"] == "started"
        assert template.receive() == {"event": "exited", "id": "ahead/one", "status": 120 << 8}
    finally:
        template.close()
    assert "it may not" in said.read_text()

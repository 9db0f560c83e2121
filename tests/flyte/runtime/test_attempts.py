"""One attempt end to end, in a fresh interpreter: the start message in, files out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.core import execution_pb2, literals_pb2
from flyteidl2.task import common_pb2

MODULE = """
from __future__ import annotations
import asyncio, dataclasses, datetime, logging, os, sys, time
import flyte
from flyte import errors
from flyte._environment import TaskEnvironment

env = TaskEnvironment("work")

@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5

@env.task
async def double(x: int, name: str = "n") -> tuple[int, str]:
    await asyncio.sleep(0)
    return 2 * x, name

@env.task
def move(point: Point) -> Point:
    return Point(point.x + 1, point.y)

@env.task
def facts() -> dict:
    from flyte import _context
    context = _context.task()
    return {
        "cwd": os.getcwd(), "env": dict(os.environ), "run": context.run, "attempt": context.attempt,
        "task": context.task, "project": context.project, "path0": sys.path[0],
    }

def helper():
    raise ValueError("no such thing")

@env.task
def fails() -> int:
    print("before")
    helper()

@env.task
async def hopeless() -> int:
    raise errors.NonRecoverableError("give up")

@env.task
def chained() -> int:
    try:
        helper()
    except ValueError as fault:
        raise RuntimeError("outer") from fault

@env.task
def leaves() -> int:
    sys.exit(3)

@env.task
def wrong() -> int:
    return "text"

@env.task
def nothing():
    logging.getLogger().warning("a log line")
    return 5

@env.task
def weird() -> int:
    raise KeyError("\\ud800" + "x" * 100_000)

@env.task
def stays(sync_file: str) -> int:
    try:
        open(sync_file, "w").close()
        time.sleep(60)
    finally:
        open(sync_file + ".cleaned", "w").close()

@env.task
async def stays_async(sync_file: str) -> int:
    try:
        open(sync_file, "w").close()
        await asyncio.sleep(60)
    finally:
        open(sync_file + ".cleaned", "w").close()
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / "mywork.py").write_text(MODULE)
    (directory / "broken.py").write_text("import flyte\nimport not_a_module_at_all\n")
    return directory


def inputs(**values: Any) -> bytes:
    message = common_pb2.Inputs()
    for name, value in values.items():
        literal = message.literals.add(name=name).value
        if isinstance(value, str):
            literal.scalar.primitive.string_value = value
        elif isinstance(value, literals_pb2.Literal):
            literal.CopyFrom(value)
        else:
            literal.scalar.primitive.integer = value
    return message.SerializeToString()


def message(bundle: Path, directory: Path, task: str, *, module: str = "mywork") -> dict[str, Any]:
    return {
        "op": "start",
        "id": "1",
        "module": module,
        "task": task,
        "directory": str(directory),
        "agent_socket": str(directory / "agent.sock"),
        "env": {
            "PATH": "/usr/bin",
            "FLYTE_AGENT_SOCKET": str(directory / "agent.sock"),
            "FLYTE_INTERNAL_EXECUTION_PROJECT": "p",
            "FLYTE_INTERNAL_EXECUTION_DOMAIN": "d",
            "RUN_NAME": "r1",
            "ACTION_NAME": "a0",
            "FLYTE_ATTEMPT_NUMBER": "2",
        },
        "limits": {"memory": None, "cpu": None, "processes": None},
        "cgroups": 0,
        "bundle": str(bundle),
    }


def attempt(
    bundle: Path, directory: Path, task: str, *, module: str = "mywork", **values: Any
) -> subprocess.CompletedProcess[bytes]:
    directory.mkdir(exist_ok=True)
    (directory / "inputs.pb").write_bytes(inputs(**values))
    start = message(bundle, directory, task, module=module)
    return subprocess.run(
        [sys.executable, "-P", "-m", "flyte.runtime.task"],
        input=json.dumps(start).encode(),
        env=start["env"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )


def outputs(directory: Path) -> dict[str, literals_pb2.Literal]:
    assert not (directory / "error.pb").exists()
    message = common_pb2.Outputs.FromString((directory / "outputs.pb").read_bytes())
    return {each.name: each.value for each in message.literals}


def error(directory: Path) -> execution_pb2.ContainerError:
    assert not (directory / "outputs.pb").exists()
    found = execution_pb2.ErrorDocument.FromString((directory / "error.pb").read_bytes()).error
    assert found.origin == execution_pb2.ExecutionError.USER
    return found


def test_outputs_with_a_default(bundle: Path, tmp_path: Path) -> None:
    done = attempt(bundle, tmp_path / "a", "work.double", x=21)
    assert done.returncode == 0, done.stdout
    found = outputs(tmp_path / "a")
    assert found["o0"].scalar.primitive.integer == 42
    assert found["o1"].scalar.primitive.string_value == "n"
    assert sorted(os.listdir(tmp_path / "a")) == ["inputs.pb", "outputs.pb"]


def test_the_attempt_sees_its_own_environment_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    import msgpack

    done = attempt(bundle, tmp_path / "a", "work.facts")
    assert done.returncode == 0, done.stdout
    facts = msgpack.unpackb(outputs(tmp_path / "a")["o0"].scalar.binary.value)
    assert facts["cwd"] == str(tmp_path / "a")
    assert facts["env"] == message(bundle, tmp_path / "a", "")["env"]
    assert (facts["run"], facts["attempt"], facts["task"], facts["project"]) == ("r1", 2, "work.facts", "p")
    assert facts["path0"] == str(bundle)


def test_user_error_with_the_users_frames_only(bundle: Path, tmp_path: Path) -> None:
    done = attempt(bundle, tmp_path / "a", "work.fails")
    assert done.returncode == 0
    found = error(tmp_path / "a")
    assert found.code == "ValueError"
    assert found.kind == execution_pb2.ContainerError.RECOVERABLE
    assert found.message.startswith("ValueError: no such thing\n")
    assert 'File "mywork.py"' in found.message
    assert "in helper" in found.message
    assert str(bundle) not in found.message
    assert "runtime" not in found.message
    assert b"before" in done.stdout
    assert b"ValueError: no such thing" in done.stdout


def test_chained_errors_are_all_told(bundle: Path, tmp_path: Path) -> None:
    attempt(bundle, tmp_path / "a", "work.chained")
    text = error(tmp_path / "a").message
    assert "ValueError: no such thing" in text
    assert "direct cause" in text
    assert text.startswith("RuntimeError: outer")
    assert str(bundle) not in text


@pytest.mark.parametrize(
    ("task", "module", "code", "words", "recoverable"),
    [
        ("work.hopeless", "mywork", "NonRecoverableError", "give up", False),
        ("work.leaves", "mywork", "SystemExit", "3", True),
        ("work.wrong", "mywork", "RuntimeUserError", "expected int, got str 'text'", True),
        ("work.weird", "mywork", "KeyError", "xxx", True),
        ("work.absent", "mywork", "DeclarationError", "no task 'absent'", False),
        ("nowhere.x", "mywork", "DeclarationError", "no task environment 'nowhere'", False),
        ("work.double", "mywork", "RemoteTaskUsageError", "Missing inputs: x", False),
        ("work.double", "broken", "ModuleNotFoundError", "not_a_module_at_all", False),
        ("work.double", "gone", "ModuleNotFoundError", "gone", False),
    ],
)
def test_other_endings(
    bundle: Path, tmp_path: Path, task: str, module: str, code: str, words: str, recoverable: bool
) -> None:
    done = attempt(bundle, tmp_path / "a", task, module=module)
    assert done.returncode == 0, done.stdout
    found = error(tmp_path / "a")
    assert found.code == code
    assert words in found.message
    assert len(found.message) < 40_000
    assert (found.kind == execution_pb2.ContainerError.RECOVERABLE) is recoverable


def test_damaged_inputs(bundle: Path, tmp_path: Path) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    (directory / "inputs.pb").write_bytes(b"\xff\xff\xff")
    start = message(bundle, directory, "work.double")
    subprocess.run(
        [sys.executable, "-P", "-m", "flyte.runtime.task"],
        input=json.dumps(start).encode(),
        env=start["env"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert "damaged" in error(directory).message


def test_a_result_that_nobody_declared_is_told_and_dropped(bundle: Path, tmp_path: Path) -> None:
    done = attempt(bundle, tmp_path / "a", "work.nothing")
    assert outputs(tmp_path / "a") == {}
    assert b"declares no result" in done.stdout
    assert b"a log line" in done.stdout


def test_a_dataclass_comes_and_goes(bundle: Path, tmp_path: Path) -> None:
    import msgpack

    point = literals_pb2.Literal()
    point.scalar.binary.tag = "msgpack"
    point.scalar.binary.value = msgpack.packb({"x": 1})
    done = attempt(bundle, tmp_path / "a", "work.move", point=point)
    assert done.returncode == 0, done.stdout
    assert msgpack.unpackb(outputs(tmp_path / "a")["o0"].scalar.binary.value) == {"x": 2, "y": 0.5}


@pytest.mark.parametrize("task", ["work.stays", "work.stays_async"])
def test_sigterm_lets_the_task_clean_up(bundle: Path, tmp_path: Path, task: str) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    fifo = directory / "here"
    os.mkfifo(fifo)
    (directory / "inputs.pb").write_bytes(inputs(sync_file=str(fifo)))
    start = message(bundle, directory, task)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "flyte.runtime.task"], stdin=subprocess.PIPE, env=start["env"]
    ) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(start).encode())
        process.stdin.close()
        with fifo.open() as opened:  # returns when the task has opened the other end
            opened.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == -signal.SIGTERM
    assert (directory / "here.cleaned").exists()
    assert not (directory / "outputs.pb").exists()
    assert not (directory / "error.pb").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"op": "start"}', '{"op": "other"}', "\x00"])
def test_what_is_no_start_message(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flyte.runtime.task"],
        input=text.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert b"not a start message" in done.stderr


def test_the_module_under_test_is_valid() -> None:
    compile(textwrap.dedent(MODULE), "mywork.py", "exec")


def test_what_a_task_forks_is_an_ordinary_process(bundle: Path, tmp_path: Path) -> None:
    """It ends by SIGTERM at once and from its first moment on, as pools of processes rely on."""
    (bundle / "forking.py").write_text(
        "import os, signal, flyte\n"
        "env = flyte.TaskEnvironment(name='forking')\n"
        "@env.task\n"
        "def forks() -> str:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        ordinary = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())\n"
        "        os._exit(0 if ordinary and not held else 1)\n"
        "    ended = os.waitpid(pid, 0)[1]\n"
        "    own = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\n"
        "    return f'{ended} {own} {len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))}'\n"
    )
    directory = tmp_path / "attempt"
    attempt(bundle, directory, "forking.forks", module="forking")
    assert outputs(directory)["o0"].scalar.primitive.string_value == "0 True 0"

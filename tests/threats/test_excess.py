"""Tasks that leave what is no result, or take all there is: their attempt fails, and nobody else (T45)."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from flyteidl2.common import phase_pb2
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import Lab

pytestmark = pytest.mark.xdist_group("threats")

LEFT = {
    "a pipe": "os.mkfifo('outputs.pb')",
    "a link to a key of Tower's": "os.symlink(HOME + '/signing.key', 'outputs.pb')",
    "an error that is such a link": "os.symlink(HOME + '/signing.key', 'error.pb')",
    "an endless file": "os.symlink('/dev/zero', 'outputs.pb')",
    "a folder": "os.mkdir('outputs.pb')",
    "a file with two names": "open('x', 'w').close(); os.link('x', 'outputs.pb')",
    "ten gigabytes": "open('outputs.pb', 'wb').truncate(10 << 30)",
    "a socket": "import socket; socket.socket(socket.AF_UNIX).bind('outputs.pb')",
    "a folder that is closed": "open('outputs.pb', 'wb').write(b'\\xff'); os.chmod('.', 0)",
    "no folder": "d = os.getcwd(); os.chdir('/'); __import__('shutil').rmtree(d, ignore_errors=True)",
    "folders without end": "[(os.mkdir('d'), os.chdir('d')) for _ in range(3000)]",
}

TAKEN = {
    "processes": ("while True: os.fork() or signal.pause()", "Resource temporarily unavailable"),
    "descriptors": ("while True: os.open('/dev/null', 0)", "Too many open files"),
    "memory behind /dev/shm": (
        "with open('/dev/shm/f', 'wb') as file:\n    while True: file.write(bytes(1 << 20))",
        "No space left on device",
    ),
    "a result": ("return 'x' * (64 << 20)", "are allowed"),
}


def failed(lab: Lab, body: str) -> str:
    """The message that bob's run ended with, while others are served."""
    code = f"import os, signal\nHOME = {str(lab.tower.home)!r}\ndef main():\n{textwrap.indent(body, '    ')}"
    before = descriptors(lab)
    started = lab.start("bob", code)
    name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
    assert lab.rest("alice", "GET", "/whoami").status_code == 200
    action = lab.wait("bob", name).action
    assert action.status.phase == phase_pb2.ACTION_PHASE_FAILED
    assert lab.inside_task("alice", "def main(): return 1") == 1
    assert descriptors(lab) < before + 20
    return str(action.error_info.message)


def descriptors(lab: Lab) -> int:
    return len(list(Path(f"/proc/{lab.tower.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("what", LEFT)
def test_t45_what_is_left_is_no_result(lab: Lab, what: str) -> None:
    message = failed(lab, f"{LEFT[what]}\nos._exit(0)")
    assert "process" in message
    assert "PRIVATE" not in message


@pytest.mark.parametrize("what", TAKEN)
def test_t45_what_is_taken_is_the_attempts_own(lab: Lab, what: str) -> None:
    if what == "processes" and '"enforcement": "rlimits"' in lab.tower.log:
        pytest.skip("without control groups the number of processes is not limited")
    body, says = TAKEN[what]
    assert says in failed(lab, body)


def test_t45_a_result_that_changes_while_it_is_read(lab: Lab) -> None:
    """A process that the task left behind swaps its result for links, without a pause."""
    swap = """
if os.fork() == 0:
    os.setsid()
    while True:
        for target in (HOME + '/signing.key', '/etc/passwd', '/dev/zero'):
            os.symlink(target, 'next')
            os.rename('next', 'outputs.pb')
os._exit(0)
"""
    for _ in range(5):
        message = failed(lab, swap)
        assert "process" in message
        assert "root:" not in message

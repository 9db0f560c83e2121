"""Files between Tower and a task of the official SDK: in the task's folder only, and no link is followed."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tower.control.handovers import Handovers
from tower.errors import Exhausted, Fault, Invalid, Unavailable

ATTEMPT = "flytesnacks/development/r1/a0/1"
CHILD = "abc123"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work" / ".tower"
    made.mkdir(parents=True)
    return made


class Blobs:
    """The outputs of the child, whatever their key."""

    def __init__(self) -> None:
        self.content = b"outputs"

    async def get(self, key: str, /, *, limit: int) -> bytes:
        return self.content


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


@pytest.fixture
def handovers(blobs: Blobs, folder: Path) -> Handovers:
    made = Handovers(blobs=blobs)
    made.open(ATTEMPT, folder)
    return made


def written(folder: Path, data: bytes = b"inputs", child: str = CHILD) -> str:
    place = folder / "run" / child
    place.mkdir(parents=True, exist_ok=True)
    (place / "inputs.pb").write_bytes(data)
    return str(place / "inputs.pb")


ROW: Any = SimpleNamespace(action=CHILD, outputs_key="outputs/p/d/r/a/1/outputs.pb")


def test_inputs_of_a_child_are_read(handovers: Handovers, folder: Path) -> None:
    uri = written(folder)
    assert handovers.inputs(ATTEMPT, CHILD, uri, limit=100) == b"inputs"
    assert handovers.inputs(ATTEMPT, CHILD, f"file://{uri}", limit=100) == b"inputs"
    with pytest.raises(Exhausted):
        handovers.inputs(ATTEMPT, CHILD, uri, limit=5)


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "file://other.host/inputs.pb",
        "s3://bucket/inputs.pb",
        "{folder}/run/other/inputs.pb",
        "{folder}/run/abc123/../../../../secret",
        "{folder}/inputs.pb",
        "",
    ],
)
def test_no_other_file_is_read(handovers: Handovers, folder: Path, uri: str) -> None:
    written(folder)
    written(folder, child="other")
    with pytest.raises(Invalid):
        handovers.inputs(ATTEMPT, CHILD, uri.replace("{folder}", str(folder)), limit=100)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "x" * 65])
def test_names_that_are_paths_are_refused(handovers: Handovers, folder: Path, name: str) -> None:
    with pytest.raises(Invalid):
        handovers.inputs(ATTEMPT, name, str(folder / "run" / name / "inputs.pb"), limit=100)


def test_links_are_not_followed(handovers: Handovers, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "inputs.pb").write_bytes(b"secret")
    uri = written(folder)
    os.unlink(uri)
    os.symlink(secret / "inputs.pb", uri)
    with pytest.raises(Invalid):
        handovers.inputs(ATTEMPT, CHILD, uri, limit=100)
    os.unlink(uri)
    os.link(secret / "inputs.pb", uri)
    with pytest.raises(Invalid):
        handovers.inputs(ATTEMPT, CHILD, uri, limit=100)
    os.unlink(uri)
    os.rmdir(folder / "run" / CHILD)
    os.symlink(secret, folder / "run" / CHILD)
    with pytest.raises(Invalid):
        handovers.inputs(ATTEMPT, CHILD, uri, limit=100)
    os.unlink(folder / "run" / CHILD)
    os.mkfifo(folder / "fifo")
    (folder / "run" / CHILD).mkdir()
    os.rename(folder / "fifo", uri)
    with pytest.raises(Invalid):
        handovers.inputs(ATTEMPT, CHILD, uri, limit=100)
    os.unlink(uri)
    os.mkdir(uri)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Invalid):
        handovers.inputs(ATTEMPT, CHILD, uri, limit=100)
    assert os.listdir("/proc/self/fd") == before, "a descriptor was left open"


async def test_outputs_of_a_child_are_handed_over(handovers: Handovers, folder: Path, blobs: Blobs) -> None:
    place = Path(await handovers.outputs(ATTEMPT, ROW))
    assert place.is_relative_to(folder)
    assert (place / "outputs.pb").read_bytes() == b"outputs"
    blobs.content = b"others"

    async def change(data: bytes) -> bytes:
        return data + b" changed"

    assert await handovers.outputs(ATTEMPT, ROW, change=change) == str(place)
    assert (place / "outputs.pb").read_bytes() == b"others changed"


async def test_outputs_are_written_nowhere_else(handovers: Handovers, folder: Path, tmp_path: Path) -> None:
    """What the task puts in the way costs itself its outputs, and nobody a file."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "outputs.pb").write_bytes(b"precious")
    os.symlink(precious, folder / "results")
    with pytest.raises(Unavailable):
        await handovers.outputs(ATTEMPT, ROW)
    os.unlink(folder / "results")
    (folder / "results" / CHILD).mkdir(parents=True)
    os.symlink(precious / "outputs.pb", folder / "results" / CHILD / "outputs.pb")
    os.symlink(precious / "outputs.pb", folder / "results" / CHILD / ".outputs.pb.draft")
    await handovers.outputs(ATTEMPT, ROW)
    assert (precious / "outputs.pb").read_bytes() == b"precious"
    assert sorted(path.name for path in precious.iterdir()) == ["outputs.pb"]


def test_an_attempt_that_is_over_has_no_folder(handovers: Handovers, folder: Path) -> None:
    uri = written(folder)
    assert handovers.hosts(ATTEMPT)
    handovers.close(ATTEMPT)
    assert not handovers.hosts(ATTEMPT)
    with pytest.raises(Fault):
        handovers.inputs(ATTEMPT, CHILD, uri, limit=100)

"""Files that values name leave an attempt and reach another: its own, where it may look, by no link."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.core import literals_pb2
from flyteidl2.task import common_pb2
from tests.identity_world import World

from tower.control.rawdata import RawData
from tower.errors import Exhausted, Fault, Invalid, NotFound
from tower.store.blobs import Blobs
from tower.store.runs import ActionKey

RUN = ActionKey("flytesnacks", "development", "r1", "a0")
LIMIT = 1000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "home").mkdir()
    async with World.opened(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def blobs(world: World, tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs", db=world.db)


@pytest.fixture
def raw(world: World, blobs: Blobs) -> RawData:
    return RawData(db=world.db, blobs=blobs, access=world.access, attempts=world.directory, limit=LIMIT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "room"
    made.mkdir()
    return made


@pytest.fixture
def other(tmp_path: Path) -> Path:
    made = tmp_path / "other"
    made.mkdir()
    return made


def blob(uri: str) -> literals_pb2.Literal:
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(blob=literals_pb2.Blob(uri=uri)))


def outputs(*uris: str) -> common_pb2.Outputs:
    made = common_pb2.Outputs()
    for number, uri in enumerate(uris):
        made.literals.add(name=f"o{number}").value.CopyFrom(blob(uri))
    return made


def uris(message: Any) -> list[str]:
    return [each.value.scalar.blob.uri for each in message.literals]


async def running(world: World, name: str, role: str | None, run: str) -> str:
    person = await world.who(bearer=await world.person(name, role))
    return (await world.running(person, run=run)).id


async def test_a_file_goes_from_one_attempt_to_another(
    raw: RawData, world: World, folder: Path, other: Path
) -> None:
    attempt = await running(world, "alice", "contributor", "r1")
    (folder / "a.txt").write_bytes(b"content")
    message = outputs(str(folder / "a.txt"), f"file://{folder}/a.txt")
    await raw.taken(message, folder=folder, run=RUN)
    first, second = uris(message)
    assert first == second
    assert first.startswith("tower://raw/flytesnacks/development/r1/")
    assert first.endswith("/a.txt")
    await raw.given(message, folder=other, attempt=attempt)
    for path in uris(message):
        assert Path(path).is_relative_to(other)
        assert Path(path).read_bytes() == b"content"


async def test_folders_and_nested_values_go_too(
    raw: RawData, world: World, folder: Path, other: Path
) -> None:
    attempt = await running(world, "alice", "contributor", "r1")
    (folder / "d" / "deep").mkdir(parents=True)
    (folder / "d" / "one").write_bytes(b"1")
    (folder / "d" / "deep" / "two").write_bytes(b"2")
    message = common_pb2.Outputs()
    union = literals_pb2.Literal(
        scalar=literals_pb2.Scalar(union=literals_pb2.Union(value=blob(f"{folder}/d")))
    )
    inner = literals_pb2.Literal(map=literals_pb2.LiteralMap(literals={"k": union}))
    nested = literals_pb2.Literal(collection=literals_pb2.LiteralCollection(literals=[inner]))
    message.literals.add(name="o0").value.CopyFrom(nested)
    await raw.taken(message, folder=folder, run=RUN)
    await raw.given(message, folder=other, attempt=attempt)
    found = message.literals[0].value.collection.literals[0].map.literals["k"].scalar.union.value.scalar.blob
    assert (Path(found.uri) / "one").read_bytes() == b"1"
    assert (Path(found.uri) / "deep" / "two").read_bytes() == b"2"


async def test_what_is_elsewhere_stays_as_it_is(raw: RawData, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    named = [
        "/etc/passwd",
        "s3://bucket/key",
        "",
        str(folder),
        f"{folder}/../secret",
        "relative",
        "tower://raw/x",
    ]
    message = outputs(*named)
    await raw.taken(message, folder=folder, run=RUN)
    assert uris(message) == named


async def test_links_are_not_followed_out(raw: RawData, folder: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "key").write_bytes(b"secret")
    os.symlink(secrets / "key", folder / "soft")
    os.link(secrets / "key", folder / "hard")
    os.symlink(secrets, folder / "way")
    (folder / "d").mkdir()
    os.symlink(secrets / "key", folder / "d" / "soft")
    os.mkfifo(folder / "fifo")
    for name in ("soft", "hard", "way/key", "way", "d", "fifo", "absent"):
        with pytest.raises(Invalid):
            await raw.taken(outputs(str(folder / name)), folder=folder, run=RUN)


async def test_too_much_is_refused(raw: RawData, folder: Path) -> None:
    (folder / "half").write_bytes(b"x" * 600)
    (folder / "other").write_bytes(b"y" * 600)
    with pytest.raises(Exhausted):
        await raw.taken(outputs(f"{folder}/half", f"{folder}/other"), folder=folder, run=RUN)


@pytest.mark.parametrize("uri", [
    "tower://raw/flytesnacks/development/r1/../../../signing.key",
    "tower://raw/flytesnacks/development/r1/x/../../../../../signing.key",
    "tower://raw/flytesnacks/development/r1/x",
    "tower://raw/flytesnacks/development/r1/x/y/z",
    "tower://raw//development/r1/x/y",
    "tower://bundles/other/development/x/y",
    "tower://bundles/flytesnacks/development/x/y/z",
    "tower://raw/flytesnacks/development/r1/absent/file",
])  # fmt: skip
async def test_no_other_name_is_looked_up(raw: RawData, world: World, other: Path, uri: str) -> None:
    attempt = await running(world, "alice", "contributor", "r1")
    with pytest.raises(Fault):
        await raw.given(outputs(uri), folder=other, attempt=attempt)
    assert not [path for path in other.rglob("*") if path.is_file()]


async def test_t29_files_of_a_run_are_for_who_may_view_it(
    raw: RawData, world: World, folder: Path, other: Path
) -> None:
    await running(world, "alice", "contributor", "r1")
    (folder / "a.txt").write_bytes(b"content")
    message = outputs(str(folder / "a.txt"))
    await raw.taken(message, folder=folder, run=RUN)
    (uri,) = uris(message)
    nobody = await running(world, "bob", None, "r2")
    with pytest.raises(NotFound):
        await raw.given(outputs(uri), folder=other, attempt=nobody)
    viewer = await running(world, "carol", "viewer", "r3")
    seen = outputs(uri)
    await raw.given(seen, folder=other, attempt=viewer)
    assert Path(uris(seen)[0]).read_bytes() == b"content"


async def test_nothing_is_written_through_a_link(
    raw: RawData, world: World, folder: Path, other: Path, tmp_path: Path
) -> None:
    attempt = await running(world, "alice", "contributor", "r1")
    (folder / "a.txt").write_bytes(b"content")
    message = outputs(str(folder / "a.txt"))
    await raw.taken(message, folder=folder, run=RUN)
    (uri,) = uris(message)
    precious = tmp_path / "precious"
    precious.mkdir()
    os.symlink(precious, other / "given")
    with pytest.raises(Fault):
        await raw.given(outputs(uri), folder=other, attempt=attempt)
    os.unlink(other / "given")
    (other / "given" / uri.split("/")[-2]).mkdir(parents=True)
    os.symlink(precious / "a.txt", other / "given" / uri.split("/")[-2] / "a.txt")
    await raw.given(outputs(uri), folder=other, attempt=attempt)
    assert not list(precious.iterdir())

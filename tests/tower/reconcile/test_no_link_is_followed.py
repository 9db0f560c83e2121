"""The folders of a task or app are its own: what Tower reads or opens there leads to nothing of Tower's."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from flyteidl2.task import common_pb2

from tower.control.reconcile import outcome
from tower.control.reconcile.outcome import Failure
from tower.control.reconcile.rooms import Room, Rooms, pin
from tower.executors.port import Exit, Limits


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Rooms(tmp_path).make(beside="image code")


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def reach(path: Path, listener: socket.socket) -> bool:
    """Whether who connects there comes out at the listener."""
    listener.setblocking(False)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(path))
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return False
    return True


def test_rooms_of_one_code_lie_beside_each_other(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    one, same, other = rooms.make(beside="a"), rooms.make(beside="a"), rooms.make(beside="b")
    assert one.directory.parent == same.directory.parent != other.directory.parent
    assert one.sockets.parent == same.sockets.parent != other.sockets.parent
    for folder in (one.directory, one.sockets, tmp_path / "work", one.sockets.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert one.directory.parent.stat().st_mode & 0o777 == 0o711


def test_a_link_in_the_place_of_a_socket_is_no_socket(room: Room, tmp_path: Path) -> None:
    with listen(tmp_path / "admin.sock"):
        room.app_socket.symlink_to(tmp_path / "admin.sock")
        with pytest.raises(OSError, match="none"):
            pin(room)
    assert not room.door.exists()


def test_the_socket_that_answered_stays_the_one_that_is_asked(room: Room, tmp_path: Path) -> None:
    with listen(room.app_socket) as own, listen(tmp_path / "admin.sock") as tower:
        door = pin(room)
        room.app_socket.unlink()
        room.app_socket.symlink_to(tmp_path / "admin.sock")
        assert reach(door, own)
        assert not reach(door, tower)


def test_a_file_is_no_socket(room: Room) -> None:
    room.app_socket.write_text("")
    with pytest.raises(OSError, match="none"):
        pin(room)


@pytest.mark.parametrize("name", [outcome.OUTPUTS, outcome.ERROR])
def test_results_behind_a_link_are_not_read(room: Room, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / name).write_bytes(common_pb2.Outputs().SerializeToString())
    (room.directory / name).symlink_to(elsewhere / name)
    found = outcome.read(room.directory, Exit(0), limits=Limits())
    assert isinstance(found, Failure)
    assert found.code == "BadOutputs"
    folder = room.directory / "results"
    folder.symlink_to(elsewhere)
    found = outcome.read(folder, Exit(0), limits=Limits())
    assert isinstance(found, Failure)
    assert found.code == "BadOutputs"
    os.link(elsewhere / name, room.directory / "second")
    os.replace(room.directory / "second", room.directory / name)
    found = outcome.read(room.directory, Exit(0), limits=Limits())
    assert isinstance(found, Failure)
    assert found.code == "BadOutputs"

"""Folders that strangers filled are removed, whatever stands in them, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tower.control.reconcile.removal import remove
from tower.control.reconcile.rooms import Rooms

DEPTH = 1500
_NEWUSER = 0x10000000


def deep(folder: Path, depth: int = DEPTH) -> None:
    """Folders in each other, more than a path has room for."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def filled(folder: Path) -> None:
    """What a hostile task leaves."""
    (folder / "plain").mkdir(parents=True)
    (folder / "plain" / "file").write_text("x")
    os.mkfifo(folder / "fifo")
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed" / "inner" / "file").write_text("x")
    (folder / "closed" / "inner").chmod(0)
    (folder / "closed").chmod(0)
    deep(folder)


def test_t45_whatever_a_task_leaves_is_removed(tmp_path: Path) -> None:
    filled(tmp_path / "room")
    before = len(os.listdir("/proc/self/fd"))
    remove(tmp_path / "room")
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_link_is_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "inner").mkdir(parents=True)
    (kept / "inner" / "file").write_text("x")
    (kept / "inner").chmod(0o500)
    room = tmp_path / "room"
    (room / "folder").mkdir(parents=True)
    (room / "link").symlink_to(kept)
    (room / "folder" / "link").symlink_to(kept / "inner")
    os.link(kept / "inner" / "file", room / "hard")
    remove(room)
    assert not room.exists()
    assert (kept / "inner" / "file").read_text() == "x"
    assert (kept / "inner").stat().st_mode & 0o777 == 0o500


def test_what_is_not_there_needs_no_removal(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")
    remove(tmp_path / "nothing" / "below")
    (tmp_path / "file").write_text("x")
    remove(tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_t45_no_task_keeps_tower_from_starting_again(tmp_path: Path) -> None:
    filled(tmp_path / "work" / "row" / "room")
    filled(tmp_path / "run" / "row" / "room")
    Rooms(tmp_path)
    assert os.listdir(tmp_path / "work") == []


def test_t45_an_owner_without_privileges_gets_in_everywhere(tmp_path: Path) -> None:
    """As root nothing is closed: the same as somebody who is not."""
    filled(tmp_path / "work" / "row" / "room")
    code = f"""
import ctypes, sys
from pathlib import Path
if ctypes.CDLL(None).unshare({_NEWUSER}) != 0:
    sys.exit(77)
from tower.control.reconcile.rooms import Rooms
Rooms(Path({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this machine has no user namespaces")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "work") == []

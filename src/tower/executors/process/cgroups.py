"""Control groups: one per attempt or app under a group of this executor's own, where we may write them.

Version 1 hierarchies are used one by one; in version 2 the process's own group must be delegated to us.
A moving process writes "0" into `entries`: naming itself spares the kernel the global lock, 0.1 ms
instead of 10.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tower.executors.port import Limits
from tower.executors.process.tree import signal_all

_CONTROLLERS = ("memory", "cpu", "pids")
_PERIOD = 100_000
_PREFIX = "tower-"
_REMOVED = (errno.ENOENT, errno.ENODEV)
"""How the kernel says that there is no such group any more, before and after its file was opened."""


@dataclass(slots=True)
class Group:
    """The control groups of one attempt or app."""

    paths: dict[str, Path]
    unified: bool

    @property
    def entries(self) -> list[str]:
        """The files into which the process writes "0" before it runs anybody's code."""
        name = "cgroup.procs" if self.unified else "tasks"
        return sorted({str(path / name) for path in self.paths.values()})

    def pids(self) -> set[int]:
        """The processes inside now. Raises OSError when that cannot be seen."""
        try:
            return {int(line) for line in (self._any / "cgroup.procs").read_text().split()}
        except OSError as error:
            if error.errno not in _REMOVED:
                raise
            return set()

    def out_of_memory(self) -> bool:
        """Whether the kernel ended a process inside for want of memory."""
        path = self.paths.get("memory")
        if path is None:
            return False
        with suppress(OSError):
            for line in (
                (path / ("memory.events" if self.unified else "memory.oom_control")).read_text().split("\n")
            ):
                word, _, number = line.partition(" ")
                if word == "oom_kill":
                    return int(number) > 0
        return False

    def remove(self) -> bool:
        """Remove the empty groups; False when the kernel still holds one."""
        for path in set(self.paths.values()):
            try:
                path.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    @property
    def _any(self) -> Path:
        return self.paths["pids"]


class Cgroups:
    """Makes groups under this executor's own. `open` finds out what the machine offers."""

    def __init__(self, parents: dict[str, Path], *, unified: bool) -> None:
        self._parents = parents
        self._unified = unified
        self._leaving: list[Group] = []

    @classmethod
    def open(cls) -> Self | None:
        """The groups of this machine, or None when memory, cpu and pids are not all ours to limit."""
        own = _own_groups()
        name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        made: list[Path] = []
        try:
            if all(controller in own for controller in _CONTROLLERS):
                parents = {}
                for controller in _CONTROLLERS:
                    _sweep(own[controller])
                    parents[controller] = own[controller] / name
                    parents[controller].mkdir()
                    made.append(parents[controller])
                self = cls(parents, unified=False)
            elif "" in own:
                _sweep(own[""])
                _delegate(own[""])
                parent = own[""] / name
                parent.mkdir()
                made.append(parent)
                _delegate(parent)
                self = cls(dict.fromkeys(_CONTROLLERS, parent), unified=True)
            else:
                return None
            trial = self.make("trial", Limits(memory=1 << 30, cpu=1))
        except OSError:
            for path in made:
                with suppress(OSError):
                    path.rmdir()
            return None
        self.release(trial)
        return self

    @property
    def version(self) -> int:
        """1 or 2."""
        return 2 if self._unified else 1

    def make(self, name: str, limits: Limits) -> Group:
        """A fresh group with the limits. Raises OSError."""
        wanted = {"pids"} | ({"memory"} if limits.memory else set()) | ({"cpu"} if limits.cpu else set())
        paths = {
            controller: self._parents[controller] / name
            for controller in _CONTROLLERS
            if controller in wanted
        }
        group = Group({}, self._unified)
        try:
            for controller, path in paths.items():
                if path not in group.paths.values():
                    path.mkdir()
                group.paths[controller] = path
            self._limit(group, limits)
        except OSError:
            self.release(group)
            raise
        return group

    def _limit(self, group: Group, limits: Limits) -> None:
        paths = group.paths
        (paths["pids"] / "pids.max").write_text(str(limits.processes))
        if limits.memory:
            file = "memory.max" if self._unified else "memory.limit_in_bytes"
            (paths["memory"] / file).write_text(str(limits.memory))
            swap = "memory.swap.max" if self._unified else "memory.memsw.limit_in_bytes"
            with suppress(OSError):  # absent where the kernel does not count swap
                (paths["memory"] / swap).write_text("0" if self._unified else str(limits.memory))
        if limits.cpu:
            quota = max(1000, int(limits.cpu * _PERIOD))
            if self._unified:
                (paths["cpu"] / "cpu.max").write_text(f"{quota} {_PERIOD}")
            else:
                (paths["cpu"] / "cpu.cfs_quota_us").write_text(str(quota))

    def release(self, group: Group) -> None:
        """Remove a group; one that the kernel still holds is tried again at the next release."""
        self._leaving = [left for left in [*self._leaving, group] if not left.remove()]

    def close(self) -> None:
        """Remove everything that was made."""
        self._leaving = [left for left in self._leaving if not left.remove()]
        for path in set(self._parents.values()):
            with suppress(OSError):
                path.rmdir()


def _own_groups() -> dict[str, Path]:
    """Where this process stands: controller -> directory, with "" for the unified hierarchy."""
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, mount = left.split(" ")[3:5]
        if kind == "cgroup2" and "" in own:
            found[""] = _inside(mount, root, own[""])
        elif kind == "cgroup":
            for controller in set(options.replace(" ", ",").split(",")) & own.keys() & set(_CONTROLLERS):
                found[controller] = _inside(mount, root, own[controller])
    return found


def _inside(mount: str, root: str, path: str) -> Path:
    if root != "/" and path.startswith(root):
        path = path[len(root) :]
    return Path(mount) / path.lstrip("/")


def _delegate(parent: Path) -> None:
    """Let the children of a version 2 group be limited. Raises OSError where it holds processes itself."""
    offered = (parent / "cgroup.controllers").read_text().split()
    if not set(_CONTROLLERS) <= set(offered):
        raise OSError("the controllers are not delegated")
    (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in _CONTROLLERS))


def _sweep(parent: Path) -> None:
    """End what a Tower left that no longer lives, and remove its groups."""
    for path in parent.glob(f"{_PREFIX}*-*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if not pid.isdigit() or Path("/proc", pid).exists():
            continue
        inner: list[Path] = []
        with suppress(OSError):  # another Tower that starts now may be removing it, too
            inner = list(path.glob("*/"))
        for left in (*inner, path):
            with suppress(OSError):
                signal_all(
                    {int(line) for line in (left / "cgroup.procs").read_text().split()}, signal.SIGKILL
                )
            with suppress(OSError):
                left.rmdir()

"""A file system of one's own: what of the machine a process sees, and where it may write."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from .kernel import (
    BIND,
    NODEV,
    NOEXEC,
    NOSUID,
    PRIVATE,
    RDONLY,
    REC,
    attach,
    copy_of,
    detach,
    in_memory,
    mount,
    pivot_root,
    restrict,
)

OLD = "/.old"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "fd/0"),
    ("stdout", "fd/1"),
    ("stderr", "fd/2"),
    ("ptmx", "pts/ptmx"),
)

EVERYWHERE = ["/proc", "/dev", "/tmp", "/var/tmp"]  # noqa: S108
"""Where a process with a file system of its own may write, besides what is its own."""

TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108


class Root:
    """A new root under construction: the old one hangs at `OLD` until all that is shown was taken."""

    def __init__(self) -> None:
        before = os.stat("/")
        mount(None, "/", None, REC | PRIVATE)
        mount("tmpfs", "/tmp", "tmpfs", NOSUID | NODEV, "mode=0755,size=16m")  # noqa: S108
        os.mkdir(f"/tmp{OLD}")  # noqa: S108
        pivot_root("/tmp", f"/tmp{OLD}")  # noqa: S108
        os.chdir("/")
        if not os.path.samestat(os.stat(OLD), before) or os.stat("/").st_dev == before.st_dev:
            raise OSError(errno.EXDEV, "the new root is not in place")
        self._shown: dict[str, int | None] = {}

    def _covered(self, path: str) -> int | None:
        """With which flags a path can be seen already; None when it cannot, as what was hidden."""
        while path != "/":
            if path in self._shown:
                return self._shown[path]
            path = os.path.dirname(path)
        return None

    def _link(self, target: str, path: str) -> None:
        """Make a link in what is under construction; in the machine's own folder of that name, never."""
        folder = os.path.dirname(path)
        if os.path.isdir(OLD + folder) and os.path.samefile(folder, OLD + folder):
            raise OSError(errno.EXDEV, "the new root is not in place")
        os.symlink(target, path)

    def show(self, path: str, flags: int, *, optional: bool = False) -> None:
        """Show a file or folder under its own name; links on the way are shown as links."""
        here, parts = "", path.split("/")
        links = 0
        while parts:
            part = parts.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                here = os.path.dirname(here) if here.count("/") > 1 else ""
                continue
            full = f"{here}/{part}"
            try:
                facts = os.lstat(OLD + full)
            except FileNotFoundError:
                if optional:
                    return
                raise
            if stat.S_ISLNK(facts.st_mode):
                target = os.readlink(OLD + full)
                links += 1
                if links > 40:
                    raise OSError(40, "too many links", path)
                if self._covered(full) is None and not os.path.lexists(full):
                    self._link(target, full)
                here = "" if target.startswith("/") else here
                parts[:0] = target.split("/")
                continue
            here = full
            if not any(parts):
                break
            if self._covered(full) is None and not os.path.isdir(full):
                os.mkdir(full, 0o755)
        if not here or self._covered(here) == flags:
            return
        if self._covered(here) is None:
            _placeholder(here, folder=stat.S_ISDIR(os.lstat(OLD + here).st_mode))
        mount(OLD + here, here, None, BIND | REC)
        restrict(here, flags)
        self._shown[here] = flags

    def show_each(self, folder: str, flags: int, links: dict[str, str]) -> None:
        """Show what is in a folder, and links beside it: where the machine's own has none of their names."""
        os.mkdir(folder, 0o755)
        for path in (f"{folder}/{name}" for name in os.listdir(OLD + folder)):
            if os.path.islink(OLD + path):
                self._link(os.readlink(OLD + path), path)
            else:
                self.show(path, flags, optional=True)  # some come and go
        for path, target in links.items():
            if self._covered(path) is None and not os.path.lexists(path):
                os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
                self._link(target, path)

    def hide(self, path: str) -> None:
        """Cover what would be seen below a shown folder."""
        if self._covered(path) is None:
            return
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", NOSUID | NODEV, "mode=0755,size=16m")
        elif os.path.exists(path):
            mount(f"{OLD}/dev/null", path, None, BIND)
        self._shown[path] = None

    def devices(self, memory: int) -> None:
        """The devices that everybody needs, and shared memory of so many bytes."""
        os.mkdir("/dev", 0o755)
        for name in _DEVICES:
            if os.path.exists(f"{OLD}/dev/{name}"):
                _placeholder(f"/dev/{name}", folder=False)
                mount(f"{OLD}/dev/{name}", f"/dev/{name}", None, BIND)
        for name, target in _LINKS:
            self._link(target, f"/dev/{name}")
        for name in ("shm", "pts"):
            os.mkdir(f"/dev/{name}", 0o755)
        in_memory("/dev/shm", memory)  # noqa: S108
        try:
            mount("devpts", "/dev/pts", "devpts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
        except OSError:
            os.rmdir("/dev/pts")  # a terminal of one's own is a convenience

    def temporary(self, folder: str | None, memory: int) -> None:
        """A folder behind /tmp, or memory of so many bytes."""
        for path in TEMPORARY:
            os.makedirs(path, 0o755, exist_ok=True)
            if folder is None:
                in_memory(path, memory)
            else:
                mount(OLD + folder, path, None, BIND)
                restrict(path, NOSUID | NODEV)

    def close(self) -> None:
        """Let go of the old root; from here on there is no way back to it."""
        detach(OLD)
        os.rmdir(OLD)
        restrict("/", RDONLY, recursive=False)


def _placeholder(path: str, *, folder: bool) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    if folder:
        os.makedirs(path, 0o755, exist_ok=True)
    elif not os.path.lexists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def build(plan: dict[str, Any]) -> None:
    """See nothing but what the plan shows. The process is the first of a fresh process table.

    `system` and `read` are shown to be read (what is not there of `system` is left out), `write` to be
    written, nothing of `hidden` is seen but what the lists name below it; `temporary` is the folder behind
    /tmp, or None for one in memory; `memory` is how many bytes each folder in memory takes. `links` are shown
    besides, within what is in `system`.
    """
    before = os.umask(0o022)
    root = Root()
    root.devices(plan["memory"])
    root.temporary(plan["temporary"], plan["memory"])
    links = plan.get("links") or {}
    for path in plan["system"]:
        if below := {link: target for link, target in links.items() if link.startswith(f"{path}/")}:
            root.show_each(path, RDONLY | NOSUID | NODEV, below)
        else:
            root.show(path, RDONLY | NOSUID | NODEV, optional=True)
    for path in plan["hidden"]:
        root.hide(path)
    os.makedirs("/proc", 0o755, exist_ok=True)
    # the old /proc must still be there: the kernel shows nobody more of it than they saw before
    mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC)
    flags = dict.fromkeys(plan["write"], NOSUID | NODEV)
    flags |= dict.fromkeys(plan["read"], RDONLY | NOSUID | NODEV)
    for path in sorted(flags, key=len):  # what lies above would cover what lies below
        root.show(path, flags[path])
    root.close()
    os.umask(before)
    os.chdir(plan.get("directory") or "/")


def narrow(plan: dict[str, Any]) -> None:
    """In a child of `fork`, after `first`: of each folder in `private` only the one entry that is its own.

    `kept` is what must still be seen of that which lies beside these, or below /tmp or /var/tmp; `memory` is
    how many bytes each folder in memory takes.
    """
    in_memory("/dev/shm", plan["memory"], again=True)  # noqa: S108
    trees = [(copy_of(path), path) for path in (*plan["kept"], *plan["private"])]
    shared = [(copy_of(plan["temporary"]), path) for path in TEMPORARY if plan["temporary"]]
    for path in TEMPORARY:
        if not plan["temporary"]:
            in_memory(path, plan["memory"])
    for tree, path in shared:
        attach(tree, path)
    parents = {os.path.dirname(path) for path in plan["private"]}
    covered = sorted((path for path in parents if os.path.isdir(path)), key=len)
    for path in covered:
        mount("tmpfs", path, "tmpfs", NOSUID | NODEV, "mode=0755,size=1m")
    for tree, path in trees:
        _placeholder(path, folder=stat.S_ISDIR(os.fstat(tree).st_mode))
        attach(tree, path)
    for path in covered:
        restrict(path, RDONLY, recursive=False)

"""What the kernel does to keep a process to itself: namespaces, a file system of its own, Landlock.

It stands alone (standard library only, any supported Python): `launch` loads it before every process that
Tower starts, and a template process loads it by its path to close each child off from the next. All of it is
done to the calling process, by system calls; a failure raises OSError, and then the process must not go on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from typing import Any, NoReturn

_LIBC = ctypes.PyDLL(None, use_errno=True)

NEWNS, NEWIPC, NEWUSER, NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
_SETTID, _CLEARTID = 0x01000000, 0x00200000
_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 1 << 18
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_REMOUNT, _DETACH = 32, 2
_SYS_MOUNT_SETATTR, _SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_CLONE3 = 442, 428, 429, 435
_SYS_LANDLOCK = 444
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_OPEN_TREE_CLONE = 1
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_GET_TID_ADDRESS = 4, 24, 38, 40
_SIGCHLD = 17

_OLD = "/.old"
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

_LEAST_MEMORY = 1 << 20
_BYTES_PER_FILE = 1 << 12

# rights of Landlock: what may be done to files that are only read, and to all files
_READ = 1 << 0 | 1 << 2 | 1 << 3
_FILE = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_SCOPES = 3  # abstract unix sockets and signals


def _failed(what: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def _call(what: str, number: int, *arguments: Any) -> int:
    result: int = _LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        _failed(what)
    return result


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    if _LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) != 0:
        _failed(f"mount {target}")


def _in_memory(target: str, size: int, *, again: bool = False) -> None:
    """A folder in memory for everybody, of so many bytes; `again`: it is there, with another size."""
    size = max(size, _LEAST_MEMORY)  # none at all would be no limit
    data = f"mode=1777,size={size},nr_inodes={size // _BYTES_PER_FILE}"
    _mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV | (_REMOUNT if again else 0), data)


def _restrict(target: str, flags: int, *, recursive: bool = True) -> None:
    """Add flags to a mount, and to all below it."""
    attributes = struct.pack("=4Q", flags, 0, 0, 0)
    _call(
        f"restrict {target}",
        _SYS_MOUNT_SETATTR,
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


# --- namespaces


def unshare(*, own_user: bool) -> None:
    """Leave the mounts, the queues and (for children) the process table of the others behind.

    `own_user`: through a user namespace, as a process without privileges must.
    """
    user, group = os.geteuid(), os.getegid()
    if _LIBC.unshare(NEWNS | NEWIPC | NEWPID | (NEWUSER if own_user else 0)) != 0:
        _failed("unshare")
    if own_user:
        _map(user, group)


def _map(user: int, group: int) -> None:
    """Be the same user inside; nobody else exists there."""
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def fork() -> int:
    """Fork into user, mount, process and queue namespaces of the child's own, where it may do all.

    The child is the first process of its process table: with its end all that it started ends. One fork does
    what `unshare` needs two for. The Python of this process is told by the functions that `os.fork` calls.
    """
    user, group = os.geteuid(), os.getegid()
    own = ctypes.c_void_p()
    # the C library's own fork keeps its note of the thread's id right by these two flags
    known = _LIBC.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(own), 0, 0, 0) == 0 and bool(own.value)
    flags = NEWUSER | NEWNS | NEWPID | NEWIPC | ((_SETTID | _CLEARTID) if known else 0)
    place = own.value if known else None
    arguments = struct.pack("=8Q", flags, 0, place or 0, 0, _SIGCHLD, 0, 0, 0)
    size = ctypes.c_size_t(len(arguments))
    older = ctypes.c_long(_SYS_CLONE[os.uname().machine]) if os.uname().machine in _SYS_CLONE else None
    # the last two arguments of the older call stand in another order on the other processor
    last = (place, None) if os.uname().machine == "x86_64" else (None, place)
    number, nothing = ctypes.c_long(_SYS_CLONE3), ctypes.c_void_p()
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid: int = _LIBC.syscall(number, arguments, size)
    if pid < 0 and older is not None and ctypes.get_errno() == errno.ENOSYS:  # filtered, in containers
        words = [ctypes.c_void_p(word) for word in last]
        pid = _LIBC.syscall(older, ctypes.c_ulong(flags | _SIGCHLD), nothing, nothing, *words)
    if pid == 0:
        python.PyOS_AfterFork_Child()
        _map(user, group)
        return 0
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        _failed("clone3")
    return pid


# --- a file system of one's own


class _Root:
    """A new root under construction: the old one hangs at `_OLD` until all that is shown was taken."""

    def __init__(self) -> None:
        before = os.stat("/")
        _mount(None, "/", None, _REC | _PRIVATE)
        _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "mode=0755,size=16m")  # noqa: S108
        os.mkdir(f"/tmp{_OLD}")  # noqa: S108
        if _LIBC.pivot_root(b"/tmp", os.fsencode(f"/tmp{_OLD}")) != 0:  # noqa: S108
            _failed("pivot_root")
        os.chdir("/")
        if not os.path.samestat(os.stat(_OLD), before) or os.stat("/").st_dev == before.st_dev:
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
        if os.path.isdir(_OLD + folder) and os.path.samefile(folder, _OLD + folder):
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
                facts = os.lstat(_OLD + full)
            except FileNotFoundError:
                if optional:
                    return
                raise
            if stat.S_ISLNK(facts.st_mode):
                target = os.readlink(_OLD + full)
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
            _placeholder(here, folder=stat.S_ISDIR(os.lstat(_OLD + here).st_mode))
        _mount(_OLD + here, here, None, _BIND | _REC)
        _restrict(here, flags)
        self._shown[here] = flags

    def show_each(self, folder: str, flags: int, links: dict[str, str]) -> None:
        """Show what is in a folder, and links beside it: where the machine's own has none of their names."""
        os.mkdir(folder, 0o755)
        for path in (f"{folder}/{name}" for name in os.listdir(_OLD + folder)):
            if os.path.islink(_OLD + path):
                self._link(os.readlink(_OLD + path), path)
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
            _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, "mode=0755,size=16m")
        elif os.path.exists(path):
            _mount(f"{_OLD}/dev/null", path, None, _BIND)
        self._shown[path] = None

    def devices(self, memory: int) -> None:
        os.mkdir("/dev", 0o755)
        for name in _DEVICES:
            if os.path.exists(f"{_OLD}/dev/{name}"):
                _placeholder(f"/dev/{name}", folder=False)
                _mount(f"{_OLD}/dev/{name}", f"/dev/{name}", None, _BIND)
        for name, target in _LINKS:
            self._link(target, f"/dev/{name}")
        for name in ("shm", "pts"):
            os.mkdir(f"/dev/{name}", 0o755)
        _in_memory("/dev/shm", memory)  # noqa: S108
        try:
            _mount("devpts", "/dev/pts", "devpts", _NOSUID | _NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
        except OSError:
            os.rmdir("/dev/pts")  # a terminal of one's own is a convenience

    def temporary(self, folder: str | None, memory: int) -> None:
        for path in TEMPORARY:
            os.makedirs(path, 0o755, exist_ok=True)
            if folder is None:
                _in_memory(path, memory)
            else:
                _mount(_OLD + folder, path, None, _BIND)
                _restrict(path, _NOSUID | _NODEV)

    def close(self) -> None:
        """Let go of the old root; from here on there is no way back to it."""
        if _LIBC.umount2(os.fsencode(_OLD), _DETACH) != 0:
            _failed("umount")
        os.rmdir(_OLD)
        _restrict("/", _RDONLY, recursive=False)


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
    root = _Root()
    root.devices(plan["memory"])
    root.temporary(plan["temporary"], plan["memory"])
    links = plan.get("links") or {}
    for path in plan["system"]:
        if below := {link: target for link, target in links.items() if link.startswith(f"{path}/")}:
            root.show_each(path, _RDONLY | _NOSUID | _NODEV, below)
        else:
            root.show(path, _RDONLY | _NOSUID | _NODEV, optional=True)
    for path in plan["hidden"]:
        root.hide(path)
    os.makedirs("/proc", 0o755, exist_ok=True)
    # the old /proc must still be there: the kernel shows nobody more of it than they saw before
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    flags = dict.fromkeys(plan["write"], _NOSUID | _NODEV)
    flags |= dict.fromkeys(plan["read"], _RDONLY | _NOSUID | _NODEV)
    for path in sorted(flags, key=len):  # what lies above would cover what lies below
        root.show(path, flags[path])
    root.close()
    os.umask(before)
    os.chdir(plan.get("directory") or "/")


def first() -> None:
    """In a child of `fork`: a process table and shared memory of its own. What follows is `narrow`'s."""
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    _in_memory("/dev/shm", _LEAST_MEMORY)  # noqa: S108  (`narrow` knows how much it may be)
    _no_more_users()
    _own_keyring()


def _no_more_users() -> None:
    """No further user namespaces below this one: without them a good part of the kernel is out of reach."""
    _write("/proc/sys/user/max_user_namespaces", "0")


def narrow(plan: dict[str, Any]) -> None:
    """In a child of `fork`, after `first`: of each folder in `private` only the one entry that is its own.

    `kept` is what must still be seen of that which lies beside these, or below /tmp or /var/tmp; `memory` is
    how many bytes each folder in memory takes.
    """
    _in_memory("/dev/shm", plan["memory"], again=True)  # noqa: S108
    trees = [(_tree(path), path) for path in (*plan["kept"], *plan["private"])]
    shared = [(_tree(plan["temporary"]), path) for path in TEMPORARY if plan["temporary"]]
    for path in TEMPORARY:
        if not plan["temporary"]:
            _in_memory(path, plan["memory"])
    for tree, path in shared:
        _attach(tree, path)
    parents = {os.path.dirname(path) for path in plan["private"]}
    covered = sorted((path for path in parents if os.path.isdir(path)), key=len)
    for path in covered:
        _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV, "mode=0755,size=1m")
    for tree, path in trees:
        _placeholder(path, folder=stat.S_ISDIR(os.fstat(tree).st_mode))
        _attach(tree, path)
    for path in covered:
        _restrict(path, _RDONLY, recursive=False)


def _tree(path: str) -> int:
    """A descriptor of a copy of what is mounted at a path, all that is mounted below included."""
    return _call(
        f"open {path}",
        _SYS_OPEN_TREE,
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(path),
        ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE),
    )


def _attach(tree: int, path: str) -> None:
    _call(
        f"mount {path}",
        _SYS_MOVE_MOUNT,
        ctypes.c_int(tree),
        b"",
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(path),
        ctypes.c_uint(4),  # the source is the descriptor itself
    )
    os.close(tree)


# --- privileges


def drop(user: int | None, *, last: bool = True) -> None:
    """Have no privilege, and no way to get one; `user` is who to be instead of root.

    `last`: nothing below makes user namespaces, so that nothing below can.
    """
    own = os.geteuid() != 0
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    number = 0
    while _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
        number += 1
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        _LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # its own files in /proc are its own again
        if last:
            if _LIBC.unshare(NEWUSER) != 0:
                _failed("unshare")
            _map(user, user)
            own = True
    if last and own:
        _no_more_users()
    _own_keyring()
    resign()


def resign() -> None:
    """Give up every privilege that this process has in its namespaces."""
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    if _LIBC.capset(header, none) != 0:
        _failed("capset")


def _own_keyring() -> None:
    """Leave the session keyring that was inherited, which is everybody's; a kernel without any refuses."""
    _LIBC.syscall(ctypes.c_long(250 if os.uname().machine == "x86_64" else 219), ctypes.c_long(1), None)


# --- Landlock


def landlock_abi() -> int:
    """The version of Landlock that this kernel has; 0 for none."""
    return max(
        0, int(_LIBC.syscall(ctypes.c_long(_SYS_LANDLOCK), None, ctypes.c_size_t(0), ctypes.c_uint(1)))
    )


def landlock(read: list[str] | None, write: list[str]) -> None:
    """Allow reading below `read` and everything below `write`, and nothing else of the file system.

    `read=None` leaves the file system to others. Where the kernel can, neither abstract sockets nor signals
    reach anything outside. Descriptors that are open stay usable.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError(95, "this kernel has no Landlock")
    handled = (1 << _BY_ABI.get(abi, 16)) - 1 if read is not None else 0
    scoped = _SCOPES if abi >= 6 else 0
    if not handled and not scoped:
        return
    attributes = struct.pack("=3Q", handled, 0, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _call(
        "landlock",
        _SYS_LANDLOCK,
        attributes,
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint(0),
    )
    try:
        rules = [(path, _READ) for path in read or ()] + [(path, -1) for path in write if handled]
        for path, rights in rules:
            _rule(ruleset, path, rights & handled)
        _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call("landlock", _SYS_LANDLOCK + 2, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _rule(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE
        rule = struct.pack("=Qi", rights, descriptor)
        _call("landlock", _SYS_LANDLOCK + 1, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint(0))
    finally:
        os.close(descriptor)


def close(plan: dict[str, Any]) -> None:
    """In a child of a template, before it runs anything of an attempt: keep what is the attempt's own.

    With namespaces, `fork` and `first` came before.
    """
    if plan["namespaces"]:
        narrow(plan)
    else:
        _own_keyring()  # the template's would be that of all its children
    resign()
    if plan["landlock"]:
        landlock(plan["read"], [*(EVERYWHERE if plan["namespaces"] else ()), *plan["write"]])

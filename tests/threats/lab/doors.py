"""What a task of one person tries against another's, an app and Tower: each answers what it got.

The test sends this file as the task's input, and fills `KNOWN`: whose canary to look for, and where they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import mmap
import os
import resource
import signal
import socket
import struct
import threading
from pathlib import Path
from typing import Any

KNOWN: dict[str, Any] = {}
LIBC = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
NUMBERS = {
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "open_by_handle_at": (304, 265),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "kexec_load": (246, 104),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "fanotify_init": (300, 262),
    "clone": (56, 220),
    "fsopen": (430, 430),
}


def call(name: str, *arguments: Any) -> int:
    """A system call; -1 with the reason in `ctypes.get_errno()`."""
    number = NUMBERS[name][0 if X86 else 1]
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return int(LIBC.syscall(ctypes.c_long(number), *words))


def targets() -> list[int]:
    """Others' processes: the victim's, Tower's, what started this one; all, where few can be seen."""
    found = {*KNOWN["pids"], os.getppid()}
    if not KNOWN["listed"]:
        found |= {*range(1, 200)}
    return sorted(found - {0, *map(int, os.listdir("/proc/self/task"))})


def foreign(pid: int) -> bool:
    """Whether a process is on the test's list of those that are none of ours."""
    return pid in KNOWN["pids"]


def lines(path: str) -> list[str]:
    """The lines of a file of the kernel's."""
    return Path(path).read_text().splitlines()


def keyrings() -> list[str]:
    """Keys that the victim added to the keyrings of its session and its user."""
    buffer = ctypes.create_string_buffer(4096)
    ids = {call("request_key", b"user", b"planted", None, 0)}
    ids |= {call("keyctl", 10, ring, b"user", b"planted", 0) for ring in (-1, -2, -3, -4, -5)}
    with contextlib.suppress(OSError):
        ids |= {int(line.split()[0], 16) for line in Path("/proc/keys").read_text().splitlines()}
    return [
        f"key {key}"
        for key in ids
        if key > 0 and call("keyctl", 11, key, buffer, 4096) > 0 and KNOWN["canary"].encode() in buffer.raw
    ]


def ring() -> list[str]:
    """io_uring: files opened past whatever looks at system calls."""
    params = bytearray(120)
    place = (ctypes.c_char * 120).from_buffer(params)
    descriptor = call("io_uring_setup", 4, place)
    if descriptor < 0:
        return []
    got = [] if KNOWN["filtered"] is False else ["a ring"]
    sq, cq = struct.unpack_from("=8I", params, 40), struct.unpack_from("=8I", params, 80)
    rings = mmap.mmap(descriptor, sq[6] + 64, offset=0)
    done = mmap.mmap(descriptor, cq[5] + 128, offset=0x8000000)
    entries = mmap.mmap(descriptor, 64 * 4, offset=0x10000000)
    for turn, path in enumerate(KNOWN["files"]):
        text = ctypes.create_string_buffer(path.encode())
        entries[0:64] = struct.pack(
            "=BBHiQQIIQ", 18, 0, 0, -100, 0, ctypes.addressof(text), 0, 0, turn
        ).ljust(64, b"\0")
        tail = struct.unpack_from("=I", rings, sq[1])[0]
        struct.pack_into("=I", rings, sq[6] + 4 * (tail & 3), 0)
        struct.pack_into("=I", rings, sq[1], tail + 1)
        call("io_uring_enter", descriptor, 1, 1, 1, None, 0)
        head = struct.unpack_from("=I", done, cq[0])[0]
        _, result = struct.unpack_from("=Qi", done, cq[5] + 16 * (head & 7))
        struct.pack_into("=I", done, cq[0], head + 1)
        if result >= 0:
            got.append(path)
    return got


def handles() -> list[str]:
    """A file of this file system by its number, whatever is mounted over it."""
    got = []
    for folder in (".", "/", "/usr", "/tmp"):
        mount = os.open(folder, os.O_RDONLY)
        for inode in (2, 32, 128, *KNOWN["inodes"]):
            handle = struct.pack("=IiII", 8, 1, inode, 0)
            if call("open_by_handle_at", mount, handle, 0) >= 0:
                got.append(f"{folder} {inode}")
        os.close(mount)
    return got


def processes() -> list[str]:
    """Memory, descriptors, resources and traces of others' processes."""

    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    got = []
    buffer = ctypes.create_string_buffer(64)
    mine, theirs = Vector(ctypes.addressof(buffer), 64), Vector(0x400000, 64)
    for pid in targets():
        if LIBC.ptrace(16, pid, None, None) == 0 or LIBC.ptrace(0x4206, pid, None, None) == 0:
            got.append(f"ptrace {pid}")
        if LIBC.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0) > 0:
            got.append(f"memory {pid}")
        if call("kcmp", os.getpid(), pid, 2, 0, 0) >= 0:
            got.append(f"kcmp {pid}")
        for name in ("mem", "environ", "maps", "syscall", "stack", "auxv", "fd/1", "ns/mnt", "root", "cwd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/{name}"
                if name in ("mem", "environ", "maps", "auxv"):
                    os.close(os.open(path, os.O_RDONLY))
                else:
                    os.readlink(path)
                got.append(path)
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        got += [
            f"pidfd_getfd {pid}" for number in range(8) if call("pidfd_getfd", descriptor, number, 0) >= 0
        ]
        if call("process_madvise", descriptor, ctypes.byref(mine), 1, 4, 0) >= 0:
            got.append(f"madvise {pid}")
        os.close(descriptor)
    return got


def signals() -> list[str]:
    """A signal that does nothing, to each process that is none of ours."""
    got = []
    for pid in targets():
        for number in (0, signal.SIGURG, signal.SIGCONT):
            with contextlib.suppress(OSError):
                os.kill(pid, number)
                if foreign(pid):
                    got.append(f"{number} {pid}")
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGURG)
            if foreign(pid):
                got.append(f"group {pid}")
    return got


def limits() -> list[str]:
    """Limits of others' processes: what would stop Tower from opening another file."""
    got = []
    for pid in targets():
        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
            if foreign(pid):
                got.append(str(pid))
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (1 << 20, 1 << 20))
            got.append(f"raised {kind}")
    return got


def terminals() -> list[str]:
    """Terminals, disks, and the machine's memory as files."""
    got = []
    for folder, _, names in os.walk("/dev"):
        for name in names:
            path = os.path.join(folder, name)
            harmless = (
                "null",
                "zero",
                "full",
                "random",
                "urandom",
                "tty",
                "ptmx",
                "stdin",
                "stdout",
                "stderr",
            )
            if folder.startswith(("/dev/fd", "/dev/shm")) or name in harmless:
                continue
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
                got.append(path)
    for name in (
        "/dev/tty",
        "/proc/kcore",
        "/proc/kmsg",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/console",
        "/dev/tty0",
    ):
        with contextlib.suppress(OSError):
            os.close(os.open(name, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
            got.append(name)
    with contextlib.suppress(OSError):
        own = os.openpty()[1]
        for request in (0x5412, 0x541C):
            with contextlib.suppress(OSError):
                fcntl.ioctl(own, request, b"x")
                got.append(f"ioctl {request:#x}")
    return [name for name in got if KNOWN["filtered"] or not name.startswith("ioctl")]


def kernel() -> list[str]:
    """Doors into the kernel that no task needs."""
    shape = struct.pack("=IIQ", 1, 112, 0).ljust(112, b"\0")
    others = (0, *KNOWN["pids"])
    got = [f"perf {pid}" for pid in others if call("perf_event_open", shape, pid, -1, -1, 0) >= 0]
    for name, arguments in (
        ("userfaultfd", (1,)),
        ("bpf", (0, bytes(72), 72)),
        ("kexec_load", (0, 0, None, 0)),
        ("fsopen", (b"proc", 0)),
        ("fanotify_init", (0x0F, 0)),
    ):
        if call(name, *arguments) >= 0:
            got.append(name)
    return [name for name in got if KNOWN["filtered"] or name != "userfaultfd"]


def queues() -> list[str]:
    """Memory, semaphores and messages that the kernel keeps under a number or a name."""
    got = []
    LIBC.shmat.restype = ctypes.c_void_p
    canary = KNOWN["canary"].encode()
    for number in {LIBC.shmget(KNOWN["number"], 4096, 0), KNOWN["segment"], *range(64)} - {-1}:
        place = LIBC.shmat(number, None, 0o10000)
        if place not in (None, ctypes.c_void_p(-1).value) and canary in ctypes.string_at(place, 100):
            got.append(f"segment {number}")
    buffer = ctypes.create_string_buffer(9000)
    got += [
        f"queue {number}"
        for number in {LIBC.msgget(KNOWN["number"], 0), *range(64)} - {-1}
        if LIBC.msgrcv(number, buffer, 8000, 0, 0o4000) > 0 and canary in buffer.raw
    ]
    librt = ctypes.CDLL("librt.so.1", use_errno=True)
    named = librt.mq_open(f"/{KNOWN['planted']}".encode(), 0o4000)
    if named >= 0 and librt.mq_receive(named, buffer, 8192, None) > 0 and canary in buffer.raw:
        got.append("mq")
    for name in ("shm", "msg", "sem"):
        with contextlib.suppress(OSError):
            got += [f"{name} {line.split()[1]}" for line in lines(f"/proc/sysvipc/{name}")[1:]]
    return (
        got
        if not KNOWN["listed"]
        else [name for name in got if not name.startswith(("shm ", "msg ", "sem "))]
    )


def sockets() -> list[str]:
    """Others' sockets by their paths: whoever answers with a status that is no refusal."""
    got = []
    for path in KNOWN["sockets"]:
        for place in (path, f"/proc/{KNOWN['pids'][0]}/root{path}"):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
                link.settimeout(20)
                link.connect(place)
                link.sendall(
                    b"GET /api/v1/whoami HTTP/1.1\r\nhost: x\r\nx-flyte-agent: 1\r\nconnection: close\r\n\r\n"
                )
                answer = link.recv(200)
                if answer and not answer.startswith(b"HTTP/1.1 403"):
                    got.append(f"{place}: {answer[:40]!r}")
    for family, kind, protocol in (
        (socket.AF_PACKET, socket.SOCK_RAW, 0x0300),
        (socket.AF_INET, socket.SOCK_RAW, 1),
    ):
        with contextlib.suppress(OSError):
            socket.socket(family, kind, protocol).close()
            got.append(f"raw {family}")
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        # RTM_NEWLINK: take the loopback interface down
        body = struct.pack("=BxHiII", 0, 0, 1, 0, 1)
        link.bind((0, 0))
        link.send(struct.pack("=IHHII", 16 + len(body), 16, 5, 1, 0) + body)
        size, kind, _, _, _, fault = struct.unpack_from("=IHHIIi", link.recv(4096))
        if (size, kind) and fault == 0:
            got.append("netlink")
    return got


def settings() -> list[str]:
    """The kernel's settings and the control groups: whatever can be opened to be written."""
    got = []
    for root in ("/proc/sys", "/sys/fs/cgroup", "/sys/kernel", "/sys/fs"):
        for folder, _, names in os.walk(root):
            for name in names:
                with contextlib.suppress(OSError):
                    os.close(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_NONBLOCK))
                    got.append(os.path.join(folder, name))
    for path in (
        "/proc/sysrq-trigger",
        "/proc/1/oom_score_adj",
        *(f"/proc/{pid}/oom_score_adj" for pid in KNOWN["pids"]),
    ):
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY))
            got.append(path)
    # its own: the first process of its table may be this one
    own = {f"/proc/{os.getpid()}/oom_score_adj", "" if KNOWN["listed"] else "/proc/sys/kernel/ns_last_pid"}
    return [path for path in got if path not in own]


def files() -> list[str]:
    """Others' files by their paths: read, written, replaced, linked, watched."""
    got = []
    for path in KNOWN["files"]:
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_APPEND):
            with contextlib.suppress(OSError):
                os.close(os.open(path, flags))
                got.append(f"open {path}")
        for tried in (
            os.unlink,
            lambda path: os.link(path, "linked"),
            lambda path: os.rename(path, path + ".old"),
        ):
            with contextlib.suppress(OSError):
                tried(path)
                got.append(f"changed {path}")
        with contextlib.suppress(OSError):
            os.truncate(path, 0)
            got.append(f"truncated {path}")
        folder = os.path.dirname(path)
        with contextlib.suppress(OSError):
            os.close(os.open(folder + "/planted-by-bob", os.O_CREAT | os.O_WRONLY))
        with contextlib.suppress(OSError):
            if os.path.basename(path) in os.listdir(folder) and folder != "/etc":
                got.append(f"listed {folder}")
    return got


def attributes() -> list[str]:
    """Modes, owners, times and attributes of others' files, by their paths."""
    got = []
    for path in KNOWN["files"]:
        for place in (path, os.path.dirname(path)):
            if os.path.realpath(place).startswith(("/etc", "/root")):
                continue
            for name, change in (
                ("mode", lambda place: os.chmod(place, os.stat(place).st_mode & 0o777)),
                ("times", os.utime),
                ("owner", lambda place: os.chown(place, os.getuid(), os.getgid())),
                ("attribute", lambda place: os.setxattr(place, "user.planted", b"x")),
            ):
                with contextlib.suppress(OSError):
                    change(place)
                    if os.path.basename(path) != KNOWN["planted"] and not own(place):
                        got.append(f"{name} {place}")
    return got


def own(place: str) -> bool:
    """Whether a path leads to this attempt's own memory, where the machine has something else."""
    return os.stat(place).st_dev != KNOWN["device"]


def namespaces() -> list[str]:
    """Namespaces of others, and new ones; mounts of every kind."""
    got = []
    for pid in targets():
        for name in ("user", "mnt", "pid", "ipc", "net"):
            with contextlib.suppress(OSError):
                descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
                if LIBC.setns(descriptor, 0) == 0:
                    got.append(f"setns {pid} {name}")
                os.close(descriptor)
    for name, flags in (("user", 0x10000000), ("mount", 0x20000), ("both", 0x10020000), ("net", 0x40000000)):
        if os.fork() == 0:
            os._exit(0 if LIBC.unshare(flags) == 0 else 1)
        if os.wait()[1] == 0:
            got.append(f"unshare {name}")
    pid = call("clone", 0x10000000 | signal.SIGCHLD, None, None, None, None)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.wait()
        got.append("clone")
    os.makedirs("m", exist_ok=True)
    for kind, data in (
        ("proc", None),
        ("tmpfs", None),
        ("overlay", b"lowerdir=/usr:/etc"),
        ("sysfs", None),
        ("cgroup2", None),
    ):
        if LIBC.mount(kind.encode(), b"m", kind.encode(), 0, data) == 0:
            got.append(f"mount {kind}")
    return got


def cores() -> list[str]:
    """A crash leaves the memory nowhere."""
    if os.fork() == 0:
        LIBC.prctl(4, 1, 0, 0, 0)
        os.abort()
    _, status = os.wait()
    left = glob.glob("core*") + glob.glob("/tmp/core*") + glob.glob("/var/tmp/core*")
    return left + (["dumped"] if os.WCOREDUMP(status) else [])


def modes() -> list[str]:
    """A file that runs as its owner, whoever starts it."""
    got = []
    open("own", "w").close()
    with contextlib.suppress(OSError):
        os.chmod("own", 0o4755)
        if not os.statvfs("own").f_flag & os.ST_NOSUID:
            got.append("set-uid")
    return got


def everything(name: str) -> list[str]:
    """One of these, in a thread of its own as little as possible like the main one."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(globals()[name]()))
    thread.start()
    thread.join()
    return sorted(set(found))

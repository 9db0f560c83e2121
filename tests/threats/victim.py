"""A task of alice's that keeps a secret in every place it has, and waits: what bob's task tries to get at."""

from __future__ import annotations

import json
import secrets
import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyteidl2.common import phase_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import Lab

CODE = '''
import ctypes, json, os, signal, socket, tempfile
heard = []
NAME = "planted-" + CANARY[-7:]  # where folders are shared, another victim has names of its own
def main():
    """Put the canary everywhere, tell where, wait for the word to end, and tell what became of it."""
    shared = int(CANARY[-7:], 16)
    kept = (CANARY + "-memory").encode()
    places = {"cwd": os.getcwd(), "socket": os.environ["FLYTE_AGENT_SOCKET"], "pid": os.getpid()}
    folders = []
    for folder in (os.getcwd(), "/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir()):
        try:
            with open(folder + "/" + NAME, "w") as file:
                file.write(CANARY)
        except OSError:
            continue  # without namespaces only some of them are there
        folders.append(folder)
    print(CANARY)
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGINT}:
        signal.signal(number, lambda number, frame: heard.append(number))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\\0" + CANARY[:40])
    abstract.listen()
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind("\\0" + CANARY[:40] + "d")
    places["abstract"] = CANARY[:40]
    libc = ctypes.CDLL(None, use_errno=True)
    places["segment"] = libc.shmget(shared, 4096, 0o1666)  # for everybody, as far as it goes
    libc.shmat.restype = ctypes.c_void_p
    if places["segment"] >= 0:
        ctypes.memmove(libc.shmat(places["segment"], None, 0), CANARY.encode(), len(CANARY))
    add_key = 248 if os.uname().machine == "x86_64" else 217
    for keyring in (-3, -4, -5):  # of the session, of the user, of the user's sessions
        libc.syscall(add_key, b"user", b"planted", CANARY.encode(), len(CANARY), keyring)
    queue = libc.msgget(shared, 0o1666)
    libc.msgsnd(queue, (1).to_bytes(8, "little") + CANARY.encode(), len(CANARY), 0o4000)
    librt = ctypes.CDLL("librt.so.1", use_errno=True)
    named = librt.mq_open(b"/" + NAME.encode(), 0o102, 0o666, None)
    librt.mq_send(named, CANARY.encode(), len(CANARY), 0)
    tester = socket.create_connection(("127.0.0.1", TESTER))
    tester.sendall(json.dumps(places).encode() + b"\\n")
    tester.recv(1)
    report = {"heard": [int(number) for number in heard], "kept": kept.decode()}
    report["tmp"] = sorted(os.listdir("/tmp")) if "/tmp" in folders else []
    report["planted"] = [
        open(place + "/" + NAME).read() for place in (os.getcwd(), "/tmp", "/dev/shm") if place in folders
    ]
    if "/tmp" not in folders and "/dev/shm" in folders:
        os.unlink("/dev/shm/" + NAME)  # everybody's
    libc.shmctl(places["segment"], 0, None)
    libc.msgctl(queue, 0, None)
    librt.mq_unlink(b"/" + NAME.encode())
    try:
        report["predictable"] = open("/tmp/predictable", "x").write("mine")
    except OSError as error:
        report["predictable"] = str(error)
    return report
'''


@dataclass(slots=True)
class Victim:
    """Alice's attempt while it waits."""

    lab: Lab
    run: str
    canary: str
    places: dict[str, Any]
    host_pid: int
    env: bool
    link: socket.socket = field(repr=False)

    @property
    def planted(self) -> str:
        """The name of its files and its queue."""
        return f"planted-{self.canary[-7:]}"

    @property
    def number(self) -> int:
        """The number of its shared memory and messages."""
        return int(self.canary[-7:], 16)

    def released(self) -> Any:
        """Let it end; what became of it."""
        self.link.sendall(b"x")
        details = self.lab.wait("alice", self.run).action
        assert details.status.phase == phase_pb2.ACTION_PHASE_SUCCEEDED, details.error_info.message
        return json.loads(self.lab.output("alice", self.run))


@contextmanager
def waiting(lab: Lab, *, env: bool) -> Iterator[Victim]:
    """Alice's attempt, from its telling where it is until the block ends.

    `env`: the canary is in its environment too, which makes it a process of its own instead of a fork.
    """
    canary = f"canary-{secrets.token_hex(16)}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        known = f"CANARY, TESTER = {canary!r}, {listener.getsockname()[1]}"
        started = lab.start("alice", f"{known}\n{CODE}", **with_env(canary if env else ""))
        assert started.status_code == 200, started.text
        listener.settimeout(60)
        link, _ = listener.accept()
    with link, link.makefile() as lines:
        places = json.loads(lines.readline())
        name = runs.CreateRunResponse.FromString(started.content).run.action.id.run.name
        yield Victim(lab, name, canary, places, host_pid(places["cwd"]), env, link)


def with_env(value: str) -> dict[str, run_pb2.RunSpec]:
    """A specification with the value in the environment, unless that is empty."""
    spec = run_pb2.RunSpec()
    if value:
        spec.envs.values.add(key="CANARY", value=value)
    return {"run_spec": spec}


def host_pid(cwd: str) -> int:
    """The process on the machine that works in a folder which has this name for it."""
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(path.readlink()) == cwd:
                return int(path.parent.name)
        except OSError:
            continue
    raise AssertionError(f"nobody works in {cwd}")


def above(pid: int) -> list[int]:
    """What started a process, up to Tower."""
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return [each for each in found if each > 1]


def closed(link: socket.socket, seconds: float = 20.0) -> bool:
    """Whether the other end goes away in time: its process has ended then."""
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        while selector.select(seconds):
            try:
                if not link.recv(4096):
                    return True
            except ConnectionError:
                return True
    return False

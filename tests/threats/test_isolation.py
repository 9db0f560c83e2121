"""Two people's tasks on one worker, every way between them that we know: T3, T4, T5, T8, T30, T33, T50."""

from __future__ import annotations

import re
import socket as sockets
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flyteidl2.workflow import run_service_pb2 as runs
from tests.files import below
from tests.flyte.login.person import PASSWORD, give_password
from tests.threats.conftest import DOMAIN, PROJECT, Lab
from tests.threats.test_hosted_code import SOCKET
from tests.threats.victim import Victim, closed, waiting, with_env

from tower.executors.process.isolation import Wanted, choose

pytestmark = pytest.mark.xdist_group("threats")

SEARCH = '''
import os
def search(words, roots=("/",), skip=("/usr", "/proc", "/sys", "/opt", "/dev", "/nix")):
    """Every file that can be read, its name included, for any of the words."""
    found, looked = [], 0
    words = [word.encode() for word in words]
    for root in roots:
        for place, folders, names in os.walk(root):
            folders[:] = [name for name in folders if os.path.join(place, name) not in skip]
            for name in names + folders:
                path = os.path.join(place, name)
                if any(word in path.encode() for word in words):
                    found.append(path)
            for name in names:
                path = os.path.join(place, name)
                try:
                    if not os.path.isfile(path):
                        continue
                    with open(path, "rb") as file:
                        data = file.read(1 << 22)
                except OSError:
                    continue
                looked += 1
                if any(word in data for word in words):
                    found.append(path)
    return found, looked
'''


@pytest.fixture(scope="module")
def isolated(lab: Lab) -> Lab:
    """The lab, where the machine can isolate."""
    isolation, why = choose(Wanted.PREFERRED)
    if not isolation.mode.namespaces:
        pytest.skip(f"this machine does not isolate: {why}")
    assert f'"mode": "{isolation}"' in lab.tower.log
    return lab


@pytest.fixture(params=["forked", "fresh"])
def victim(isolated: Lab, request: pytest.FixtureRequest) -> Iterator[Victim]:
    """Alice's attempt while it waits: both hers and bob's are forks of one template, or fresh processes."""
    with waiting(isolated, env=request.param == "fresh") as victim:
        yield victim


def attack(victim: Victim, code: str) -> Any:
    """What bob's task on the same worker got, with alice's secret and places known to it."""
    known = {name: getattr(victim, name) for name in ("canary", "host_pid", "planted", "number")}
    places = {**victim.places, **known}
    before = template_of(victim.host_pid)
    own = with_env("bob's own" if victim.env else "")
    told = victim.lab.inside_task("bob", f"victim = {places!r}\n{SEARCH}\n{code}", **own)
    assert template_of(victim.host_pid) == before
    return told


def template_of(pid: int) -> int:
    """The process that forked another."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_bob_sees_no_process_of_alices(victim: Victim) -> None:
    """No environ, no cmdline, no memory, and no id that means anything."""
    told = attack(
        victim,
        """
def main():
    seen, leaks = [], []
    for name in os.listdir("/proc"):
        if name.isdigit():
            seen.append(int(name))
            for file in ("environ", "cmdline", "maps", "mem", "cwd", "root", "fd"):
                path = f"/proc/{name}/{file}"
                try:
                    link = file in ("cwd", "root")
                    data = os.readlink(path).encode() if link else open(path, "rb").read(1 << 20)
                except OSError:
                    continue
                if int(name) != os.getpid() and victim["canary"].encode() in data:
                    leaks.append(path)
    host = f"/proc/{victim['host_pid']}"
    return {"seen": seen, "leaks": leaks, "host": os.path.exists(host), "me": os.getpid(), "up": os.getppid()}
""",
    )
    # a fresh one has the first process of its table above it
    me = 2 if victim.env else 1
    assert told == {"seen": [*range(1, me + 1)], "leaks": [], "host": False, "me": me, "up": me - 1}


def test_bob_reads_and_stops_no_process_of_alices(victim: Victim) -> None:
    """ptrace, process_vm_readv, pidfd_open and signals, for each id there is and for the true one."""
    told = attack(
        victim,
        """
import ctypes, signal
def main():
    libc = ctypes.CDLL(None, use_errno=True)
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(64)
    mine = Vector(ctypes.addressof(buffer), 64)
    reached = []
    for pid in {*range(2, 2000), victim["host_pid"]} - {os.getpid()}:
        theirs = Vector(0x400000, 64)
        if libc.ptrace(16, pid, None, None) == 0:
            reached.append(("ptrace", pid))
        if libc.process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0) > 0:
            reached.append(("read", pid))
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
                reached.append(("signal", pid))
            except ProcessLookupError:
                pass
        try:
            os.close(os.pidfd_open(pid))
            reached.append(("pidfd", pid))
        except OSError:
            pass
    for everybody in (0, -1):
        try:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            os.kill(everybody, signal.SIGUSR1)
        except ProcessLookupError:
            pass
    return reached
""",
    )
    assert told == []
    assert victim.released()["heard"] == []


def test_bob_finds_nothing_of_alices_on_disk(victim: Victim) -> None:
    """Inputs, outputs, logs, temporary files: no file that bob's task can read holds her canary."""
    told = attack(
        victim,
        """
def main():
    found, looked = search([victim["canary"]])
    own = os.environ["FLYTE_AGENT_SOCKET"]
    sockets = []
    for place, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(place, name) not in ("/proc", "/usr", "/sys")]
        sockets += [os.path.join(place, name) for name in names
                    if os.path.exists(os.path.join(place, name))
                    and (os.stat(os.path.join(place, name)).st_mode & 0o170000) == 0o140000]
    beside = {place: os.listdir(os.path.dirname(place)) for place in (os.getcwd(), os.path.dirname(own))}
    return {
        "found": found, "looked": looked, "sockets": sockets, "own": own,
        "beside": [len(names) for names in beside.values()],
        "theirs": [os.path.exists(victim[name]) for name in ("cwd", "socket")],
        "temporary": [sorted(os.listdir(folder)) for folder in ("/tmp", "/var/tmp", "/dev/shm")],
    }
""",
    )
    # what it knows of her is in its own code, which is its own input
    assert [path for path in told["found"] if not path.endswith("/inputs.pb")] == []
    assert told["looked"] > 50
    assert told["sockets"] == [told["own"]]
    assert told["beside"] == [1, 1]
    assert told["theirs"] == [False, False]
    assert all(victim.planted not in names for names in told["temporary"])


def test_bob_shares_no_name_with_alice(victim: Victim) -> None:
    """Abstract sockets, shared memory, queues: no meeting place that the kernel keeps for everybody."""
    told = attack(
        victim,
        """
import ctypes, socket
def main():
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect("\\0" + victim["abstract"])
            abstract = "connected"
        except OSError as error:
            abstract = type(error).__name__
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        try:
            link.sendto(b"x", "\\0" + victim["abstract"] + "d")
            datagram = "sent"
        except OSError as error:
            datagram = type(error).__name__
    segment = libc.shmget(victim["number"], 4096, 0)
    keys = open("/proc/keys").read() if os.path.exists("/proc/keys") else ""
    return {"abstract": abstract, "datagram": datagram, "segment": segment,
            "ipc": open("/proc/sysvipc/shm").read().count("\\n"), "tower": "tower" in keys}
""",
    )
    assert told == {
        "abstract": "PermissionError",
        "datagram": "PermissionError",
        "segment": -1,
        "ipc": 1,
        "tower": False,
    }


def test_bob_plants_nothing_in_alices_way(victim: Victim) -> None:
    """A link or file with a name that she will use soon, in the folders that everybody used to share."""
    told = attack(
        victim,
        """
def main():
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        os.symlink("/etc/passwd", folder + "/predictable")
        with open(folder + "/" + victim["planted"], "w") as file:
            file.write("mine")
    refused = []
    for path in ("/etc/planted", "/usr/planted", "/planted"):
        try:
            open(path, "w").close()
        except OSError as error:
            refused.append(error.errno)
    return refused
""",
    )
    assert len(told) == 3
    report = victim.released()
    assert report["planted"] == [victim.canary] * 3
    assert report["predictable"] == 4
    assert "predictable" not in report["tmp"]


def test_bob_gets_out_by_no_door_of_the_kernel(victim: Victim) -> None:
    """Mounts, namespaces, devices, tracing, privileges: nothing that would undo what keeps him apart."""
    told = attack(
        victim,
        """
import ctypes
def main():
    libc = ctypes.CDLL(None, use_errno=True)
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
    done = []
    for name, flags in (("user", 0x10000000), ("mount", 0x20000), ("both", 0x10020000), ("pid", 0x20000000)):
        if os.fork() == 0:
            os._exit(0 if libc.unshare(flags) == 0 else 1)
        if os.wait()[1] == 0:
            done.append(name)
    for target in ("/tmp", "/proc", "/", os.path.dirname(os.getcwd())):
        if libc.umount2(target.encode(), 2) == 0:
            done.append("umount " + target)
        if libc.mount(b"tmpfs", target.encode(), b"tmpfs", 0, None) == 0:
            done.append("mount " + target)
        if libc.mount(None, target.encode(), None, 0x20 | 0x1000, None) == 0:
            done.append("remount " + target)
    for number, call in enumerate((
        lambda: os.setuid(0), lambda: os.chroot("/"), lambda: os.mknod("/tmp/d", 0o60666, 0xfe00),
        lambda: open("/proc/sys/kernel/core_pattern", "w"), lambda: open("/proc/sysrq-trigger", "w"),
        lambda: os.write(os.open("/proc/1/oom_score_adj", os.O_WRONLY), b"-1000"),
        lambda: open("/dev/mem", "rb"), lambda: open("/proc/kcore", "rb").read(1),
        lambda: open("/dev/kmsg").read(1), lambda: os.open("/proc/sys/user/max_user_namespaces", os.O_WRONLY),
    )):
        try:
            call()
            done.append(number)
        except OSError:
            pass
    return {"done": done, "uid": os.getuid(), "groups": os.getgroups(),
            "caps": [int(status[name].strip(), 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")],
            "alone": status["NoNewPrivs"].strip()}
""",
    )
    assert told["done"] == []
    assert told["uid"] != 0
    assert 0 not in told["groups"]
    assert told["caps"] == [0, 0, 0, 0]
    assert told["alone"] == "1"


def test_an_attempt_inherits_no_descriptor(victim: Victim) -> None:
    """Three, and none of them leads to the template, to Tower or to somebody else."""
    told = attack(
        victim,
        """
def main():
    held = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            held[name] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass
    return {name: target for name, target in held.items() if int(name) < 3 or "socket" in target}
""",
    )
    assert told.pop("0") == "/dev/null"
    assert told["1"].startswith("pipe:")
    assert told.pop("1") == told.pop("2")
    # the loop that runs the task has a pair of its own
    assert len(told) <= 2


def test_t03_no_task_holds_a_key_of_the_house(isolated: Lab) -> None:
    """Environment, files, arguments, process table: no secret of Tower's, and no way to its home."""
    home = isolated.tower.home
    signing = (home / "signing.key").read_bytes()
    words = [
        isolated.admin_key.split("_", 2)[2],
        *(key.split("_", 2)[2] for key in isolated.tower.keys.values()),
    ]
    known = [word[:16] for word in words]  # a part of each: the whole would be in its own inputs
    code = f"""
KNOWN = {known!r}
HOME = {str(home)!r}
SIGNING = bytes.fromhex({signing[-24:-8].hex()!r})
{SEARCH}
def main():
    found, looked = search(KNOWN)
    names = [os.path.join(place, name) for place, _, names in os.walk("/") for name in names
             if name in ("signing.key", "tower.db", "admin-key", "admin.sock", "ca.pem", "tower.db-wal")]
    raw = []
    for place, folders, files in os.walk(HOME):
        for name in files:
            try:
                if SIGNING in open(os.path.join(place, name), "rb").read():
                    raw.append(name)
            except OSError:
                pass
    texts = [open("/proc/self/environ").read(), open("/proc/self/cmdline").read(), repr(dict(os.environ))]
    home = sorted(os.listdir(HOME)) if os.path.isdir(HOME) else []
    return {{"found": found, "looked": looked, "names": names, "raw": raw, "home": home,
             "told": [word for word in KNOWN if any(word in text for text in texts)]}}
"""
    for told in (isolated.inside_task("bob", code), isolated.inside_app("bob", code)):
        assert [name for name in told["found"] if not name.endswith("/inputs.pb")] == []
        assert (told["names"], told["raw"], told["told"]) == ([], [], [])
        assert set(told["home"]) <= {"code", "images", "run", "sdk", "work"}
        assert told["looked"] > 50


def test_t03_what_a_template_imports_sees_no_more(isolated: Lab, tmp_path: Path) -> None:
    """The code of a module runs when the template imports it, before there is an attempt: kept in as well."""
    (tmp_path / "early.py").write_text(
        f"""
import os, json
import flyte

def look():
    seen = [name for name in os.listdir("/proc") if name.isdigit()]
    home = {str(isolated.tower.home)!r}
    names = sorted(os.listdir(home)) if os.path.isdir(home) else []
    work = [name for place, _, names in os.walk(home + "/work") for name in names]
    opened = []
    for name in ("signing.key", "tower.db", "admin-key"):
        try:
            open(home + "/" + name).close()
            opened.append(name)
        except OSError:
            pass
    return {{"processes": len(seen), "uid": os.getuid(), "home": names, "opened": opened, "work": work}}

SEEN = look()
env = flyte.TaskEnvironment(
    name="early", image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn", "websockets")
)

@env.task
def early(code: str) -> str:
    return json.dumps(SEEN)
"""
    )
    isolated.deploy("mallory", tmp_path, "deploy", "early.py", "env")
    task = runs.CreateRunRequest().task_id
    task.name = "early.early"
    told = isolated.inside_task("alice", "", task_id=task)
    assert told["opened"] == []
    assert told["uid"] != 0
    assert told["processes"] <= 2
    assert set(told["home"]) <= {"code", "images", "run", "sdk", "work"}
    assert set(told["work"]) <= {"inputs.pb"}


HOSTILE = """
import gc, json, os, sys
import flyte

def disarm():
    # the runtime in the image belongs to whoever made the image: here it does not close its children off
    for each in gc.get_objects():
        if type(each).__name__ == "Worker" and getattr(each, "_sandbox", None) is not None:
            each._sandbox.close = lambda plan: None
            return True
    return False

DISARMED = disarm()
env = flyte.TaskEnvironment(
    name="hostile", image=flyte.Image.from_debian_base().with_pip_packages("fastapi", "uvicorn", "websockets")
)

@env.task
def hostile(code: str) -> str:
    names = {}
    exec(code, names)
    return json.dumps([DISARMED, names["main"]()])
"""


def test_t50_a_hostile_runtime_stays_in(victim: Victim, tmp_path: Path) -> None:
    """A template that does not close its children off, as an image could bring it: nothing of other code."""
    lab = victim.lab
    (tmp_path / "hostile.py").write_text(HOSTILE)
    lab.deploy("mallory", tmp_path, "deploy", "hostile.py", "env")
    task = runs.CreateRunRequest().task_id
    task.name = "hostile.hostile"
    known = {"canary": victim.canary, "home": str(lab.tower.home), "host_pid": victim.host_pid}
    known |= {"places": [victim.places["cwd"], victim.places["socket"]]}
    disarmed, told = lab.inside_task(
        "bob",
        f"known = {known!r}\n{SEARCH}"
        + """
import ctypes
def main():
    libc = ctypes.CDLL(None, use_errno=True)
    taken = [target for target in ("/", known["home"], known["home"] + "/work", "/usr", "/etc", "/tmp")
             if libc.umount2(target.encode(), 2) == 0]
    found, _ = search([known["canary"]], skip=("/usr", "/proc", "/sys", "/opt", "/dev", "/nix", "/etc"))
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    opened = []
    for name in ("signing.key", "tower.db", "admin-key"):
        try:
            open(known["home"] + "/" + name).close()
            opened.append(name)
        except OSError:
            pass
    signalled = []
    try:
        os.kill(known["host_pid"], 0)
        signalled.append(known["host_pid"])
    except ProcessLookupError:
        pass
    open("mark", "w").close()
    listed = sorted(os.listdir(known["home"])) if os.path.isdir(known["home"]) else []
    return {"taken": [each for each in taken if each != "/tmp"], "found": found, "pids": len(pids),
            "opened": opened, "signalled": signalled, "listed": listed,
            "there": [os.path.exists(place) for place in known["places"]]}
""",
        task_id=task,
    )
    assert disarmed
    assert told.pop("listed") in ([], ["code", "images", "run", "sdk", "work"])
    assert [path for path in told.pop("found") if not path.endswith("/inputs.pb")] == []
    assert told == {"taken": [], "pids": 1, "opened": [], "signalled": [], "there": [False, False]}
    assert victim.released()["kept"] == f"{victim.canary}-memory"


def test_t04_a_place_copied_elsewhere_is_worth_nothing(victim: Victim) -> None:
    """Alice's socket, named exactly: not there for bob's task, refused from outside by the kernel's word."""
    told = attack(
        victim,
        SOCKET
        + """
def main():
    tries = []
    for path in (victim["socket"], "/proc/1/root" + victim["socket"], f"/proc/{victim['host_pid']}/root"
                 + victim["socket"]):
        try:
            tries.append(ask(path, "/api/v1/whoami")[:3])
        except OSError as error:
            tries.append(type(error).__name__)
    os.environ["FLYTE_AGENT_SOCKET"] = victim["socket"]
    return tries
""",
    )
    assert set(told) <= {"FileNotFoundError", "PermissionError", "NotADirectoryError"}
    with sockets.socket(sockets.AF_UNIX) as link:
        link.settimeout(120)
        link.connect(victim.places["socket"])  # as root on the machine, which no task is
        link.sendall(b"GET /api/v1/whoami HTTP/1.1\r\nhost: x\r\nx-flyte-agent: 1\r\n\r\n")
        assert link.recv(100).startswith(b"HTTP/1.1 403")


ORPHAN = (
    SOCKET
    + """
import sys
def main():
    tester = socket.create_connection(("127.0.0.1", TESTER))
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(reader)
        tester.sendall(b"orphan\\n")
        os.write(writer, b"x")
        while tester.recv(1):
            try:
                tester.sendall(ask(agent, "/api/v1/whoami")[:3].encode() + b"\\n")
            except OSError as error:
                tester.sendall(type(error).__name__.encode() + b"\\n")
        os._exit(0)
    os.wait()
    os.read(reader, 1)
    tester.close()
    END
"""
)


def orphan(lab: Lab, end: str) -> tuple[sockets.socket, str]:
    """Bob's task that leaves a process behind and ends as told: the link to that process, and the run."""
    listener = sockets.create_server(("127.0.0.1", 0))
    with listener:
        code = ORPHAN.replace("END", end).replace("TESTER", str(listener.getsockname()[1]))
        started = lab.start("bob", code)
        listener.settimeout(60)
        link, _ = listener.accept()
    link.settimeout(60)
    assert link.recv(100) == b"orphan\n"
    return link, runs.CreateRunResponse.FromString(started.content).run.action.id.run.name


@pytest.mark.parametrize("end", ["return 1", "raise ValueError", "os._exit(3)", "os.abort()"])
def test_t05_nothing_outlives_the_attempt(isolated: Lab, end: str) -> None:
    """A daemon that has left session and parents ends with the attempt, however that ends."""
    link, run = orphan(isolated, end)
    with link:
        assert closed(link)
    isolated.wait("bob", run)


def test_t05_nothing_outlives_an_abort(isolated: Lab) -> None:
    """Neither the attempt nor what it left behind answers after the abort was acknowledged."""
    link, run = orphan(isolated, "import threading; threading.Event().wait()")
    with link:
        link.sendall(b"x")
        assert link.recv(100) == b"200\n"
        request = runs.AbortRunRequest()
        request.run_id.project, request.run_id.domain, request.run_id.name = PROJECT, DOMAIN, run
        assert isolated.rpc("bob", "workflow.RunService/AbortRun", request).status_code == 200
        try:
            link.sendall(b"x")
            answer = link.recv(100)
        except ConnectionError:
            answer = b""
        assert not answer.startswith(b"200")
        assert closed(link)


def test_t08_only_the_platforms_client_is_answered(isolated: Lab) -> None:
    """Inside the attempt itself: a fetcher without the header, as a redirect would lead it, gets nothing."""
    told = isolated.inside_task(
        "bob",
        SOCKET
        + """
def raw(text):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(agent)
        link.sendall(text)
        return link.recv(200).decode(errors="replace").split("\\r\\n")[0]
def main():
    return {
        "plain": raw(b"GET /api/v1/whoami HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n"),
        "browser": raw(b"GET /api/v1/whoami HTTP/1.1\\r\\nhost: x\\r\\norigin: http://evil\\r\\n\\r\\n"),
        "odd": raw(b"GET /api/v1/whoami HTTP/1.1\\r\\nhost: x\\r\\nx-flyte-agent: 2\\r\\n\\r\\n"),
        "twice": raw(b"GET / HTTP/1.1\\r\\nhost: x\\r\\n" + b"x-flyte-agent: 1\\r\\n" * 2 + b"\\r\\n"),
        "redirect": ask(agent, "/api/v1/absent").split()[0],
    }
""",
    )
    assert {told[name] for name in ("plain", "browser", "odd", "twice")} == {"HTTP/1.1 403 Forbidden"}
    assert told["redirect"] == "404"


def test_t08_an_app_leads_tower_to_no_other_socket(isolated: Lab) -> None:
    """What an app puts in the place of its own socket: Tower goes on to the socket that answered first."""
    code = """
import os
def main():
    path = os.environ["FLYTE_APP_SOCKET"]
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(path))))
    os.rename(path, path + ".old")
    os.symlink(home + "/admin.sock", path)
    return os.readlink(path)
"""
    led = isolated.inside_app("mallory", code, name="other")
    assert led == str(isolated.tower.home / "admin.sock")
    answer = isolated.app("mallory", "GET", "/api/v1/users", name="other", headers={"x-flyte-agent": "1"})
    assert "alice" not in answer.text
    isolated.inside_app(
        "mallory",
        """
import os
def main():
    path = os.environ["FLYTE_APP_SOCKET"]
    os.unlink(path)
    os.rename(path + ".old", path)
""",
        name="other",
    )


def test_t30_a_warm_worker_keeps_nothing(isolated: Lab) -> None:
    """Ten attempts of two people in turn on one template: each finds it as the first one did."""
    code = """
import os, sys, tempfile, threading, builtins
def main():
    ahead = sys.path[0]
    found = [getattr(sys, "TRACE", ""), os.environ.get("TRACE", ""), getattr(builtins, "TRACE", "")]
    for folder in (os.getcwd(), "/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir()):
        found += [name for name in os.listdir(folder) if name.startswith("trace")]
        with open(folder + "/trace", "w") as file:
            file.write(WHO)
    sys.TRACE = builtins.TRACE = os.environ["TRACE"] = WHO
    sys.path.insert(0, "/tmp")
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    os.umask(0)
    import flyte
    return {"found": [each for each in found if each], "path": ahead != "/tmp",
            "who": __import__("json").loads(os.environ["FLYTE_ATTEMPT_FACTS"])["subject"]}
"""
    for turn in range(10):
        who = ("alice", "bob")[turn % 2]
        told = isolated.inside_task(who, f"WHO = {who!r}\n{code}")
        assert told == {"found": [], "path": True, "who": who}


def test_t32_planted_secrets_are_found_nowhere(victim: Victim) -> None:
    """While an attempt runs: arguments, environments, disk, database, logs, outputs, images, crash dumps."""
    lab, tower = victim.lab, victim.lab.tower
    give_password(tower, "alice")
    link = tower.tower("users", "link", "alice").out.strip()
    session = lab.client.get(link).cookies["tower_session"]
    lab.client.cookies.clear()
    token = lab.inside_app("alice", "def main(): return request.headers['authorization'].split()[1]")
    lab.wait("bob", _failed(lab))
    planted = {f"the key of {who}": key.split("_", 2)[2] for who, key in tower.keys.items()}
    planted |= {
        "the administrator's key": lab.admin_key.split("_", 2)[2],
        "a password": PASSWORD,
        "a link": link.rpartition("/")[2],
        "a session": session,
        "an app's token": token.rpartition(".")[2],
        "the signing key": (tower.home / "signing.key").read_text().splitlines()[1],
        "the sealing key": (tower.home / "secrets.key").read_text().strip()[-24:],
    }
    own = {tower.home / name for name in ("admin-key", "signing.key", "secrets.key")}
    own |= set((tower.home / "signing-keys").iterdir())
    files = [path for path in below(tower.home) if path not in own]
    files.append(tower.home.parent / f"{tower.home.name}.log")
    rooms = {path.relative_to(tower.home).parts[0] for path in files[:-1]}
    assert {"code", "images", "logs", "sdk", "tower.db", "work"} <= rooms
    assert not [path for path in files if re.fullmatch(r"core(\.\d+)?", path.name)]
    texts = family(tower.process.pid)
    for path in files:
        with suppress(FileNotFoundError):  # a room of a run that has ended meanwhile
            texts[str(path)] = path.read_bytes()
    found = [
        (what, place)
        for what, canary in planted.items()
        for place, text in texts.items()
        if canary.encode() in text
    ]
    assert found == []


def _failed(lab: Lab) -> str:
    """A run that ends with the longest error that there is, and by no signal that leaves a core."""
    started = lab.start("bob", "import os\ndef main(): raise ValueError(dict(os.environ), globals())")
    return runs.CreateRunResponse.FromString(started.content).run.action.id.run.name


def family(root: int) -> dict[str, bytes]:
    """Arguments and environment of a process and of all that grew out of it, as the machine shows them."""
    members, texts = {root}, {}
    for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            if int(path.name) == root or template_of(int(path.name)) in members:
                members.add(int(path.name))
                texts |= {f"{path}/{name}": (path / name).read_bytes() for name in ("cmdline", "environ")}
        except OSError:
            continue
    assert len(texts) > 6
    return texts


def test_t33_no_specification_of_a_process_holds_a_secret(victim: Victim) -> None:
    """What describes a process has no credential: arguments, environment, the stored task, the run's row."""
    tower = victim.lab.tower
    secrets = [victim.lab.admin_key.split("_", 2)[2], *(key.split("_", 2)[2] for key in tower.keys.values())]
    texts = family(tower.process.pid)
    with sqlite3.connect(f"file:{tower.home / 'tower.db'}?mode=ro", uri=True) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        texts |= {
            name: repr(database.execute(f"select * from {name}").fetchall()).encode() for name in tables
        }
    found = [place for place, text in texts.items() for secret in secrets if secret.encode() in text]
    assert found == []


def test_the_ordinary_works_inside(isolated: Lab) -> None:
    """Subprocesses, threads, multiprocessing, temporary files, names, certificates: all of it goes on."""
    told = isolated.inside_task(
        "alice",
        """
import asyncio, concurrent.futures, multiprocessing, os, pwd, socket, ssl, subprocess, sys, tempfile
def double(x):
    return 2 * x
async def main():
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        pooled = pool.map(abs, [-2, -4])
    queue = context.Queue()
    queue.put(1)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        threaded = list(threads.map(double, [3]))
    shell = await asyncio.create_subprocess_shell("echo $((6 * 7))", stdout=asyncio.subprocess.PIPE)
    said, _ = await shell.communicate()
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=100)
    memory.close(); memory.unlink()
    pair = os.openpty()
    return {
        "pooled": pooled, "threaded": threaded, "said": said.decode().strip(), "queue": queue.get(),
        "python": subprocess.run([sys.executable, "-c", "import fastapi, flyte; print('in')"],
                                 capture_output=True, text=True).stdout.strip(),
        "names": socket.gethostbyname("localhost"),
        "certificates": ssl.create_default_context().cert_store_stats()["x509_ca"] > 0,
        "home": os.path.expanduser("~") != "", "cwd": os.getcwd() == os.path.realpath("/proc/self/cwd"),
        "null": open(os.devnull).read(), "terminal": os.isatty(pair[1]), "cpus": os.cpu_count() > 0,
    }
""",
    )
    certificates = told.pop("certificates")
    assert certificates or not Path("/etc/ssl/certs/ca-certificates.crt").exists()
    assert told == {
        "pooled": [2, 4],
        "threaded": [6],
        "said": "42",
        "queue": 1,
        "python": "in",
        "names": "127.0.0.1",
        "home": True,
        "cwd": True,
        "null": "",
        "terminal": True,
        "cpus": True,
    }

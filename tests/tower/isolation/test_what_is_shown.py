"""What a program sees that the launcher starts: what it was shown, read-only or to write, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tower.executors.process import isolation
from tower.executors.process.isolation import Isolation, Mode, Wanted, choose, interpreter
from tower.executors.process.sandbox import kernel, world

LAUNCHER = Path(isolation.__file__).with_name("launch.py")
PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(scope="module")
def apart() -> Isolation:
    found, why = choose(Wanted.PREFERRED)
    if not found.mode.namespaces:
        pytest.skip(f"this machine does not isolate: {why}")
    return found


def ran(
    apart: Isolation,
    code: str,
    *,
    read: list[Path] | None = None,
    write: list[Path] | None = None,
    temporary: Path | None = None,
    given: bytes = b"",
    links: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run code of Python's in a sandbox."""
    user = apart.user()
    for path in write or []:
        if user is not None:
            os.chown(path, user, user)
    shown = apart.program(
        read=[*interpreter(Path(sys.executable)), *(read or [])],
        write=write or [],
        directory=Path("/"),
        user=user,
        temporary=temporary,
        links=links or {},
    )
    assert shown is not None
    plan = json.dumps({"parent": os.getpid(), "sandbox": shown.json()})
    command = [sys.executable, "-I", "-S", LAUNCHER, plan, PYTHON, "-I", "-c", code]
    return subprocess.run(command, input=given, capture_output=True, timeout=60, check=False, env={})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        assert folder != Path("/tmp")
    tmp_path.chmod(0o755)
    return tmp_path


def test_files_are_read_and_written_as_they_were_shown(apart: Isolation, place: Path) -> None:
    for name in ("shown", "own", "other"):
        (place / name).mkdir(mode=0o755)
        (place / name / "file").write_text(name)
        (place / name / "file").chmod(0o644)
    done = ran(
        apart,
        f"""
import os
place = {str(place)!r}
print(sorted(os.listdir(place)), open(place + "/shown/file").read())
open(place + "/own/new", "w").write("made")
for path in ("/shown/new", "/new", "/shown/file"):
    try:
        open(place + path, "w")
        print("written", path)
    except OSError as error:
        print(error.errno)
""",
        read=[place / "shown"],
        write=[place / "own"],
    )
    assert done.stdout.decode().split("\n")[0] == "['own', 'shown'] shown", done.stderr
    assert "written /shown" not in done.stdout.decode()
    assert (place / "own" / "new").read_text() == "made"
    assert not (place / "new").exists()
    assert (place / "shown" / "file").read_text() == "shown"


def test_what_is_hidden_stays_hidden_below_what_is_shown(apart: Isolation, place: Path) -> None:
    home = place / "tower"
    (home / "code").mkdir(parents=True)
    (home / "key").write_text("secret")
    (home / "code" / "module.py").write_text("x = 1")
    for path in (home, home / "code"):
        path.chmod(0o755)
    code = f"""
import os
home = {str(home)!r}
print(sorted(os.listdir(home)), os.path.exists(home + "/key"), os.path.exists(home + "/code/module.py"))
"""
    system = isolation._SYSTEM
    try:
        isolation._SYSTEM = (*system, str(place))
        done = ran(Isolation(mode=apart.mode, hidden=(home,), root=apart.root), code, read=[home / "code"])
    finally:
        isolation._SYSTEM = system
    assert done.stdout.decode().strip() == "['code'] False True", done.stderr


def test_links_are_shown_beside_what_the_machine_has(apart: Isolation) -> None:
    """In folders of the system, which stay as they are: nothing there can be written or is covered."""
    inside = """
import json, os, stat
def look(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        facts = os.lstat(f"{folder}/{name}")
        link = os.readlink(f"{folder}/{name}") if stat.S_ISLNK(facts.st_mode) else ""
        found[name] = [stat.S_IFMT(facts.st_mode), 0 if link else facts.st_size, link]
    return found
def refused(path):
    try:
        open(path, "w")
    except OSError as error:
        return type(error).__name__
os.mkdir("/dev/shm/place")
open("/dev/shm/place/file", "w").write("there")
open("/etc/of-nobody/files/more", "w").write("more")
print(json.dumps([
    look("/etc"),
    open("/etc/of-nobody/files/file").read() + open("/dev/shm/place/more").read(),
    [refused(path) for path in ("/etc/new", "/etc/of-nobody/new", "/etc/hosts", "/etc/passwd")],
    os.path.islink("/etc/passwd"), open("/etc/passwd").read() == PASSWD,
]))
"""
    code = inside.replace("PASSWD", repr(Path("/etc/passwd").read_text()))
    links = {"/etc/of-nobody/files": "/dev/shm/place", "/etc/passwd": "/dev/shm/place"}
    done = ran(apart, code, links=links)
    assert done.stderr == b""
    seen, text, refused, passwd_is_link, same = json.loads(done.stdout)
    assert seen.pop("of-nobody")[2] == ""
    without = ran(apart, inside.partition("os.mkdir")[0] + 'print(json.dumps(look("/etc")))')
    assert seen == json.loads(without.stdout), "the folder is another one"
    assert text == "theremore"
    assert set(refused) <= {"OSError", "PermissionError"}
    assert (passwd_is_link, same) == (False, True)


def test_links_on_the_way_are_shown_as_links(apart: Isolation, place: Path) -> None:
    (place / "real").mkdir(mode=0o755)
    (place / "real" / "file").write_text("there")
    (place / "real" / "file").chmod(0o644)
    (place / "link").symlink_to("real")
    (place / "again").symlink_to(place / "link")
    done = ran(
        apart,
        f"import os; p = {str(place)!r}; print(open(p + '/again/file').read(), os.readlink(p + '/again'))",
        read=[place / "again"],
    )
    assert done.stdout.decode().split() == ["there", str(place / "link")], done.stderr


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 15)", -15)]
)
def test_the_launcher_ends_as_the_program_does(apart: Isolation, code: str, expected: int) -> None:
    assert ran(apart, code).returncode == expected


def test_standard_input_and_output_go_through(apart: Isolation) -> None:
    done = ran(
        apart, "import sys; print(sys.stdin.read()[::-1]); print('err', file=sys.stderr)", given=b"abc"
    )
    assert (done.stdout, done.stderr) == (b"cba\n", b"err\n")


def test_a_program_that_is_not_there_is_told(apart: Isolation, place: Path) -> None:
    shown = apart.program(read=[], write=[], directory=Path("/"), user=apart.user())
    assert shown is not None
    plan = json.dumps({"parent": os.getpid(), "sandbox": shown.json()})
    command = [sys.executable, "-I", "-S", LAUNCHER, plan, str(place / "absent")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={})
    assert (done.returncode, done.stderr) == (126, "cannot start absent: No such file or directory\n")


def test_what_it_must_read_and_is_not_there_stops_the_start(apart: Isolation, place: Path) -> None:
    done = ran(apart, "print('started')", read=[place / "absent"])
    assert done.returncode == 126
    assert done.stdout == b""


def test_landlock_alone_hides_files_too(place: Path) -> None:
    alone = Isolation(mode=Mode.LANDLOCK)
    if isolation.attempt(alone):
        pytest.skip("this kernel has no Landlock")
    (place / "secret").write_text("secret")
    (place / "own").mkdir()
    code = f"""
import os, sys
place = {str(place)!r}
for path in (place + "/secret", "/proc/{os.getpid()}/environ", "/proc/{os.getpid()}/mem"):
    try:
        open(path, "rb").read(1)
        print("read", path)
    except OSError as error:
        print(type(error).__name__)
open(place + "/own/new", "w").close()
"""
    done = ran(alone, code, write=[place / "own"])
    assert done.stdout.decode().split() == ["PermissionError"] * 3, done.stderr
    assert (place / "own" / "new").exists()


FILL = """
import errno, os, sys
for path in sys.argv[1:]:
    told = os.statvfs(path)
    made = 0
    try:
        with open(path + "/filled", "wb", buffering=0) as file:
            for _ in range(64):
                made += file.write(bytes(1 << 20))
        print("no end")
    except OSError as error:
        print(errno.errorcode[error.errno], made >> 20, told.f_blocks * told.f_frsize >> 20)
    os.unlink(path + "/filled")
    try:
        for number in range(100_000):
            os.close(os.open(f"{path}/{number}", os.O_CREAT | os.O_WRONLY))
        print("no end")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize(("limit", "most"), [(8 << 20, 8), (1, 1)])
def test_no_folder_in_memory_takes_more_than_the_limit(apart: Isolation, limit: int, most: int) -> None:
    shown = apart.program(
        read=interpreter(Path(sys.executable)), write=[], directory=Path("/"), user=apart.user(), memory=limit
    )
    assert shown is not None
    plan = json.dumps({"parent": os.getpid(), "sandbox": shown.json()})
    command = [sys.executable, "-I", "-S", LAUNCHER, plan, PYTHON, "-I", "-c", FILL]
    done = subprocess.run(
        [*command, "/dev/shm", "/tmp", "/var/tmp"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={},
    )
    assert done.stdout.splitlines() == [f"ENOSPC {most} {most}", "ENOSPC"] * 3, done.stderr


def test_a_child_of_a_template_has_its_own_limit_in_memory(apart: Isolation, place: Path) -> None:
    """As a template does it: the world of many attempts first, then that of one, with a limit of its own."""
    own = place / "pool" / "own"
    own.mkdir(parents=True)
    user = apart.user()
    template = apart.program(
        read=[isolation.SANDBOX, *interpreter(Path(sys.executable))],
        write=[own.parent],
        directory=Path("/"),
        user=user,
        parent=True,
    )
    assert template is not None
    narrowed = apart.attempt(template, own=[own], temporary=Path("/tmp/none"), memory=8 << 20)
    if user is not None:
        os.chown(own, user, user)
    code = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("sandbox", {str(isolation.SANDBOX_SCRIPT)!r})
sandbox = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sandbox)
pid = sandbox.fork()
if pid == 0:
    try:
        sandbox.first()
        sandbox.close({narrowed!r})
        sys.argv = ["-c", "/dev/shm", "/tmp"]
        exec({FILL!r})
        sys.stdout.flush()
    finally:
        sys.stderr.flush()
        os._exit(0)
os.waitpid(pid, 0)
"""
    plan = json.dumps({"parent": os.getpid(), "sandbox": template.json()})
    command = [sys.executable, "-I", "-S", LAUNCHER, plan, PYTHON, "-I", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={})
    assert done.stdout.splitlines() == ["ENOSPC 8 8", "ENOSPC"] * 2, done.stderr


def test_without_a_limit_memory_is_a_part_of_the_machines(apart: Isolation) -> None:
    shown = apart.program(read=[], write=[], directory=Path("/"), user=None)
    assert shown is not None
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < shown.memory <= min(machine // 4, 2 << 30)


class Deaf:
    """A C library that says that all went well, and did nothing."""

    def mount(self, *_: object) -> int:
        return 0

    def pivot_root(self, *_: object) -> int:
        return 0


def test_nothing_is_made_in_the_machines_own_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a mount ever fail without saying so, the building ends before there is anything in /dev."""
    made: list[str] = []
    stat = os.stat
    monkeypatch.setattr(kernel, "LIBC", Deaf())
    monkeypatch.setattr(os, "mkdir", lambda path, *_, **__: made.append(str(path)))
    monkeypatch.setattr(os, "symlink", lambda _, path: made.append(str(path)))
    monkeypatch.setattr(os, "stat", lambda path, **more: stat("/" if path == world.OLD else path, **more))
    here = os.getcwd()
    try:
        with pytest.raises(OSError, match="new root is not in place"):
            world.Root()
        assert [path for path in made if not path.startswith("/tmp/")] == []
        root = object.__new__(world.Root)
        monkeypatch.setattr(world, "OLD", "")
        for folder in ("/dev", "/etc"):
            with pytest.raises(OSError, match="new root is not in place"):
                root._link(".", f"{folder}/null")
    finally:
        os.chdir(here)
    assert [path for path in made if not path.startswith("/tmp/")] == []

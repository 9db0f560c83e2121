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

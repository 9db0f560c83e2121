"""How the best isolation of a machine is found: by trying, as an ordinary user too, and with less allowed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tower
from tower.errors import Invalid, Precondition
from tower.executors.process import isolation
from tower.executors.process.isolation import Isolation, Mode, Wanted, attempt, choose, interpreter
from tower.settings import Settings

SOURCE = Path(tower.__file__).parents[1]
LAUNCHER = Path(isolation.__file__).with_name("launch.py")
USER = 1_999_999_999
CHOOSE = """
import os, sys
from tower.errors import Precondition
from tower.executors.process.isolation import Wanted, choose
found, why = choose(Wanted.PREFERRED)
try:
    choose(Wanted.REQUIRED)
    required = "starts"
except Precondition as refused:
    required = refused.message
print(os.geteuid(), found, found.user(), required, sep="|")
"""


def inside(*, namespaces_allowed: bool) -> list[str]:
    """What an ordinary user without privileges finds on a machine, with or without user namespaces."""
    best, why = choose(Wanted.PREFERRED)
    if not best.mode.namespaces:
        pytest.skip(f"this machine does not isolate: {why}")
    user = USER if os.geteuid() == 0 else None
    shown = Isolation(mode=Mode.NAMESPACES).program(
        read=[Path(sys.prefix), Path(sys.executable), *interpreter(Path(sys.executable)), SOURCE],
        write=[],
        directory=Path("/"),
        user=user,
        parent=namespaces_allowed,  # what has no children that close themselves off is allowed none
    )
    assert shown is not None
    plan = json.dumps({"parent": os.getpid(), "sandbox": shown.json()})
    done = subprocess.run(
        [sys.executable, "-I", "-S", LAUNCHER, plan, sys.executable, "-c", CHOOSE],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


def test_an_ordinary_user_isolates_as_well_as_root_does() -> None:
    who, mode, user, required = inside(namespaces_allowed=True)
    assert int(who) != 0
    assert (mode, user, required) == (str(choose(Wanted.PREFERRED)[0]), "None", "starts")


def test_without_user_namespaces_landlock_is_left_and_required_refuses() -> None:
    who, mode, _, required = inside(namespaces_allowed=False)
    assert int(who) != 0
    assert mode.removesuffix("+seccomp") in ("landlock", "none")
    assert required == "This machine cannot isolate tasks from each other as it is required to."


def test_the_ladder_goes_down_to_nothing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Mode] = []

    def fail(tried_with: Isolation) -> str:
        tried.append(tried_with.mode)
        return f"{tried_with.mode.value} fails"

    monkeypatch.setattr(isolation, "attempt", fail)
    found, why = choose(Wanted.PREFERRED)
    assert (found.mode, why) == (Mode.NONE, "namespaces+landlock fails")
    assert tried == [Mode.FULL, Mode.NAMESPACES, Mode.LANDLOCK]
    with pytest.raises(Precondition, match="as it is required to"):
        choose(Wanted.REQUIRED)


@pytest.mark.parametrize("wanted", [Wanted.PREFERRED, Wanted.REQUIRED])
@pytest.mark.parametrize(
    "trouble", [subprocess.TimeoutExpired("trial", 60), OSError(24, "Too many open files")]
)
def test_a_busy_moment_does_not_choose_less(
    trouble: Exception, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr(isolation.subprocess, "run", busy)
    with pytest.raises(Precondition, match="could not be found out") as refused:
        choose(wanted)
    assert refused.value.cause == str(trouble)


def test_switched_off_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "attempt", lambda _: pytest.fail("tried"))
    found, why = choose(Wanted.OFF)
    assert (found.mode, why) == (Mode.NONE, "it was switched off")
    shown = found.program(read=[], write=[], directory=Path("/"), user=found.user())
    assert shown is None
    assert found.attempt(shown, own=[], temporary=Path("/x")) is None


def test_where_tower_is_root_each_process_is_somebody_else() -> None:
    apart = Isolation(mode=Mode.FULL, root=True)
    users = [apart.user() for _ in range(3)]
    assert len(set(users)) == 3
    assert None not in users
    assert 0 not in users
    assert Isolation(mode=Mode.FULL, root=False).user() is None


def test_a_root_who_is_alone_in_its_namespace_goes_down_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(isolation.os, "chown", refuse)
    apart = Isolation(mode=Mode.FULL, root=True)
    assert re.fullmatch(r"processes cannot be the user \d+: Invalid argument", attempt(apart))


def test_a_child_keeps_only_what_is_its_own() -> None:
    apart = Isolation(mode=Mode.FULL, visible=(Path("/data"),), root=False)
    template = apart.program(
        read=[Path("/srv/t/images/i"), Path("/tmp/code"), None],
        write=[Path("/srv/t/work/r")],
        directory=Path("/"),
        user=None,
        parent=True,
    )
    assert template is not None
    assert template.read == ("/data", "/srv/t/images/i", "/tmp/code")
    own = Path("/srv/t/work/r/mine")
    plan = apart.attempt(template, own=[own, own], temporary=own / "tmp")
    assert plan is not None
    assert plan["private"] == plan["write"] == [str(own)]
    assert plan["kept"] == ["/tmp/code"]
    assert plan["temporary"] == "/srv/t/work/r/mine/tmp"


def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="required, preferred, off"):
        Settings(home=tmp_path, isolation="perhaps").validate()


def test_a_trial_that_ends_without_a_word_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was killed has not seen whether it is apart."""
    killed = subprocess.CompletedProcess([], returncode=-9, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    assert "-9" in attempt(Isolation(mode=Mode.NAMESPACES))

"""Every door of the kernel that we know of, tried by one person's task on another's, an app and Tower.

In each way that Tower keeps processes apart: the best that this machine can do, and what is left on machines
that lack one thing of it. What is out of reach is so in all of them, unless the guide says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import lesser
from tests.threats.conftest import furnished, opened
from tests.threats.victim import Victim, above, waiting
from tests.tower_process import Tower

from tower.executors.process.isolation import Wanted, choose

DOORS = (Path(__file__).parent / "lab" / "doors.py").read_text()

WAYS = {
    "namespaces+landlock+seccomp": "",
    "namespaces+landlock": "seccomp",
    "namespaces+seccomp": "landlock",
    "landlock+seccomp": "namespaces",
}
"""How processes are kept apart, and what the machine lacks then."""

ATTACKS = (
    "keyrings",
    "ring",
    "handles",
    "processes",
    "signals",
    "limits",
    "terminals",
    "kernel",
    "queues",
    "sockets",
    "settings",
    "files",
    "attributes",
    "namespaces",
    "cores",
    "modes",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """Alice's attempt, while it waits, and what bob knows."""

    victim: Victim
    known: dict[str, Any]

    def attack(self, name: str, who: str = "bob") -> Any:
        """What bob's task got."""
        code = f"{DOORS}\nKNOWN.update({self.known!r})\ndef main(): return everything({name!r})\n"
        return self.victim.lab.inside_task(who, code)


@pytest.fixture(
    scope="module",
    params=[pytest.param(way, marks=pytest.mark.xdist_group(f"doors-{way}")) for way in WAYS],
)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    way: str = request.param
    best, why = choose(Wanted.PREFERRED)
    if str(best) != next(iter(WAYS)):
        pytest.skip(f"this machine does not isolate as well as others: {why}")
    home = tmp_path_factory.mktemp("doors") / "home"
    with Tower.started(home, before=lesser.command(WAYS[way])) as tower:
        assert f'"mode": "{way}"' in tower.log
        tower.add_people()
        for plain in opened(tower):
            lab = furnished(plain, tmp_path_factory.mktemp("lab"))
            with waiting(lab, env=False) as victim:
                yield Scene(victim, knowledge(victim, way))


def knowledge(victim: Victim, way: str) -> dict[str, Any]:
    """What bob could learn somewhere, and more."""
    lab, home = victim.lab, victim.lab.tower.home
    socket = lab.inside_app("alice", "import os\ndef main(): return os.environ['FLYTE_APP_SOCKET']")
    files = [
        *(home / name for name in ("signing.key", "secrets.key", "tower.db", "tower.db-wal", "admin-key")),
        Path(victim.places["cwd"]) / victim.planted,
        Path(victim.places["cwd"]) / "inputs.pb",
        lab.tower.home.parent / f"{lab.tower.home.name}.log",
        Path("/etc/shadow"),
        Path("/root/.bashrc"),
    ]
    return {
        "canary": victim.canary,
        "planted": victim.planted,
        "number": victim.number,
        "pids": [victim.host_pid, lab.tower.process.pid, *above(victim.host_pid), *served(socket)],
        "sockets": [victim.places["socket"], str(home / "admin.sock"), socket],
        "files": [str(path) for path in files],
        "device": os.stat(home).st_dev,
        "inodes": [os.stat(home).st_ino, os.stat(home / "signing.key").st_ino],
        "segment": victim.places["segment"],
        "filtered": "seccomp" in way,
        # where nothing but a list of paths keeps them apart, names can be seen
        "listed": "namespaces" not in way,
    }


def served(socket: str) -> list[int]:
    """The processes of the app."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if (
                b"flyte.runtime.serve" in path.read_bytes()
                and socket.encode() in (path.parent / "environ").read_bytes()
            ):
                found.append(int(path.parent.name))
        except OSError:
            continue
    assert found
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_neighbour_gets_nothing_by(attack: str, scene: Scene) -> None:
    if attack == "attributes" and scene.known["listed"]:
        pytest.skip("Landlock has no word for that, as SECURITY.md says")
    assert scene.attack(attack) == []


def test_the_victim_noticed_nothing(scene: Scene) -> None:
    """After all of it: no signal, no key gone, and Tower answers as before."""
    folders = {Path(path).parent for path in scene.known["files"]}
    assert not any(os.path.exists(folder / "planted-by-bob") for folder in folders)
    report = scene.victim.released()
    assert report["heard"] == []
    assert report["kept"] == f"{scene.victim.canary}-memory"
    assert set(report["planted"]) == {scene.victim.canary}
    assert scene.victim.lab.rest("alice", "GET", "/whoami").status_code == 200

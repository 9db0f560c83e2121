"""Person, app, run, sub-runs: proved from an exported file on a machine without Tower's home (T44)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.threats.conftest import DOMAIN, PROJECT, Lab
from tests.tower_process import Finished

pytestmark = pytest.mark.xdist_group("threats")

OUTER = """
import flyte, flyte.remote as remote
async def main():
    inner = "def main(): return 1"
    run = await flyte.run.aio(remote.Task.get(name="lab.attack"), code=inner)
    await run.wait.aio()
    return run.name
"""
IN_APP = f"""
import flyte, flyte.remote as remote
async def main():
    run = await flyte.run.aio(remote.Task.get(name="lab.attack"), code={OUTER!r})
    await run.wait.aio()
    return run.name
"""


@pytest.fixture(scope="module")
def exported(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A run of alice's through an app, which asked for another; the trail and the public key, elsewhere."""
    name = lab.inside_app("alice", IN_APP)
    lab.wait("alice", name)
    folder = tmp_path_factory.mktemp("elsewhere")
    lab.tower.flyte("get", "audit", "--export", str(folder / "trail.jsonl"), user=lab.admin_key)
    (folder / "installation.pem").write_text(lab.tower.tower("audit", "key").out)
    return name, folder


def _verify(lab: Lab, folder: Path, name: str, *options: str) -> Finished:
    """`tower audit verify` without a home."""
    asked = ("--file", str(folder / "trail.jsonl"), "--key", str(folder / "installation.pem"), "--run", name)
    home = {"TOWER_HOME": str(folder / "no-home-here")}
    return lab.tower._run("tower", ("audit", "verify", *asked, *options), home, check=False)


def test_the_whole_chain_is_printed_and_verified_offline(lab: Lab, exported: tuple[str, Path]) -> None:
    name, folder = exported
    done = _verify(lab, folder, name, "-o", "json")
    assert done.status == 0, done.err
    said: Any = done.json()
    assert said["whole"] is True
    run, chain = said["run"], said["run"]["chain"]
    assert (run["run"], run["signed"], run["problems"]) == (f"{PROJECT}/{DOMAIN}/{name}", True, [])
    app = f"{PROJECT}/{DOMAIN}/probe"
    assert (chain["person"], chain["credential_kind"], chain["app"]) == ("alice", "app_token", app)
    assert chain["actors"] == [f"app:{app}"]
    assert chain["task"] == f"task:{PROJECT}/{DOMAIN}/lab.attack"
    assert chain["allowed_by"]
    assert chain["policy_revision"]
    assert len(chain["code_digest"]) == len(chain["inputs"]) == 64
    assert chain["end"]["outcome"] == "allowed"
    [below] = chain["below"]
    assert (below["person"], below["app"], below["signed"]) == ("alice", app, True)
    assert below["actors"] == [f"app:{app}", f"run:{PROJECT}/{DOMAIN}/{name}/a0/1"]
    assert below["credential_id"] == chain["credential_id"]
    assert below["below"] == []

    for_people = _verify(lab, folder, f"{PROJECT}/{DOMAIN}/{name}")
    assert for_people.status == 0
    for word in ("alice", app, "app token", chain["credential_id"], chain["inputs"], "policy revision"):
        assert word in for_people.out
    at_home = lab.tower.tower("audit", "verify", "--run", name, "-o", "json").json()
    assert at_home["run"]["chain"] == chain  # type: ignore[index, call-overload]


def _edit(lines: list[dict[str, Any]], place: int) -> None:
    lines[place]["subject"] = "bob"


def _delete(lines: list[dict[str, Any]], place: int) -> None:
    del lines[place]


def _reorder(lines: list[dict[str, Any]], place: int) -> None:
    other = next(n for n in range(place + 1, len(lines)) if lines[n]["type"] == "record")
    lines[place], lines[other] = lines[other], lines[place]


def _sign_away(lines: list[dict[str, Any]], place: int) -> None:
    """Take the person's name out and make all later hashes anew; the signatures are as they were."""
    from tower.audit import Entry

    lines[place]["subject"] = "bob"
    previous = lines[place]["previous"]
    for line in lines[place:]:
        if line["type"] == "record":
            values = {key: value for key, value in line.items() if key != "type"} | {"previous": previous}
            line["previous"], line["hash"] = previous, Entry(**values).digest()
            previous = line["hash"]


@pytest.mark.parametrize("damage", [_edit, _delete, _reorder, _sign_away])
def test_t44_any_change_to_a_record_of_the_chain_is_found_and_named(
    lab: Lab, exported: tuple[str, Path], tmp_path: Path, damage: Callable[[list[dict[str, Any]], int], None]
) -> None:
    name, folder = exported
    said: Any = _verify(lab, folder, name, "-o", "json").json()
    chain = said["run"]["chain"]
    for record in (chain["record"], chain["below"][0]["record"], chain["end"]["record"]):
        lines = [json.loads(line) for line in (folder / "trail.jsonl").read_text().splitlines()]
        [place] = [n for n, line in enumerate(lines) if line["type"] == "record" and line["seq"] == record]
        damage(lines, place)
        other = tmp_path / f"{record}"
        other.mkdir()
        shutil.copy(folder / "installation.pem", other)
        (other / "trail.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        done = _verify(lab, other, name)
        assert done.status == 6, (record, done)
        named = int(done.err.partition("record ")[2].partition(":")[0])
        # a chain made anew from a record on is found at the next signature behind it
        assert named >= record if damage is _sign_away else record <= named <= record + 1


def test_a_run_that_nobody_asked_for_and_another_key_are_no_proof(
    lab: Lab, exported: tuple[str, Path], tmp_path: Path
) -> None:
    name, folder = exported
    assert _verify(lab, folder, "r" + "0" * 19).status == 4
    shutil.copy(folder / "trail.jsonl", tmp_path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "installation.pem").write_bytes(
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert _verify(lab, tmp_path, name).status == 6

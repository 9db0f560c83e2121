"""Schedules on a whole Tower whose clock the tests set: days when clocks change, and an owner who leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.altered import Altered
from tests.threats.conftest import DOMAIN, PROJECT, Lab, opened
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("time-passes")

SCOPE = ("--project", PROJECT, "--domain", DOMAIN, "-o", "json")
SECONDS = 90.0
CODE = """
import json
from datetime import datetime

import flyte
import flyte.remote as remote

env = flyte.TaskEnvironment(name="NAME")


@env.task(triggers=[flyte.Trigger("TRIGGER", AUTOMATION, inputs={"at": flyte.TriggerTime})])
async def tick(at: datetime) -> str:
    return json.dumps([at.isoformat(), "WORD", (await remote.User.get.aio()).subject()])
"""


class Clockwork:
    """A Tower, its clock, and schedules in it."""

    def __init__(self, lab: Lab, altered: Altered, folder: Path) -> None:
        self.lab, self.altered, self.folder = lab, altered, folder

    def deploy(self, who: str, name: str, automation: str, *, word: str = "first") -> None:
        """The task NAME.tick with a trigger that is called as the task's environment."""
        text = CODE.replace("NAME", name).replace("TRIGGER", f"of-{name}").replace("WORD", word)
        (self.folder / f"{name}.py").write_text(text.replace("AUTOMATION", automation))
        self.lab.deploy(who, self.folder, "deploy", f"{name}.py", "env")

    def trigger(self, name: str) -> dict[str, Any]:
        asked = ("get", "trigger", f"of-{name}", f"{name}.tick")
        shown = self.lab.tower.flyte(*SCOPE, *asked, user=self.lab.admin_key).json()
        assert isinstance(shown, dict)
        return shown

    def until(self, moment: str) -> None:
        """Let it be this time, and something happen that makes Tower look at its schedules."""
        self.altered.advance(datetime.fromisoformat(moment).timestamp() - time.time() - self.altered.ahead)
        for switch in ("--deactivate", "--activate"):
            self.lab.tower.flyte(
                *SCOPE[:4], "update", "trigger", "of-nudge", "nudge.tick", switch, user="bob"
            )

    def seen(self, name: str, before: dict[str, Any]) -> dict[str, Any]:
        """The trigger, once it is not as it was."""
        deadline = time.monotonic() + SECONDS
        while (now := self.trigger(name)) == before:
            assert time.monotonic() < deadline, now
        return now

    def ran(self, trigger: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The last run of a trigger, ended, and what it answered."""
        name = str(trigger["last_run"]).rpartition("/")[2]
        self.lab.wait("admin", name)
        shown = self.lab.tower.flyte(*SCOPE, "get", "run", name, user=self.lab.admin_key).json()
        assert isinstance(shown, dict)
        assert shown["phase"] == "SUCCEEDED", shown
        return shown, json.loads(shown["outputs"]["o0"])


@pytest.fixture(scope="module")
def clockwork(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clockwork]:
    folder = tmp_path_factory.mktemp("clockwork")
    altered = Altered(folder / "altered")
    altered.advance(datetime(2027, 3, 28, 0, 50, tzinfo=UTC).timestamp() - time.time())
    with Tower.started(folder / "home", before=altered.before) as tower:
        tower.add_people()
        for lab in opened(tower):
            made = Clockwork(lab, altered, folder)
            made.deploy("bob", "nudge", 'flyte.Cron("0 0 1 1 *")')
            yield made


def test_when_clocks_change_and_when_the_owner_leaves(clockwork: Clockwork) -> None:
    """Once on each of these days, in the version that was pinned, and not at all for who lost the right."""
    clockwork.deploy("alice", "daily", 'flyte.Cron("30 2 * * *", timezone="Europe/Berlin")')
    begun = clockwork.trigger("daily")
    assert (begun["state"], begun["owner"]) == ("active", "alice")
    assert _utc(begun["next_at"]) == "2027-03-28T01:00"  # 02:30 is no time on that day: it is 03:00 then

    clockwork.until("2027-03-28T01:00:10+00:00")
    fired = clockwork.seen("daily", begun)
    run, (at, word, who) = clockwork.ran(fired)
    assert (_utc(at), word, who, run["executed_by"]) == ("2027-03-28T01:00", "first", "alice", "alice")
    assert _utc(fired["next_at"]) == "2027-03-29T00:30"

    clockwork.deploy("bob", "daily", 'flyte.Cron("30 2 * * *", timezone="Europe/Berlin")', word="swapped")
    before = clockwork.trigger("daily")
    clockwork.until("2027-10-31T00:30:10+00:00")
    fired = clockwork.seen("daily", before)
    later, (at, word, who) = clockwork.ran(fired)
    assert (_utc(at), word, who) == ("2027-10-31T00:30", "first", "alice")
    assert later["version"] == run["version"]
    assert _utc(fired["next_at"]) == "2027-11-01T01:30"  # not an hour later, when it is 02:30 again

    lab = clockwork.lab
    taken = f"/bindings?user=alice&role=contributor&project={PROJECT}"
    assert lab.rest("admin", "DELETE", taken).status_code == 204
    before = clockwork.trigger("daily")
    clockwork.until("2027-11-01T01:30:10+00:00")
    closed = clockwork.seen("daily", before)
    assert closed["state"] == "suspended"
    assert "alice" in closed["notice"]
    assert closed["last_run"] == fired["last_run"]
    given = {"user": "alice", "role": "contributor", "project": PROJECT}
    assert lab.rest("admin", "POST", "/bindings", given).status_code == 201
    clockwork.until("2027-11-02T01:30:10+00:00")
    assert clockwork.trigger("daily")["last_run"] == fired["last_run"]  # it does not come back by itself


def test_an_interval_of_its_own_start(clockwork: Clockwork) -> None:
    start = datetime.fromtimestamp(time.time() + clockwork.altered.ahead, UTC).replace(microsecond=0)
    clockwork.deploy("alice", "beat", f'flyte.FixedRate(90, start_time=datetime.fromisoformat("{start}"))')
    begun = clockwork.trigger("beat")
    due = datetime.fromisoformat(begun["next_at"])
    clockwork.until(datetime.fromtimestamp(due.timestamp() + 5, UTC).isoformat())
    fired = clockwork.seen("beat", begun)
    _, (at, _, who) = clockwork.ran(fired)
    assert (datetime.fromisoformat(at), who) == (due, "alice")
    assert (datetime.fromisoformat(fired["next_at"]) - due).total_seconds() == 90 * 60


def _utc(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat()[:16]

"""An app that may sleep: its process ends when nobody asks, and only who may use it wakes it (T45)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from flyteidl2.app import app_payload_pb2
from tests.threats.conftest import DOMAIN, PROJECT, Lab
from tests.tower.whole.lobby import APP, Lobby
from tests.tower_process import Tower

from flyte.transport._envelope import Unwrapper, envelope

pytestmark = pytest.mark.xdist_group("seeds")

ASLEEP = "Asleep: the next request wakes it."
URL = f"/apps/{PROJECT}/{DOMAIN}/sleeper/"


def processes(lab: Lab) -> list[str]:
    """The processes of the app, seen from outside."""
    home = str(lab.tower.home).encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"sleeper.py" in words and words[-2].startswith(home):
                found.append(folder.name)
        except OSError:
            continue
    return found


def until(lab: Lab, message: str) -> None:
    """Watch the app until Tower says that of it."""
    asked = app_payload_pb2.WatchRequest()
    asked.app_id.project, asked.app_id.domain, asked.app_id.name = PROJECT, DOMAIN, "sleeper"
    unwrapper = Unwrapper()
    with lab.client.stream(
        "POST",
        "/flyteidl2.app.AppService/Watch",
        content=envelope(asked.SerializeToString()),
        headers={"content-type": "application/connect+proto", **lab.bearer("alice")},
    ) as answer:
        for chunk in answer.iter_bytes():
            for data in unwrapper.feed(chunk):
                app = app_payload_pb2.WatchResponse.FromString(data).update_event.updated_app
                if app.status.conditions[-1].message == message:
                    return
    raise AssertionError("the watch ended")


@pytest.fixture
def lobby() -> Iterator[Lobby]:
    with Lobby.open() as lobby:
        yield lobby


def test_an_app_ends_when_idle_and_wakes_for_who_may_use_it(
    tower: Tower, lobby: Lobby, tmp_path: Path
) -> None:
    (tmp_path / "sleeper.py").write_text(APP.format(port=lobby.port))
    tower.flyte("serve", "sleeper.py", "app_env", cwd=tmp_path)
    with tower.http() as client:
        lab = Lab(tower, client, "")
        lobby.next().gone()
        until(lab, ASLEEP)
        assert processes(lab) == []
        strangers: list[dict[str, str]] = [{}, lab.bearer("twr_no_key"), lab.bearer("dave")]
        refused: list[httpx.Response] = [client.get(URL, headers=each) for each in strangers]
        assert [each.status_code for each in refused] == [401, 401, 404]
        until(lab, ASLEEP)
        assert processes(lab) == []
        assert lobby.nobody_waits()
        with ThreadPoolExecutor() as pool:
            asking = pool.submit(client.get, f"{URL}?stay", headers=lab.bearer("alice"))
            second = lobby.next()
            second.asked()
            assert processes(lab) != []  # in use, so it does not end
            second.release()
            woken = asking.result()
        assert (woken.status_code, woken.text) == (200, str(second.pid))
        second.gone()
        until(lab, ASLEEP)
        assert processes(lab) == []

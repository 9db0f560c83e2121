"""Progress for people at a terminal, and none of it for programs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.tower.whole.lobby import APP, SECONDS, TASKS, Lobby
from tests.tower_process import BIN, Tower, clean_environment

pytestmark = pytest.mark.xdist_group("seeds")

_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
PLAIN = "flyte.Image.from_debian_base()"


@pytest.fixture
def lobby() -> Iterator[Lobby]:
    with Lobby.open() as lobby:
        yield lobby


class Terminal:
    """`flyte` as it is called by somebody at a terminal; standard output may go to a pipe instead."""

    def __init__(self, tower: Tower, *arguments: str, cwd: Path, piped: bool) -> None:
        self._master, slave = pty.openpty()
        environment = {
            "FLYTE_ENDPOINT": tower.url,
            "FLYTE_API_KEY": tower.keys["alice"],
            "TERM": "xterm",
            "CI": "",  # where this runs for a CI, nobody would be taken to look
            "COLUMNS": "160",
        }
        self.process = subprocess.Popen(
            [BIN / "flyte", *arguments],
            env={**clean_environment(environment), **environment},
            cwd=cwd,
            stdin=slave,
            stdout=subprocess.PIPE if piped else slave,
            stderr=slave,
        )
        os.close(slave)
        self.seen = b""

    def until(self, text: str) -> None:
        """Read the terminal until that is on it."""
        deadline = time.monotonic() + SECONDS
        while text not in self.text:
            assert time.monotonic() < deadline, f"it does not come: {self.text[-2000:]}"
            assert self._more(), f"it ended: {self.text}"

    def end(self) -> int:
        """Read the rest; the exit status."""
        while self._more():
            pass
        return self.process.wait(120)

    @property
    def text(self) -> str:
        return _CONTROL.sub(b"", self.seen).decode(errors="replace")

    def _more(self) -> bool:
        assert select.select([self._master], [], [], SECONDS)[0], f"nothing comes: {self.text}"
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # the last program at the terminal has ended
            return False
        self.seen += chunk
        return bool(chunk)

    def close(self) -> None:
        """Leave."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def terminal(tower: Tower, *arguments: str, cwd: Path, piped: bool = False) -> Iterator[Terminal]:
    shown = Terminal(tower, *arguments, cwd=cwd, piped=piped)
    try:
        yield shown
    finally:
        shown.close()


def written(folder: Path, name: str, text: str, *, package: str = "") -> str:
    """A file with code that nobody has uploaded; with a package, its image has to be made."""
    image = f'{PLAIN}.with_pip_packages("{package}")' if package else PLAIN
    (folder / name).write_text(f"{text.replace(PLAIN, image)}\n# {folder}\n")
    return name


def test_uploads_and_waiting_are_shown_at_a_terminal(tower: Tower, lobby: Lobby, tmp_path: Path) -> None:
    file = written(tmp_path, "shown.py", TASKS.replace('"hall"', '"shown"'))
    with terminal(tower, "deploy", file, "env", cwd=tmp_path) as deploying:
        deploying.until("shown.visit")
        assert deploying.end() == 0
    assert re.search(r"Upload\s+\S*━\S*\s+\d+/\d+", deploying.text)
    assert re.search(r"Tasks\s+\S*━", deploying.text)
    asked = ["run", "deployed-task", "shown.visit", "--port", str(lobby.port), "--word", "x", "--wait"]
    with terminal(tower, *asked, cwd=tmp_path) as waiting:
        visitor = lobby.next()
        waiting.until(": RUNNING")
        visitor.release()
        assert waiting.end() == 0
    assert "bye x" in waiting.text


def test_the_image_of_an_app_is_shown_and_json_stays_json(tower: Tower, lobby: Lobby, tmp_path: Path) -> None:
    text = APP.format(port=lobby.port).replace('"sleeper"', '"shown"').replace("sleeper.py", "app.py")
    file = written(tmp_path, "app.py", text, package="pluggy")
    with terminal(tower, "serve", file, "app_env", "-o", "json", cwd=tmp_path, piped=True) as serving:
        serving.until("Image: ")
        assert serving.end() == 0
        assert serving.process.stdout is not None
        printed = serving.process.stdout.read()
    assert json.loads(printed)["name"] == "shown"
    assert b"\x1b" not in printed
    assert "Environment and start-up" in serving.text
    assert '"name"' not in serving.text


def test_the_image_of_a_run_is_shown_while_it_is_made(tower: Tower, tmp_path: Path) -> None:
    file = written(tmp_path, "imaged.py", TASKS.replace('"hall"', '"imaged"'), package="iniconfig")
    with terminal(tower, "run", file, "breaks", "--text", "x", "--wait", cwd=tmp_path) as running:
        running.until("its image: ")
        assert running.end() == 7
    assert "FAILED" in running.text


def test_the_log_that_is_followed_begins_with_the_image(tower: Tower, tmp_path: Path) -> None:
    file = written(tmp_path, "followed.py", TASKS.replace('"hall"', '"followed"'), package="sniffio")
    done = tower.flyte("run", file, "breaks", "--text", "x", "--follow", cwd=tmp_path, check=False)
    assert done.status == 7
    assert any(line.startswith("[image] ") for line in done.err.splitlines()), done.err


def test_without_a_terminal_nothing_is_drawn(tower: Tower, tmp_path: Path) -> None:
    file = written(tmp_path, "quiet.py", TASKS.replace('"hall"', '"quiet"'))
    done = tower.flyte("deploy", file, "env", "-o", "json", cwd=tmp_path)
    assert done.err == ""
    assert {each["name"] for each in json.loads(done.out)["tasks"]} == {"quiet.visit", "quiet.breaks"}
    asked = ("run", "deployed-task", "quiet.breaks", "--text", "x", "--wait", "-o", "json")
    ran = tower.flyte(*asked, cwd=tmp_path, check=False)
    assert json.loads(ran.out)["phase"] == "FAILED"
    assert len(ran.err.splitlines()) == 1, "the name and the page of the run, nothing else"
    assert "\x1b" not in ran.err

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.tower_process import BIN, Tower, clean_environment


class Terminal:
    """`flyte` of one person on one machine, without a key and without a display."""

    def __init__(self, tower: Tower, home: Path) -> None:
        self.tower = tower
        self.home = home

    def environment(self, **extra: str) -> dict[str, str]:
        found = {"FLYTE_ENDPOINT": self.tower.url, "FLYTE_HOME": str(self.home), **extra}
        if self.tower.ca:
            found["SSL_CERT_FILE"] = str(self.tower.ca)
        known = clean_environment(found)
        return {k: v for k, v in known.items() if k not in {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"}}

    def __call__(self, *arguments: str, text: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "flyte", *arguments],
            env=self.environment(**extra),
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @contextmanager
    def begun(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command that waits for its person."""
        process = subprocess.Popen(
            [BIN / "flyte", *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
                process.wait(120)
            finally:
                process.kill()


@pytest.fixture
def terminal(town: Tower, tmp_path: Path) -> Terminal:
    return Terminal(town, tmp_path / "flyte")

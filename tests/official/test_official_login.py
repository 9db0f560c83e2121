"""The official SDK signs in to Tower by itself: client credentials, a device code, the browser."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.flyte.login.person import Browser, give_password
from tests.official.test_official_sdk import official  # noqa: F401 - a fixture
from tests.tower_process import Tower, clean_environment

pytestmark = [pytest.mark.official, pytest.mark.xdist_group("official")]


def begin(
    python: Path, tower: Tower, home: Path, kind: str, given: dict[str, str], **environment: str
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [python, "-u", Path(__file__).with_name("login.py"), tower.url.removeprefix("https://"), kind],
        env=clean_environment(
            {
                "SSL_CERT_FILE": str(tower.ca),
                "DO_NOT_TRACK": "1",
                "HOME": str(home),
                "COLUMNS": "2000",
                "PYTHONPATH": "",
                **environment,
            }
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    return process


def told(process: subprocess.Popen[str], tower: Tower) -> Any:
    assert process.stdout is not None
    with process:
        printed = process.stdout.read()
        process.wait(120)
    assert process.returncode == 0, f"{printed[-4000:]}\n{tower.log[-4000:]}"
    return json.loads([line for line in printed.splitlines() if line.startswith("{")][-1])


def test_client_secret_over_tls(official: Path, tower_tls: Tower, workspace: Path) -> None:  # noqa: F811
    key = tower_tls.new_key("official-robot", "carol")
    _, client, secret = key.split("_", 2)
    process = begin(official, tower_tls, workspace, "ClientSecret", {"client_id": client, "secret": secret})
    assert told(process, tower_tls) | {"tasks": 0} == {"subject": "carol", "again": "carol", "tasks": 0}
    assert secret not in tower_tls.log


def test_device_flow_over_tls(official: Path, tower_tls: Tower, workspace: Path) -> None:  # noqa: F811
    give_password(tower_tls, "alice")
    process = begin(official, tower_tls, workspace, "DeviceFlow", {})
    assert process.stdout is not None
    seen, code = "", None
    while code is None:
        line = process.stdout.readline()
        assert line, seen
        seen += line
        code = re.search(r"\b[B-Z]{4}-[B-Z]{4}\b", seen)
    with Browser(tower_tls.url, tower_tls.ca) as browser:
        browser.sign_in("alice")
        page = browser.page(f"/device?code={code[0]}")
        assert "Allowed" in browser.press(page, "allow").text
    assert told(process, tower_tls)["subject"] == "alice"


def test_the_browser_over_tls(official: Path, tower_tls: Tower, workspace: Path) -> None:  # noqa: F811
    give_password(tower_tls, "alice")
    opened = workspace / "opened"
    opened.write_text("")
    script = workspace / "browser"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >> {opened}\n')
    script.chmod(0o755)
    process = begin(official, tower_tls, workspace, "Pkce", {}, BROWSER=f"{script} %s")
    with Browser(tower_tls.url, tower_tls.ca) as browser:
        browser.sign_in("alice")
        while not opened.read_text().endswith("\n"):
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
        page = browser.page(opened.read_text().splitlines()[0])
        back = browser.press(page, "allow")
        assert back.headers["location"].startswith("http://localhost:53593/callback?code=")
        httpx.get(back.headers["location"], trust_env=False, timeout=60.0)
    assert told(process, tower_tls)["subject"] == "alice"

"""`flyte login`, `logout`, `whoami` and `doctor` against a running Tower, with a person in a browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import httpx
import pytest
from tests.flyte.login.conftest import Terminal
from tests.flyte.login.person import PASSWORD, Browser
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("login")


def address(process: subprocess.Popen[str]) -> str:
    """The address that the command asks to open."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip().startswith("http"):
            return line.strip()
    raise AssertionError("no address was printed")


def log_in(terminal: Terminal, name: str, *options: str, answer: str = "allow") -> subprocess.Popen[str]:
    with Browser(terminal.tower.url) as browser, terminal.begun("login", *options) as process:
        url = address(process)
        first = browser.page(url)
        assert (first.status_code, urlsplit(first.headers["location"]).path) == (303, "/login")
        browser.sign_in(name)
        page = browser.page(url)
        assert name in page.text
        back = browser.press(page, answer)
        assert back.status_code == 303
        # the browser's way back to the terminal
        told = httpx.get(back.headers["location"], trust_env=False, timeout=60.0)
        assert told.status_code == 200
        assert "close this page" in told.text
    return process


def test_login_in_the_browser_then_whoami_then_logout(terminal: Terminal) -> None:
    assert terminal("whoami").returncode == 3
    assert log_in(terminal, "alice").returncode == 0
    stored = terminal.home / "logins.json"
    assert stored.stat().st_mode & 0o777 == 0o600
    who = json.loads(terminal("whoami", "-o", "json").stdout)
    assert (who["subject"], who["kind"], who["credential"]) == ("alice", "user", "access_token")
    assert who["credential_id"].startswith("login-")
    assert who["expires_at"]
    assert who["roles"] == ["contributor in flytesnacks/*"]
    assert who["signed_in_by"] == "login"
    assert terminal("get", "run").returncode == 0

    (kept,) = json.loads(stored.read_text())["logins"]
    done = terminal("logout")
    assert done.returncode == 0, done.stderr
    assert kept["access_token"] not in stored.read_text()
    assert terminal("whoami").returncode == 3
    # at the server, too: the tokens that were kept hold no more
    answer = httpx.get(
        f"{terminal.tower.url}/api/v1/whoami",
        headers={"authorization": f"Bearer {kept['access_token']}"},
        trust_env=False,
        timeout=60.0,
    )
    assert answer.status_code == 401
    assert "no login" in terminal("logout").stderr


def test_a_no_in_the_browser_keeps_nothing(terminal: Terminal) -> None:
    assert log_in(terminal, "alice", answer="refuse").returncode == 3
    assert not (terminal.home / "logins.json").exists()


def test_a_narrow_login_cannot_do_more(terminal: Terminal) -> None:
    assert log_in(terminal, "alice", "--role", "viewer").returncode == 0
    who = json.loads(terminal("whoami", "-o", "json").stdout)
    assert any("at most viewer" in limit for limit in who["limits"])
    assert terminal("create", "api-key", "--name", "from-a-viewer").returncode != 0


def test_login_with_a_code_on_another_machine(terminal: Terminal) -> None:
    with Browser(terminal.tower.url) as browser, terminal.begun("login", "--device") as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        found = re.search(r"Open (\S+) and type the code {2}(\S+)", told)
        assert found is not None, told
        browser.sign_in("bob")
        page = browser.page(f"{found[1]}?code={found[2]}")
        # T41: the page names the device, the place and the code, and warns
        assert " on " in page.text
        assert "127.0.0.1" in page.text
        assert found[2] in page.text
        assert "refuse" in page.text
        assert "Allowed" in browser.press(page, "allow").text
    assert process.returncode == 0
    assert json.loads(terminal("whoami", "-o", "json").stdout)["subject"] == "bob"


def test_login_with_a_key_from_standard_input(terminal: Terminal) -> None:
    key = terminal.tower.keys["carol"]
    done = terminal("login", "--key", text=f"{key}\n")
    assert done.returncode == 0, done.stderr
    assert key not in done.stdout + done.stderr
    assert json.loads(terminal("whoami", "-o", "json").stdout)["subject"] == "carol"
    # FLYTE_API_KEY wins
    other = terminal("whoami", "-o", "json", FLYTE_API_KEY=terminal.tower.keys["bob"])
    assert json.loads(other.stdout)["subject"] == "bob"
    assert "stays valid" in terminal("logout").stderr
    assert terminal("login", "--key", text="twr_wrong_key\n").returncode == 3


def test_a_login_is_for_its_own_control_plane_only(terminal: Terminal) -> None:
    terminal("login", "--key", text=f"{terminal.tower.keys['carol']}\n")
    port = urlsplit(terminal.tower.url).port
    # the same server under another name of the machine is the same place; another port is not
    same = terminal("whoami", "-o", "json", FLYTE_ENDPOINT=f"http://localhost:{port}")
    assert json.loads(same.stdout)["subject"] == "carol"
    assert terminal("whoami", FLYTE_ENDPOINT="http://127.0.0.1:1").returncode == 3


def test_init_without_a_key_uses_the_login_and_refreshes_it(terminal: Terminal) -> None:
    assert log_in(terminal, "alice").returncode == 0
    stored = terminal.home / "logins.json"
    document = json.loads(stored.read_text())
    before = document["logins"][0]
    document["logins"][0]["expires_at"] = 0.0  # as if minutes had gone by
    stored.write_text(json.dumps(document))
    program = (
        "import asyncio, flyte, os\n"
        "from flyte.remote import User\n"
        "async def main():\n"
        "    await flyte.init.aio(endpoint=os.environ['FLYTE_ENDPOINT'])\n"
        "    found = await asyncio.gather(*(User.get.aio() for _ in range(8)))\n"
        "    print({user.subject() for user in found})\n"
        "asyncio.run(main())\n"
        "flyte.init_passthrough(endpoint=os.environ['FLYTE_ENDPOINT'])\n"
        "try:\n"
        "    User.get()\n"
        "except flyte.errors.MissingCallerError:\n"
        "    print('nothing sent')\n"
    )

    def run(told: list[str]) -> None:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=terminal.environment(),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        told.append(done.stdout or done.stderr)

    told: list[str] = []
    threads = [threading.Thread(target=run, args=(told,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["{'alice'}\nnothing sent\n"] * 3
    (after,) = json.loads(stored.read_text())["logins"]
    assert after["refresh_token"] != before["refresh_token"]
    assert terminal("whoami").returncode == 0


def test_a_login_ended_elsewhere_says_what_to_do(terminal: Terminal) -> None:
    assert log_in(terminal, "bob").returncode == 0
    terminal.tower.tower("users", "disable", "bob")
    try:
        done = terminal("whoami")
        assert done.returncode == 3
        assert "flyte login" in done.stderr
    finally:
        terminal.tower.tower("users", "enable", "bob")


def test_a_file_that_others_can_read_is_not_used(terminal: Terminal) -> None:
    terminal("login", "--key", text=f"{terminal.tower.keys['carol']}\n")
    (terminal.home / "logins.json").chmod(0o644)
    done = terminal("whoami")
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


def test_doctor_says_what_is_wrong(terminal: Terminal) -> None:
    done = terminal("doctor", "-o", "json")
    findings = {each["what"]: each for each in json.loads(done.stdout)}
    assert done.returncode == 1
    assert findings["connection"]["well"]
    assert not findings["credential"]["well"]
    assert "flyte login" in findings["credential"]["remedy"]
    assert not [each for each in findings.values() if each["well"] and each["remedy"]]
    terminal("login", "--key", text=f"{terminal.tower.keys['carol']}\n")
    well = terminal("doctor")
    assert well.returncode == 0, well.stdout
    assert "carol" in well.stdout
    gone = terminal("doctor", FLYTE_ENDPOINT="http://127.0.0.1:1")
    assert "BAD  connection" in gone.stdout


def test_the_sign_in_page_says_one_thing_for_every_mistake(town: Tower) -> None:
    with Browser(town.url) as browser:
        answers = [
            browser.submit("/login", name=name, password=password, next="/")
            for name, password in (("alice", "wrong"), ("nobody", PASSWORD), ("carol", PASSWORD))
        ]
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.text for answer in answers}) == 1
        assert all("set-cookie" not in answer.headers for answer in answers)
        foreign = browser.http.post(
            "/login",
            data={"name": "alice", "password": PASSWORD},
            headers={"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        )
        assert foreign.status_code == 403
        for following in ("https://evil.example/", "//evil.example/", "/\\evil.example", "/login"):
            signed = browser.submit("/login", name="alice", password=PASSWORD, next=following)
            assert "evil.example" not in signed.text
            assert 'url=/"' in signed.text


def test_no_password_or_token_is_in_the_log(town: Tower, terminal: Terminal) -> None:
    log_in(terminal, "alice")
    (kept,) = json.loads((terminal.home / "logins.json").read_text())["logins"]
    for secret in (PASSWORD, kept["access_token"], kept["refresh_token"]):
        assert secret not in town.log
    stored = b"".join(path.read_bytes() for path in town.home.glob("tower.db*"))
    for secret in (PASSWORD, kept["refresh_token"], kept["access_token"].rpartition(".")[2]):
        assert secret.encode() not in stored

"""T33: secrets of an app with a command of its own reach that command, and nothing else."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.threats.conftest import DOMAIN, PROJECT, Lab

pytestmark = pytest.mark.xdist_group("threats")

SCOPE = ("--project", PROJECT, "--domain", DOMAIN)

DECLARED = """
import flyte
from flyte.app import AppEnvironment

served = AppEnvironment(
    name="NAME",
    command=["python", "NAME.py", "$FLYTE_APP_SOCKET"],
    image=flyte.Image.from_debian_base(),
    secrets=[
        "NAME-token",
        flyte.Secret("NAME-pem", mount=True),
        flyte.Secret("NAME-path", mount=True, as_env_var="WHERE"),
    ],
)
"""

SERVER = """
import json, os, socketserver, stat, sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

def mode(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


def told():
    folder = os.environ["FLYTE_SECRETS_DIR"]
    pem = Path(folder, "NAME-pem")
    print("the token is", os.environ["VARIABLE"], flush=True)
    return {
        "token": len(os.environ["VARIABLE"]),
        "pem": len(pem.read_bytes()),
        "path": Path(os.environ["WHERE"]).read_text() == Path(folder, "NAME-path").read_text(),
        "modes": [mode(folder), mode(pem)],
        "argv": Path("/proc/self/cmdline").read_text().split(chr(0))[1:-1],
        "sprung": os.path.exists("sprung"),
    }


def again():
    from flyte.runtime import secrets
    try:
        secrets.enter(os.environ, directory=Path.cwd())
    except Exception as error:
        return type(error).__name__
    return "given"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/exit":
            os._exit(0)
        answers = {"/again": again, "/told": told}
        body = json.dumps(answers[self.path]() if self.path in answers else "up").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "gateway"


socketserver.UnixStreamServer(sys.argv[1], Answers).serve_forever()
"""

TRAP = """
import sys
if "flyte.runtime.command" in sys.orig_argv:
    open("sprung", "w").close()
"""
"""A file of the app that every interpreter runs which finds it."""


@dataclass
class Kept:
    """An app with a command, and the values that it is given."""

    lab: Lab
    name: str
    token: str = field(default_factory=lambda: f"canary-{secrets.token_hex(16)}", repr=False)
    pem: str = field(default_factory=lambda: f"-----{secrets.token_hex(16)}-----", repr=False)
    path: str = field(default_factory=lambda: f"canary-{secrets.token_hex(16)}", repr=False)

    def values(self) -> dict[str, str]:
        return {"token": self.token, "pem": self.pem, "path": self.path}

    def put(self, folder: Path) -> None:
        """Keep the values; afterwards no file of the test has one."""
        for what, value in self.values().items():
            file = folder / what
            file.write_text(value)
            create = ("create", "secret", f"{self.name}-{what}", "--value-file", str(file))
            self.lab.tower.flyte(*create, *SCOPE, user=self.lab.admin_key)
            file.unlink()

    def files(self, folder: Path) -> None:
        """What alice deploys."""
        variable = f"{self.name}-token".replace("-", "_").upper()
        (folder / "declared.py").write_text(DECLARED.replace("NAME", self.name))
        server = SERVER.replace("NAME", self.name).replace("VARIABLE", variable)
        (folder / f"{self.name}.py").write_text(server)

    def serve(self, who: str, folder: Path) -> None:
        """Deploy it with all files of the folder, and wait until it is up."""
        serve = ("serve", "--copy-style", "all", "declared.py", "served")
        self.lab.tower.flyte(*SCOPE, *serve, user=who, cwd=folder)

    def says(self, words: str) -> None:
        """Return once the app's log has the words."""
        link = self.lab.tower.tower("users", "link", "admin").out.strip()
        path = f"/v2/domain/{DOMAIN}/project/{PROJECT}/apps/{self.name}/events"
        with self.lab.tower.http() as browser:
            assert browser.get(link, follow_redirects=True).status_code == 200
            with browser.stream("GET", path) as answer:
                assert any(words in line for line in answer.iter_lines())

    def ask(self, path: str) -> Any:
        answer = self.lab.app("bob", "GET", path, name=self.name)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def kept(lab: Lab, tmp_path: Path) -> Kept:
    made = Kept(lab, f"den-{secrets.token_hex(3)}")
    made.put(tmp_path)
    made.files(tmp_path)
    return made


def stored(lab: Lab) -> Iterator[Path]:
    """Every file of Tower's home, the database among them, and its own log."""
    for place, _, names in os.walk(lab.tower.home):
        yield from (Path(place, name) for name in names)
    yield lab.tower.home.parent / f"{lab.tower.home.name}.log"


def holding(places: Iterator[Path], values: list[bytes]) -> list[Path]:
    found = []
    for place in places:
        try:
            content = place.read_bytes() if place.is_file() and not place.is_symlink() else b""
        except OSError:
            continue
        found += [place for value in values if value in content]
    return found


def test_t33_a_command_has_its_secrets_and_nothing_else_has_them(kept: Kept, tmp_path: Path) -> None:
    """In its variables and files; not in an argument, another process, a log, or what is stored."""
    (tmp_path / "sitecustomize.py").write_text(TRAP)
    kept.serve("alice", tmp_path)
    told = kept.ask("/told")
    assert (told["token"], told["pem"], told["path"]) == (len(kept.token), len(kept.pem), True)
    assert told["modes"] == ["0o700", "0o400"]
    assert not told["sprung"], "code of the app ran before its command"
    # the arguments are the declared ones, whoever was there before
    assert [Path(word).name for word in told["argv"]] == [f"{kept.name}.py", "app"]
    values = [value.encode() for value in kept.values().values()]
    processes = list(Path("/proc").glob("[0-9]*"))
    assert holding((each / "cmdline" for each in processes), values) == []
    (own,) = {each.parent for each in holding((each / "environ" for each in processes), values)}
    assert f"{kept.name}.py".encode() in (own / "cmdline").read_bytes().split(b"\0")[1]
    assert holding(stored(kept.lab), values) == []
    assert kept.ask("/again") == "FailedPreconditionError"
    log = next((kept.lab.tower.home / "logs").rglob(f"*{kept.name}*")).read_text()
    assert "the token is [secret]" in log
    records = [
        each
        for each in kept.lab.audit(event="secret.read", subject="alice")
        if each["detail"]["app"].endswith(kept.name)
    ]
    assert {each["detail"]["secret"] for each in records} == {f"{kept.name}-{what}" for what in kept.values()}


def test_t33_a_command_whose_deployer_lost_the_right_is_not_started(kept: Kept, tmp_path: Path) -> None:
    lab, who = kept.lab, f"founder-{secrets.token_hex(3)}"
    lab.tower.tower("users", "add", who, "--role", "contributor", "--project", PROJECT)
    lab.tower.keys[who] = lab.tower.new_key(f"{who}-key", who)
    kept.serve(who, tmp_path)
    assert kept.ask("/told")["token"] == len(kept.token)
    lab.tower.tower("users", "revoke", who, "--role", "contributor", "--project", PROJECT)
    lab.app("bob", "GET", "/exit", name=kept.name)
    kept.says("There is no secret ")
    assert lab.app("bob", "GET", "/told", name=kept.name).status_code == 503
    refused = lab.audit(event="access.refuse", subject=who)
    assert {each["action"] for each in refused} == {"secret:use"}

"""The strict client openid-client (npm) against a running Tower: every grant, and its own checks."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.flyte.login.person import Browser
from tests.tower_process import ROOT, Tower, clean_environment

HERE = Path(__file__).parent
pytestmark = pytest.mark.xdist_group("strict-client")


@pytest.fixture(scope="session")
def packages() -> Path:
    """A folder with the client in it, at exactly the versions of the lock file; made once and kept."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not on this machine; the strict client runs on them")
    lock = (HERE / "package-lock.json").read_bytes()
    folder = ROOT / ".cache" / f"npm-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not (folder / "node_modules" / "openid-client").exists():
        fresh = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
        fresh.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, fresh)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=fresh, check=True, timeout=180)
        if folder.exists():
            shutil.rmtree(fresh)
        else:
            fresh.rename(folder)
    return folder


class Script:
    """One scenario that talks in lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def say(self, told: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()[-4000:]
        return json.loads(line)


@contextmanager
def running(tower: Tower, packages: Path, scenario: str, **given: Any) -> Iterator[Script]:
    process = subprocess.Popen(
        ["node", "--no-warnings", HERE / "client.mjs", tower.url, scenario],
        env=clean_environment({"CLIENT_FOLDER": str(packages)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            script = Script(process)
            script.say(given)
            yield script
        finally:
            process.kill()


def allowed(town: Tower, url: str, name: str = "alice") -> str:
    """Where the browser is sent once the person said yes."""
    with Browser(town.url) as browser:
        browser.sign_in(name)
        return str(browser.press(browser.page(url), "allow").headers["location"])


@pytest.mark.parametrize("algorithm", ["oidc", "oauth2"])
def test_code_with_pkce_state_nonce_issuer_and_id_token(
    town: Tower,
    packages: Path,
    algorithm: str,
) -> None:
    with running(town, packages, "code", algorithm=algorithm) as script:
        script.say({"location": allowed(town, script.hear()["url"])})
        told = script.hear()
    assert (told["subject"], told["audience"], told["issuer"]) == ("alice", "flyte", town.url)
    assert told["user"] == "alice"
    assert told["refreshed"]
    assert told["expires"] == 600
    assert told["again"]["error"] == "invalid_grant"  # T41: the code was used
    assert told["ended"]["error"] == "invalid_grant"  # and its second use ended the login


def test_refresh_rotates_and_reuse_ends_the_family(town: Tower, packages: Path) -> None:
    with running(town, packages, "device") as script:
        asked = script.hear()
    assert asked["interval"] == 5
    from tests.tower.oauth.conftest import Proof

    proof, back = Proof(), "http://127.0.0.1:49201/callback"
    with Browser(town.url) as browser:
        browser.sign_in("bob")
        question = (
            f"/oauth2/authorize?response_type=code&client_id=flyte&redirect_uri={back}&scope=all&state=s"
            f"&code_challenge={proof.challenge}&code_challenge_method=S256"
        )
        location = browser.press(browser.page(question), "allow").headers["location"]
        code = location.partition("code=")[2].partition("&")[0]
        tokens = browser.http.post(
            "/oauth2/token",
            data={
                "grant_type": "authorization_code",
                "client_id": "flyte",
                "code": code,
                "code_verifier": proof.verifier,
                "redirect_uri": back,
            },
        ).json()
    with running(town, packages, "refresh", refresh_token=tokens["refresh_token"]) as script:
        told = script.hear()
    assert told["different"] == 3
    assert told["reused"]["error"] == "invalid_grant"
    assert told["latest"]["error"] == "invalid_grant"


def test_client_credentials_introspection_and_revocation(town: Tower, packages: Path) -> None:
    _, client, secret = town.new_key(f"strict-{uuid.uuid4().hex[:6]}", "carol").split("_", 2)
    with running(town, packages, "credentials", id=client, secret=secret) as script:
        told = script.hear()
    expected = {"subject": "carol", "before": True, "after": False, "type": "bearer"}
    assert told["basic"] == expected
    assert told["post"] == expected
    # how it reads a 401 with the challenge that RFC 6749 section 5.2 asks for
    assert told["wrong"]["error"] == "OAUTH_WWW_AUTHENTICATE_CHALLENGE"


def test_device_code(town: Tower, packages: Path) -> None:
    with running(town, packages, "device") as script:
        asked = script.hear()
        with Browser(town.url) as browser:
            browser.sign_in("bob")
            page = browser.page(f"{asked['page']}?code={asked['code']}")
            assert asked["code"] in page.text
            browser.press(page, "allow")
        script.say({})
        assert script.hear() == {"type": "bearer", "access": True}


def test_exchange_is_for_apps_that_one_may_use(town: Tower, packages: Path) -> None:
    key = town.new_key(f"exchange-{uuid.uuid4().hex[:6]}", "dave")
    _, client, secret = key.split("_", 2)
    with running(town, packages, "exchange", id=client, secret=secret, subject_token=key) as script:
        told = script.hear()
    assert told["none"]["error"] == "invalid_target"
    assert told["own"]["error"] == "unauthorized_client"  # dave stands for no app


ASKING = """
import flyte
env = flyte.TaskEnvironment(name="asking")
@env.task
def ask(audience: str) -> str:
    # turned around: a result that holds the token is not kept
    return flyte.identity_token(audience)[::-1]
"""


def test_the_identity_token_of_a_task(town: Tower, packages: Path, workspace: Path) -> None:
    (workspace / "asking.py").write_text(ASKING)
    audience = "https://vault.example.com"
    place = ("-o", "json", "run", "--follow", "asking.py", "ask", "--audience", audience)
    run = town.flyte(*place, cwd=workspace).json()
    assert isinstance(run, dict)
    token = run["outputs"]["o0"][::-1]
    with running(town, packages, "identity", token=token, audience=audience) as script:
        told = script.hear()
    assert told["own"] == {"good": "alice"}
    assert told["other"]["error"] == told["access"]["error"] == "ERR_JWT_CLAIM_VALIDATION_FAILED"
    assert told["forged"]["error"] == "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"

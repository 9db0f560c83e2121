"""A real certified OpenID provider on loopback (npm `oidc-provider`), and a browser that signs in there."""

from __future__ import annotations

import fcntl
import hashlib
import html
import json
import re
import secrets
import shutil
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
API = "https://tower.test/api"
OTHER_API = "https://other.test/api"
TOWER_SECRET = "a secret of the tower+%"


def available() -> str:
    """Why the provider cannot run here, "" when it can."""
    return "" if shutil.which("node") and shutil.which("npm") else "node and npm are not installed"


def installed() -> Path:
    """A folder with the provider's packages in it, made once from the lock file."""
    lock = (HERE / "package-lock.json").read_bytes()
    folder = ROOT / ".cache" / f"npm-{hashlib.sha256(lock).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / ".ready").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(HERE / name, folder / name)
            subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=300,
            )
            (folder / ".ready").touch()
        shutil.copyfile(HERE / "provider.mjs", folder / ".fresh.mjs")
        (folder / ".fresh.mjs").replace(folder / "provider.mjs")  # whole for who starts it meanwhile
    return folder


@dataclass(slots=True)
class Idp:
    """The running issuers by name."""

    process: subprocess.Popen[str]
    urls: dict[str, str]

    @classmethod
    @contextmanager
    def started(cls, **algorithms: str) -> Iterator[Idp]:
        folder = installed()
        with subprocess.Popen(
            ["node", "provider.mjs"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            idp = cls(process, {})
            try:
                idp.urls = idp._ask({"issuers": algorithms})
                yield idp
            finally:
                assert process.stdin is not None
                process.stdin.close()
                process.wait(120)

    def rotate(self, issuer: str, *, keep: bool = True) -> None:
        """Sign with a new key from now on; with `keep` the old one is still published."""
        self._ask({"op": "rotate", "issuer": issuer, "keep": keep})

    def hits(self, issuer: str, path: str = "/jwks") -> int:
        """How often this path was asked for."""
        return int(self._ask({"op": "hits", "issuer": issuer}).get(path, 0))

    def program(self, issuer: str, *, resource: str = API) -> str:
        """An access token of a program."""
        answer = httpx.post(
            f"{self.urls[issuer]}/token",
            data={"grant_type": "client_credentials", "resource": resource, "scope": "run"},
            auth=("robot", "robots-secret"),
            trust_env=False,
            timeout=60.0,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def person(self, issuer: str, name: str, *, resource: str = API) -> dict[str, Any]:
        """What a person's own client gets: `access_token` for the resource, and `id_token`."""
        verifier = secrets.token_urlsafe(32)
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        callback = "http://127.0.0.1:9/callback"
        query = {
            "response_type": "code",
            "client_id": "terminal",
            "redirect_uri": callback,
            "scope": "openid run",
            "resource": resource,
            "state": "s",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        with browser() as visitor:
            url = str(httpx.URL(f"{self.urls[issuer]}/auth", params=query))
            back = sign_in(visitor, url, name, until=callback)
            answer = visitor.post(
                f"{self.urls[issuer]}/token",
                data={
                    "grant_type": "authorization_code",
                    "client_id": "terminal",
                    "redirect_uri": callback,
                    "code": parse_qs(urlsplit(back).query)["code"][0],
                    "code_verifier": verifier,
                    "resource": resource,
                },
            )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def browser(**options: Any) -> Iterator[httpx.Client]:
    """A client with cookies that follows nothing by itself."""
    with httpx.Client(trust_env=False, follow_redirects=False, timeout=60.0, **options) as client:
        yield client


def sign_in(visitor: httpx.Client, url: str, name: str, *, until: str) -> str:
    """Go through the provider's pages as this person; the address that it sends the browser back to."""
    answer = visitor.get(url)
    for _ in range(12):
        if answer.is_redirect:
            target = urljoin(str(answer.url), answer.headers["location"])
            if target.startswith(until):
                return target
            answer = visitor.get(target)
            continue
        found = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
        assert found, answer.text[:2000]
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
        assert prompt, answer.text[:2000]
        fields = {"prompt": prompt[1]}
        if prompt[1] == "login":
            fields |= {"login": name, "password": "any"}
        answer = visitor.post(html.unescape(found[1]), data=fields)
    raise AssertionError(f"the provider never came back: {answer.url} {answer.text[:500]}")

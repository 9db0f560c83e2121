"""Starting, driving and stopping a real Tower process."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
START_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended."""

    status: int
    out: str
    err: str

    def json(self) -> object:
        return json.loads(self.out)


@dataclass(slots=True)
class Tower:
    """One running server: its home, its URL, and the two command lines pointed at it."""

    home: Path
    url: str
    process: subprocess.Popen[str]
    keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def started(cls, home: Path, *options: str, before: tuple[str, ...] = ()) -> Iterator[Tower]:
        """A server until the block ends; `before` stands before its command."""
        log = (home.parent / f"{home.name}.log").open("w")
        process = subprocess.Popen(
            [*before, BIN / "tower", "up", "--port", "0", *options],
            env=clean_environment({"TOWER_HOME": str(home)}),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield cls(home=home, url=_ready(process, Path(log.name)), process=process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
            log.close()

    @property
    def log(self) -> str:
        return (self.home.parent / f"{self.home.name}.log").read_text()

    @property
    def ca(self) -> Path | None:
        pem = self.home / "tls" / "ca.pem"
        return pem if pem.exists() else None

    def add_people(self) -> None:
        """alice and bob contribute to flytesnacks, carol may look, dave may nothing; each has a key."""
        self.tower("users", "add", "alice", "--role", "contributor", "--project", "flytesnacks")
        self.tower("users", "add", "bob", "--role", "contributor", "--project", "flytesnacks")
        self.tower("users", "add", "carol", "--role", "viewer", "--project", "flytesnacks")
        self.tower("users", "add", "dave")
        for name in ("alice", "bob", "carol", "dave"):
            self.keys[name] = self.new_key(f"{name}-key", name)

    def new_key(self, name: str, user: str, *options: str) -> str:
        return self.tower("keys", "create", name, "--user", user, *options).out.strip()

    def tower(self, *arguments: str, check: bool = True) -> Finished:
        """Run `tower` on the machine itself."""
        return self._run("tower", arguments, {"TOWER_HOME": str(self.home)}, check=check)

    def flyte(
        self, *arguments: str, user: str | None = "alice", check: bool = True, cwd: Path | None = None
    ) -> Finished:
        """Run `flyte` as a person (None: without a key), with a home of its own."""
        environment = {"FLYTE_ENDPOINT": self.url, "FLYTE_HOME": str(self.home.parent / f"flyte-{user}")}
        if user is not None:
            environment["FLYTE_API_KEY"] = self.keys.get(user, user)
        if self.ca:
            environment["SSL_CERT_FILE"] = str(self.ca)
        return self._run("flyte", arguments, environment, check=check, cwd=cwd)

    def http(self, user: str | None = None) -> httpx.Client:
        """An HTTP client that presents the person's key."""
        headers = {"authorization": f"Bearer {self.keys[user]}"} if user else {}
        verify = ssl.create_default_context(cafile=str(self.ca)) if self.ca else True
        return httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=120.0,
            trust_env=False,
            transport=_Localhost(httpx.HTTPTransport(verify=verify)),
        )

    def _run(
        self,
        program: str,
        arguments: tuple[str, ...],
        extra: Mapping[str, str],
        *,
        check: bool,
        cwd: Path | None = None,
    ) -> Finished:
        done = subprocess.run(
            [BIN / program, *arguments],
            env=clean_environment(extra),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            cwd=cwd,
        )
        result = Finished(done.returncode, done.stdout, done.stderr)
        assert not check or result.status == 0, (
            f"{program} {' '.join(arguments)}: {result}\n{self.log[-4000:]}"
        )
        return result


class _Localhost(httpx.BaseTransport):
    """Finds every name below `.localhost` on this machine, as browsers do (RFC 6761 section 6.3)."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host.endswith(".localhost"):
            extensions = {**request.extensions, "sni_hostname": request.url.host}
            request = httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1"),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


@contextmanager
def held_port() -> Iterator[int]:
    """A loopback port that no other program gets; while no server listens on it, who connects is refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as holding:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holding.bind(("127.0.0.1", 0))
        yield holding.getsockname()[1]


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The machine's environment without anything of flyte's or tower's, and with `extra`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLYTE_", "TOWER_", "_U_", "PYTEST_"))}
    return {**kept, **extra}


def _ready(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            line = process.stdout.readline()
            if line.startswith("ready "):
                return line.split()[1]
            if not line:
                break
    raise AssertionError(f"tower up did not become ready:\n{log.read_text()[-4000:]}")

"""`tower doctor`: what it finds on the machine and through the address, and what it says to do."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.tower_process import BIN, Tower, clean_environment

from tower import tls
from tower.cli.administration import Administration
from tower.main import checkup
from tower.main.outside import Outside

pytestmark = pytest.mark.xdist_group("login")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a Tower that never ran."""
    home = tmp_path_factory.mktemp("doctor") / "home"
    Administration(home).found()
    subprocess.run(
        [BIN / "tower", "--home", home, "users", "add", "alice"], env=clean_environment({}), check=True
    )
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home", symlinks=True))


def found(home: Path) -> dict[str, checkup.Finding]:
    return {each.name: each for each in checkup.home(home) if each.status != checkup.OK}


def test_a_home_in_order(home: Path) -> None:
    names = [each.name for each in checkup.home(home)]
    assert names == ["home", "secrets", "disk", "database", "clock", "audit", "keys", "images", "isolation"]
    assert found(home).keys() <= {"disk", "isolation"}


def write(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / "tower.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def open_home(home: Path) -> None:
    home.chmod(0o755)


def open_key(home: Path) -> None:
    (home / "signing.key").chmod(0o640)


def open_admin_key(home: Path) -> None:
    (home / "admin-key").chmod(0o604)


def no_database(home: Path) -> None:
    for path in home.glob("tower.db*"):
        path.unlink()


def old_database(home: Path) -> None:
    write(home, "UPDATE alembic_version SET version_num = '0001'")


def damaged_database(home: Path) -> None:
    write(home, "PRAGMA journal_mode = DELETE", "PRAGMA wal_checkpoint(TRUNCATE)")
    with closing(sqlite3.connect(home / "tower.db")) as database:
        page = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'users'").fetchone()[0]
        size = database.execute("PRAGMA page_size").fetchone()[0]
    with (home / "tower.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def cut_chain(home: Path) -> None:
    write(home, "DELETE FROM audit WHERE seq = 2")


def future(home: Path) -> None:
    write(home, "UPDATE audit SET at = at + 86400 WHERE seq = (SELECT max(seq) FROM audit)")


def no_key(home: Path) -> None:
    (home / "signing.key").unlink()


def broken_key(home: Path) -> None:
    path = next((home / "signing-keys").glob("*.pem"))
    path.write_text("-----BEGIN PRIVATE KEY-----\n")


def old_certificate(home: Path) -> None:
    before = dt.datetime.now(dt.UTC) - tls.SERVER_LIFE
    tls.local(home / "tls", names=("localhost",), now=before.timestamp() - 60)


@pytest.mark.parametrize(
    ("wrong", "name", "remedy"),
    [
        (open_home, "home", "chmod 700"),
        (open_key, "secrets", "chmod 600"),
        (open_admin_key, "secrets", "admin-key"),
        (no_database, "database", "tower up"),
        (old_database, "database", "tower up"),
        (damaged_database, "database", "backup"),
        (cut_chain, "audit", "tower audit verify"),
        (future, "clock", "NTP"),
        (no_key, "keys", "backup"),
        (broken_key, "keys", "Restore"),
        (old_certificate, "certificate", "Start Tower again"),
    ],
)
def test_each_failure_on_the_machine(
    home: Path, wrong: Callable[[Path], None], name: str, remedy: str
) -> None:
    wrong(home)
    finding = found(home)[name]
    assert finding.status == checkup.FAIL
    assert remedy in finding.remedy


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    [finding] = checkup.home(tmp_path / "nowhere")
    assert (finding.name, finding.status) == ("home", checkup.FAIL)


@contextmanager
def answering(status: int, body: object, *, hours: float = 0.0) -> Iterator[str]:
    """Something at an address; its clock is wrong by so many hours."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(body).replace("SELF", f"http://{self.headers['host']}").encode()
            self.send_response_only(status)
            self.send_header("date", format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)))
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def seen(url: str, *, key: str | None = None, ca: Path | None = None) -> dict[str, str]:
    return {each.name: f"{each.status} {each.remedy}" for each in Outside(ca).endpoint(url, key)}


def test_what_may_be_wrong_with_an_address() -> None:
    with answering(200, {"issuer": "SELF"}) as url:
        assert {each.partition(" ")[0] for each in seen(url).values()} == {"ok"}
    assert seen(url)["endpoint"].startswith("fail Is Tower up")
    with answering(200, {"issuer": "https://other.example"}) as url:
        assert f"--public-url {url}" in seen(url)["name"]
    with answering(200, ["no tower"]) as url:
        assert seen(url)["name"].startswith("fail")
    with answering(200, {"issuer": "SELF"}, hours=-2) as url:
        assert "NTP" in seen(url)["endpoint clock"]
    with answering(401, {}) as url:
        assert seen(url, key="twr_x_y")["key"].startswith("fail")
    with answering(500, {}) as url:
        assert Outside().app(url).status == checkup.WARN


def test_a_certificate_that_is_not_trusted(home: Path) -> None:
    certificate = tls.local(home / "tls", names=("localhost", "127.0.0.1"), now=time.time())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)

    class Quiet(HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not trust us hangs up."""

    with Quiet(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"https://127.0.0.1:{server.server_port}"
        try:
            assert "--ca-file" in seen(url)["tls"]
            assert seen(url, ca=home / "tls" / "ca.pem")["tls"].startswith("ok")
        finally:
            server.shutdown()
            thread.join()


def test_the_whole_command(tower: Tower) -> None:
    """The key comes on standard input; nothing of it is printed."""
    key = tower.keys["alice"]

    def doctor(*options: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "tower", "--home", tower.home, "doctor", "--endpoint", tower.url, *options],
            env=clean_environment({}),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    told = doctor("--with-key", "--app", f"{tower.url}/apps/p/d/none/", given=f"{key}\n")
    assert told.returncode == 0, told.stdout + told.stderr
    lines = told.stdout.splitlines()
    assert all(line.startswith(("ok   ", "warn ")) for line in lines)
    assert "ok   key: accepted as alice" in lines
    assert "ok   server: one runs over this home" in lines
    assert any(line.startswith("ok   app: ") for line in lines)
    assert key not in told.stdout + told.stderr
    public = f"{tower.url}/.well-known/oauth-authorization-server"
    open_ = doctor("--with-key", "--app", public, "-o", "json", given="twr_a_b\n")
    assert open_.returncode == 1
    failed = {each["name"]: each["remedy"] for each in json.loads(open_.stdout) if each["status"] == "fail"}
    assert failed.keys() == {"key", "app"}
    assert "requires_auth=True" in failed["app"]
    assert doctor("--with-key").returncode == 2

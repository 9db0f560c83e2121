"""What `tower doctor` looks at on the machine that serves: the home, its secrets, its database, its tools."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from tower.clock import SystemClock
from tower.control.proving import Proof
from tower.errors import Fault
from tower.executors.process.isolation import Mode, Wanted, choose
from tower.identity.signing import SigningKey
from tower.main.oauth import FOLDER
from tower.main.proof import prove, prove_end
from tower.settings import Settings
from tower.store.condition import condition
from tower.store.database import Database

OK, WARN, FAIL = "ok", "warn", "fail"

_CERTIFICATES = frozenset({"ca.pem", "server.pem", "trust.pem"})
_UNPACKED = frozenset({"images", "bundles", "code", "sdk", "run", "blobs", "logs"})
"""Folders of the home without a secret of their own; the home's mode keeps others out of them."""
_SOON = 30 * 24 * 3600.0
_LEAST_FREE = 1 << 30
_CLOCKS_DIFFER = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `status` is ok, warn or fail, `remedy` what to do about it."""

    name: str
    status: str
    told: str
    remedy: str = ""


def home(folder: Path, *, full: bool = False) -> list[Finding]:
    """Everything about one home; nothing is changed. With `full` every record of the audit is looked at."""
    if not folder.is_dir():
        remedy = "Start `tower up` once, or name another one with --home."
        return [Finding("home", FAIL, f"{folder} is not there", remedy)]
    checks: tuple[Callable[[Path], Iterator[Finding]], ...] = (
        _modes, _space, _database, _audit_full if full else _audit, _keys, _certificate, _uv, _isolation,
    )  # fmt: skip
    return [finding for check in checks for finding in _guarded(check, folder)]


def server(*, running: bool) -> Finding:
    """Whether a server holds the home."""
    if running:
        return Finding("server", OK, "one runs over this home")
    return Finding("server", WARN, "none runs over this home", "Start it: tower up")


def _guarded(check: Callable[[Path], Iterator[Finding]], folder: Path) -> Iterator[Finding]:
    """A check that cannot be made is a finding, too."""
    name = check.__name__.removeprefix("_").removesuffix("_full")
    try:
        yield from check(folder)
    except Fault as fault:
        yield Finding(name, FAIL, f"{fault.message} {fault.cause}".strip(), fault.hint)
    except (OSError, ValueError) as error:
        yield Finding(name, FAIL, f"it cannot be read: {error}", f"Look at {folder}.")


def _modes(folder: Path) -> Iterator[Finding]:
    status = folder.stat()
    if status.st_uid != os.geteuid():
        yield Finding(
            "home", FAIL, f"{folder} belongs to another user", "Run as the user that Tower runs as."
        )
    elif stat.S_IMODE(status.st_mode) & 0o077:
        yield Finding("home", FAIL, f"others can look into {folder}", f"chmod 700 {folder}")
    else:
        yield Finding("home", OK, str(folder))
    files = [path for path in _own_files(folder) if path.name not in _CERTIFICATES]
    open_ = [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_:
        names = " ".join(str(path) for path in open_[:5])
        yield Finding("secrets", FAIL, f"{len(open_)} files can be read by others", f"chmod 600 {names}")
    else:
        yield Finding("secrets", OK, f"{len(files)} files are their owner's alone")


def _own_files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or (entry.is_dir() and entry.name in _UNPACKED):
            continue
        if entry.is_dir():
            yield from _own_files(entry)
        elif entry.is_file():
            yield entry


def _space(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    told = f"{free / (1 << 30):.1f} GiB are free"
    if free < _LEAST_FREE:
        yield Finding("disk", WARN, told, "Make room: without it no run is accepted.")
    else:
        yield Finding("disk", OK, told)


def _database(folder: Path) -> Iterator[Finding]:
    path = Settings(home=folder).database
    if not path.exists():
        yield Finding("database", FAIL, "there is none", "Start `tower up` once, or restore a backup.")
        return
    database = Database.open(path, clock=SystemClock(), migrate=False, read_only=True)
    try:
        found = database.read_now(condition)
    finally:
        asyncio.run(database.close())
    if found.damage:
        yield Finding(
            "database", FAIL, f"it is damaged: {found.damage[:200]}", "Stop Tower and restore a backup."
        )
    else:
        yield Finding("database", OK, f"revision {found.revision}, whole")
    ahead = found.newest - time.time()
    if ahead > _CLOCKS_DIFFER:
        yield Finding(
            "clock",
            FAIL,
            f"the newest record was written {ahead:.0f} s in the future",
            "Set this machine's clock, by NTP: it was set back, and keys and tokens end too late.",
        )
    else:
        yield Finding("clock", OK, "it is not behind what was recorded")


def _audit(folder: Path) -> Iterator[Finding]:
    yield from _chain(folder, prove_end, "; --full looks at what is older, too")


def _audit_full(folder: Path) -> Iterator[Finding]:
    yield from _chain(folder, lambda home: prove(home)[0], "")


def _chain(folder: Path, look: Callable[[Path], Proof], unseen: str) -> Iterator[Finding]:
    if not Settings(home=folder).database.exists():
        return
    proof = look(folder)
    if proof.broken is not None:
        remedy = "Keep the database as evidence and look at `tower audit verify`."
        yield Finding("audit", FAIL, f"the chain is broken at {proof.broken}", remedy)
        return
    since = f" from record {proof.first}" if proof.first > 1 else ""
    told = f"whole{since} through record {proof.last}, signed through {proof.signed}"
    yield Finding("audit", OK, told + (unseen if since else ""))


def _keys(folder: Path) -> Iterator[Finding]:
    paths = [folder / "signing.key", *sorted((folder / FOLDER).glob("*.pem"))]
    if not paths[0].exists():
        remedy = "Restore it from a backup: what it sealed and signed is lost without it."
        yield Finding("keys", FAIL, f"{paths[0]} is not there", remedy)
        return
    for path in paths:
        try:
            SigningKey.load(path)
        except Fault as fault:
            yield Finding("keys", FAIL, f"{path.name}: {fault.message}", fault.hint or f"Restore {path}.")
            return
    yield Finding("keys", OK, f"{len(paths)} signing keys can be used")


def _certificate(folder: Path) -> Iterator[Finding]:
    path = folder / "tls" / "server.pem"
    if not path.exists():
        return
    read = x509.load_pem_x509_certificate(path.read_bytes())
    left = (read.not_valid_after_utc - datetime.now(UTC)).total_seconds()
    told = f"of the local authority, until {read.not_valid_after_utc:%Y-%m-%d}"
    if left < _SOON:
        remedy = "Start Tower again: it makes a new one."
        yield Finding("certificate", FAIL if left < 0 else WARN, told, remedy)
    else:
        yield Finding("certificate", OK, told)


def _uv(folder: Path) -> Iterator[Finding]:
    if importlib.util.find_spec("uv") is None:
        yield Finding("images", FAIL, "uv is not installed", "Install flyte-tower[server] again.")
        return
    from uv import find_uv_bin

    try:
        done = subprocess.run(
            [find_uv_bin(), "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("images", FAIL, f"uv does not start: {error}", "Install flyte-tower[server] again.")
        return
    if done.returncode:
        yield Finding("images", FAIL, "uv does not work", "Install flyte-tower[server] again.")
    else:
        yield Finding("images", OK, done.stdout.strip())


def _isolation(folder: Path) -> Iterator[Finding]:
    found, why = choose(Wanted.PREFERRED, hidden=(folder,))
    if found.mode is Mode.FULL:
        yield Finding("isolation", OK, str(found))
        return
    remedy = f"{why}. Until then run only code whose authors you would let administer this machine."
    yield Finding("isolation", WARN, f"tasks and apps are kept apart by: {found}", remedy)

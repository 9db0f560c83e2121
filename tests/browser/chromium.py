"""A Chromium to test with: one that the machine has, else one from its packages, else why there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_SECONDS = 600

# It calls nobody: every name but those of this machine is unknown to it.
OPTIONS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost",
)


@cache
def found() -> tuple[str, str]:
    """Its path, or "" and the reason why there is none."""
    path = _installed()
    if path:
        return path, ""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return "", f"none of {', '.join(NAMES)} is installed, and this user cannot install packages"
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "chromium"]):
        done = subprocess.run(
            ["apt-get", *command],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            return "", f"apt-get {command[0]} could not install chromium: {' '.join(last)}"
    return _installed(), "the package chromium brought no program of that name"


def options() -> list[str]:
    """The command line: root has no sandbox of Chromium's, and what it opens here are our own pages."""
    return [*OPTIONS, "--no-sandbox"] if os.geteuid() == 0 else list(OPTIONS)


def _installed() -> str:
    return next((path for name in NAMES if (path := shutil.which(name))), "")

"""The official SDK 2.12.1, unmodified and in an environment of its own, over TLS with passthrough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tests.seeds.conftest import TASK
from tests.tower_process import ROOT, Tower, clean_environment

pytestmark = [pytest.mark.official, pytest.mark.xdist_group("official")]
VERSION = "2.12.1"


@pytest.fixture(scope="session")
def official() -> Path:
    """The interpreter of an environment that holds the official SDK; built once and kept."""
    folder = ROOT / ".cache" / f"official-{VERSION}"
    python = folder / "bin" / "python"
    if not python.exists():
        fresh = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "-q", "--relocatable", "--python", sys.executable, fresh], check=True)
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", fresh / "bin" / "python", f"flyte=={VERSION}"],
            check=True,
        )
        if not folder.exists():
            os.rename(fresh, folder)
    return python


def test_passthrough_over_tls(official: Path, tower_tls: Tower, workspace: Path) -> None:
    (workspace / "tasks.py").write_text(TASK)
    tower_tls.flyte(
        "--project", "flytesnacks", "--domain", "development", "deploy", "tasks.py", "env", cwd=workspace
    )
    done = subprocess.run(
        [official, Path(__file__).with_name("client.py"), tower_tls.url.removeprefix("https://")],
        input=json.dumps({"key": tower_tls.keys["alice"]}),
        env=clean_environment(
            {
                "SSL_CERT_FILE": str(tower_tls.ca),
                "DO_NOT_TRACK": "1",
                "HOME": str(workspace),
                "PYTHONPATH": "",
            }
        ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr[-4000:]}\n{tower_tls.log[-4000:]}"
    told = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    assert told["version"] == VERSION
    assert told["subject"] == "alice"
    assert told["output"] == "hello 42 as alice", json.dumps(told)
    assert "succeeded" in told["phase"].lower()
    assert told["name"] in told["url"]
    assert "unauthenticated" in told["anonymous"].lower(), told["anonymous"]

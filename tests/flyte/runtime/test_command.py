"""What stands in for an app's command until its secrets are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHOW = "import json, os, sys; print(json.dumps([sys.argv, dict(os.environ), os.getcwd()]))"


def run(*words: str, directory: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "flyte.runtime.command", *words],
        env=env,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_takes_over_as_it_was_declared(tmp_path: Path) -> None:
    done = run(sys.executable, "-c", SHOW, "a b", "", directory=tmp_path, WORD="x", PYTHONPATH="/nowhere")
    argv, env, directory = json.loads(done.stdout)
    assert argv == ["-c", "a b", ""]
    assert {name: env[name] for name in ("WORD", "PYTHONPATH")} == {"WORD": "x", "PYTHONPATH": "/nowhere"}
    assert Path(directory) == tmp_path.resolve()
    assert done.stderr == ""


def test_its_exit_status_is_that_of_the_process(tmp_path: Path) -> None:
    assert run(sys.executable, "-c", "raise SystemExit(7)", directory=tmp_path).returncode == 7


@pytest.mark.parametrize("words", [(), ("/no/such/program",)])
def test_what_cannot_be_started_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(*words, directory=tmp_path)
    assert done.returncode in {2, 126}
    assert done.stderr.startswith("flyte.runtime.command: ")
    assert "Traceback" not in done.stderr


def test_without_its_secrets_the_command_is_not_started(tmp_path: Path) -> None:
    """Nobody answers where they would be asked for."""
    facts = json.dumps({"secrets": str(tmp_path / "secrets"), "ticket": "t"})
    program = tmp_path / "started"
    done = run("/bin/sh", "-c", f"echo > {program}", directory=tmp_path, FLYTE_ATTEMPT_FACTS=facts)
    assert done.returncode == 2
    assert "nobody to ask" in done.stderr
    assert not program.exists()

"""What a user chose has no say before the process is closed off: the launcher runs as Tower does."""

from __future__ import annotations

from pathlib import Path

import pytest
from flyteidl2.task import run_pb2
from tests.threats.conftest import Lab

from tower.executors.process.isolation import Wanted, choose

pytestmark = pytest.mark.xdist_group("threats")


def test_t09_variables_of_a_run_do_not_reach_the_launcher(lab: Lab, tmp_path: Path) -> None:
    """The dynamic linker obeys them as a process starts: LD_AUDIT would load the user's library outside."""
    if not choose(Wanted.PREFERRED)[0].mode.namespaces:
        pytest.skip("this machine does not isolate")
    output = tmp_path / "linker"
    lab.inside_task("bob", "def main(): return 1")  # forked: what has other variables is not, from here on
    spec = run_pb2.RunSpec()
    spec.envs.values.add(key="LD_DEBUG", value="libs")
    spec.envs.values.add(key="LD_DEBUG_OUTPUT", value=str(output))
    code = "import os\ndef main(): return [os.environ['LD_DEBUG_OUTPUT'], os.getppid()]"
    told = lab.inside_task("bob", code, run_spec=spec)
    assert told == [str(output), 1], "it has its variables, in a process of its own"
    assert list(tmp_path.iterdir()) == [], "a process outside has obeyed them"

"""T34: who may run a task, and register none, chooses no code by the variables of the run."""

from __future__ import annotations

import secrets

import pytest
from flyteidl2.task import run_pb2
from tests.threats.conftest import DOMAIN, PROJECT, Lab

pytestmark = pytest.mark.xdist_group("threats")


@pytest.fixture
def runner(lab: Lab) -> str:
    """Somebody who may run the task, look at it and at its runs, and nothing else."""
    name = f"runner-{secrets.token_hex(4)}"
    rights = {"name": name, "actions": ["task:run", "task:view", "run:view"]}
    assert lab.rest("admin", "POST", "/roles", rights).status_code in {200, 201}
    lab.tower.tower("users", "add", name)
    task = {"role": name, "user": name, "project": PROJECT, "domain": DOMAIN, "task": "lab.attack"}
    made = lab.rest("admin", "POST", "/bindings", task)
    assert made.status_code in {200, 201}, made.text
    lab.tower.keys[name] = lab.tower.new_key(f"{name}-key", name)
    return name


def test_t34_a_run_sets_no_variable_that_changes_what_code_runs(lab: Lab, runner: str) -> None:
    """An interpreter told to warn imports what it is told, and `antigravity` starts what BROWSER says."""
    chosen = {
        "PYTHONWARNINGS": "all:0:antigravity.x:0:0",
        "BROWSER": "/bin/sh -c 'echo mine' #%s",
        "PYTHONUSERBASE": ".",
        "LD_AUDIT": "./inputs.pb",
        "OPENSSL_CONF": "inputs.pb",
        "PATH": ".",
        "GIT_SSH_COMMAND": "sh",
        "SSL_CERT_FILE": "inputs.pb",
        "CC": "./inputs.pb",
        "https_proxy": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "TRITON_CACHE_DIR": ".",
        "_F_EXEC_WRAPPER": "sh -c 'echo mine'",
        "_F_SYS_PATH": "./.tower/inputs.pb",
    }
    for name, value in chosen.items():
        spec = run_pb2.RunSpec()
        spec.envs.values.add(key=name, value=value)
        refused = lab.start(runner, "def main(): return 1", run_spec=spec)
        assert refused.status_code == 400, name
        assert name in refused.text


def test_t34_what_else_a_run_sets_reaches_its_own_process_alone(lab: Lab, runner: str) -> None:
    """The import of a module under one person's variables is not what the runs of others begin with."""
    spec = run_pb2.RunSpec()
    for name, value in (("MOOD", "calm"), ("PYTHONHASHSEED", "7"), ("_F_SYS_PATH", "./src:lib")):
        spec.envs.values.add(key=name, value=value)
    ask = """
        import os, sys
        def main():
            return [os.environ.get("MOOD"), os.environ.get("PYTHONHASHSEED"), sys.orig_argv[-1]]
    """
    mood, seed, module = lab.inside_task(runner, ask, run_spec=spec)
    assert (mood, seed) == ("calm", "7")
    assert module == "flyte.runtime.task", "an interpreter of its own, not one that others are forked from"
    assert lab.inside_task("alice", ask)[:2] == [None, None]

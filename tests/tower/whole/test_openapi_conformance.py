"""What the administration API answers is what its description says, for an administrator and for a viewer.

Schemathesis makes the requests out of the description: good ones, bad ones, and chains of them. Left out is
the check that a request which fits the description is never answered with 400: names of things that do not
exist fit it, and are refused so.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tower_process import BIN, ROOT, Tower, clean_environment

PATIENCE = 580
"""Seconds for one caller, whatever else this machine does; some 40 on a quiet one."""

METHODS = {"get", "post", "put", "patch", "delete"}
PHASES = ("Examples", "Coverage", "Fuzzing", "Stateful")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
)

pytestmark = pytest.mark.xdist_group("openapi")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tower]:
    with Tower.started(tmp_path_factory.mktemp("openapi") / "home") as started:
        for name, role in (("warden", "admin"), ("watcher", "viewer")):
            started.tower("users", "add", name, "--role", role)
            started.keys[name] = started.new_key(f"{name}-key", name)
        yield started


@pytest.mark.parametrize("name", ["warden", "watcher"])
def test_the_api_keeps_to_its_description(described: Tower, tmp_path: Path, name: str) -> None:
    (tmp_path / "schemathesis.toml").write_text(
        '[auth.openapi.bearer]\nbearer = "${TOWER_BEARER}"\n'  # a key never stands in an argument
    )
    done = subprocess.run(
        [
            BIN / "schemathesis",
            "run",
            f"{described.url}/api/openapi.json",
            "--checks",
            ",".join(CHECKS),
            "--max-examples",
            "5",
            "--generation-deterministic",
            "--no-color",
        ],
        cwd=tmp_path,
        env=clean_environment(
            {
                "PYTHONPATH": str(ROOT),
                "SCHEMATHESIS_HOOKS": "tests.openapi_hooks",
                "TOWER_OWN": "warden,warden-key,watcher,watcher-key",
                "TOWER_BEARER": described.keys[name],
            }
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    for phase in PHASES:  # none was left out, nor any route
        assert f"✅ {phase}" in done.stdout, done.stdout[-3000:]
    with described.http(name) as client:  # the caller kept their standing, so the answers meant something
        assert client.get("/api/v1/whoami").json()["subject"] == name
        told = client.get("/api/openapi.json").json()["paths"].values()
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None
    assert int(tested[1]) == sum(len(each.keys() & METHODS) for each in told), done.stdout[-3000:]

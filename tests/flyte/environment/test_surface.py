"""What `import flyte` offers, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import flyte

SURFACE = [
    "Cron",
    "DeployedApp",
    "DeployedTask",
    "Deployment",
    "FixedRate",
    "Image",
    "Resources",
    "RetryStrategy",
    "Secret",
    "Task",
    "TaskEnvironment",
    "Timeout",
    "Trigger",
    "TriggerTime",
    "__version__",
    "app",
    "ctx",
    "current_domain",
    "current_project",
    "deploy",
    "errors",
    "identity_token",
    "init",
    "init_from_api_key",
    "init_from_config",
    "init_in_cluster",
    "init_passthrough",
    "map",
    "remote",
    "run",
    "serve",
    "with_runcontext",
]
HEAVY = ("google.protobuf", "httpcore", "h11", "pydantic", "flyteidl2", "msgpack", "asyncio", "ssl", "click")

PROGRAM = """
import json, sys
{}
print(json.dumps(sorted(sys.modules)))
"""


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(code)], capture_output=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


def test_the_public_surface() -> None:
    assert sorted(flyte.__all__) == SURFACE
    assert set(SURFACE) <= set(dir(flyte))
    for name in SURFACE:
        assert getattr(flyte, name) is not None
    assert not hasattr(flyte, "anything_else")


def test_import_flyte_is_light() -> None:
    loaded = loaded_by("import flyte")
    assert not [name for name in loaded if name.startswith(HEAVY)]
    ours = {name for name in loaded if name.partition(".")[0] in ("flyte", "tower")}
    assert ours == {"flyte"}


def test_a_declaration_is_light() -> None:
    loaded = loaded_by(
        "import flyte\n"
        "env = flyte.TaskEnvironment('e', resources=flyte.Resources(cpu=1, memory='512Mi'),"
        " image=flyte.Image.from_debian_base().with_pip_packages('x'))\n"
        "@env.task\n"
        "async def f(x: int) -> int: return x\n"
        "import flyte.errors, flyte.remote as remote"
    )
    heavy = ("google.protobuf", "httpcore", "pydantic", "flyteidl2", "msgpack")
    assert not [name for name in loaded if name.startswith(heavy)]

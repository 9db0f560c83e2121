"""flyte: write tasks and apps; they run as the person who asked for them.

This is the whole public surface, with `flyte.errors`, `flyte.remote` and `flyte.app`. Names are loaded when
they are first used: `import flyte` loads neither protobuf, nor an HTTP client, nor pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyte import app as app
    from flyte import errors as errors
    from flyte import remote as remote
    from flyte._context import ctx
    from flyte._deploy import DeployedApp, DeployedTask, Deployment, deploy, serve
    from flyte._environment import TaskEnvironment
    from flyte._identity import identity_token
    from flyte._init import (
        current_domain,
        current_project,
        init,
        init_from_api_key,
        init_from_config,
        init_in_cluster,
        init_passthrough,
    )
    from flyte._map import map  # noqa: A004
    from flyte._requirements import (
        Cron,
        FixedRate,
        Image,
        Resources,
        RetryStrategy,
        Secret,
        Timeout,
        Trigger,
        TriggerTime,
    )
    from flyte._run import run, with_runcontext
    from flyte._task import Task

__all__ = [
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

__version__: str

_MODULES = frozenset({"app", "errors", "remote"})
_HOMES = {
    "Cron": "_requirements",
    "DeployedApp": "_deploy",
    "DeployedTask": "_deploy",
    "Deployment": "_deploy",
    "FixedRate": "_requirements",
    "Image": "_requirements",
    "Resources": "_requirements",
    "RetryStrategy": "_requirements",
    "Secret": "_requirements",
    "Task": "_task",
    "TaskEnvironment": "_environment",
    "Timeout": "_requirements",
    "Trigger": "_requirements",
    "TriggerTime": "_requirements",
    "ctx": "_context",
    "current_domain": "_init",
    "current_project": "_init",
    "deploy": "_deploy",
    "identity_token": "_identity",
    "init": "_init",
    "init_from_api_key": "_init",
    "init_from_config": "_init",
    "init_in_cluster": "_init",
    "init_passthrough": "_init",
    "map": "_map",
    "run": "_run",
    "serve": "_deploy",
    "with_runcontext": "_run",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name in _MODULES:
        value = importlib.import_module(f"flyte.{name}")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"flyte.{_HOMES[name]}"), name)
    elif name == "__version__":
        from flyte._version import version

        value = version()
    else:
        raise AttributeError(f"module 'flyte' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

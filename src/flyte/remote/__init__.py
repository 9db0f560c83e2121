"""What lives on the control plane: users, tasks, runs, apps, projects, and who a call is made as.

`default()` is all of it bound to whoever this code runs as: in a task its executor, elsewhere the developer.

Importing this loads neither protobuf nor an HTTP client; the first use of a class does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flyte._context import carry_context
from flyte.remote._metadata import auth_metadata, get_auth_metadata

if TYPE_CHECKING:
    from flyte.remote._app import App
    from flyte.remote._default import Remote, default
    from flyte.remote._execution import Execution
    from flyte.remote._logs import LogLine
    from flyte.remote._phase import Phase
    from flyte.remote._project import Project
    from flyte.remote._run import Run
    from flyte.remote._secret import Secret
    from flyte.remote._task import Task, TaskDetails
    from flyte.remote._trigger import Trigger
    from flyte.remote._user import User

__all__ = [
    "App",
    "Execution",
    "LogLine",
    "Phase",
    "Project",
    "Remote",
    "Run",
    "Secret",
    "Task",
    "TaskDetails",
    "Trigger",
    "User",
    "auth_metadata",
    "carry_context",
    "default",
    "get_auth_metadata",
]

_HOMES = {
    "App": "_app",
    "Execution": "_execution",
    "LogLine": "_logs",
    "Phase": "_phase",
    "Project": "_project",
    "Remote": "_default",
    "Run": "_run",
    "Secret": "_secret",
    "Task": "_task",
    "TaskDetails": "_task",
    "Trigger": "_trigger",
    "User": "_user",
    "default": "_default",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

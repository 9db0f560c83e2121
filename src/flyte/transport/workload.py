"""Finding the agent's socket: the way out of a process that the platform hosts.

Tower listens on one Unix socket per task attempt and per app. A task's socket is its identity; on an app's
socket the caller's token is asked for besides, and the socket vouches for the app.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from flyte import _config


@dataclass(frozen=True, slots=True)
class Agent:
    """The socket of this process.

    :ivar path: where it lies in the file system.
    :ivar kind: whether a task or an app is behind this end of it.
    :ivar endpoint: the control plane behind the other end, by its public name.
    :ivar name: a public name of the workload, for cache keys.
    """

    path: str
    kind: Literal["task", "app"]
    endpoint: _config.Endpoint
    name: str


def find() -> Agent | None:
    """The socket that the platform injected into this process, or None outside of it."""
    path = _config.variable(_config.AGENT_SOCKET)
    public = _config.variable(_config.INJECTED_ENDPOINT)
    if path is None or public is None:
        return None
    app = _config.variable("FLYTE_APP_NAME")
    name = app or "/".join(
        os.environ.get(part, "") for part in ("RUN_NAME", "ACTION_NAME", "FLYTE_ATTEMPT_NUMBER")
    )
    return Agent(
        path,
        "app" if app else "task",
        _config.Endpoint.parse(public, insecure=public.startswith("http://")),
        f"{path}:{name}",
    )

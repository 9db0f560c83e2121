"""The process on the other end of a Tower socket, as attested by the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WorkloadKind(StrEnum):
    """What the socket belongs to."""

    ATTEMPT = "attempt"
    APP = "app"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Workload:
    """Whose socket a request came in on.

    For an attempt `id` is `project/domain/run/action/attempt`, for an app `project/domain/name`, for the
    administration socket "admin". The doors find it in the ASGI scope under `scope["state"]["workload"]`; the
    public listener sets that key for calls of agents alone; `agent` is then the public key of the agent.
    """

    kind: WorkloadKind
    id: str
    pid: int
    agent: bytes = b""

"""The start message of one attempt: ids, paths and public facts; never a credential.

With `prepare` for `start` it is of an attempt that nobody has asked for yet: a child is to wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PER_ATTEMPT = frozenset(
    {
        "ACTION_NAME",
        "FLYTE_AGENT_SOCKET",
        "FLYTE_ATTEMPT_FACTS",
        "FLYTE_ATTEMPT_NUMBER",
        "FLYTE_INTERNAL_EXECUTION_DOMAIN",
        "FLYTE_INTERNAL_EXECUTION_PROJECT",
        "FLYTE_TASK_VERSION",
        "RUN_NAME",
        "TMPDIR",
        "_U_ORG_NAME",
    }
)
"""Variables that differ between the attempts of one task; a module must not depend on them when imported."""


class MessageError(ValueError):
    """What came is no start message."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that the process sets on itself, where no control group holds them. None leaves one as it is."""

    memory: int | None = None
    cpu: float | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """One attempt to run.

    :ivar directory: the attempt's own directory, with `inputs.pb`; outputs or error are left there.
    :ivar env: the whole environment of the attempt.
    :ivar groups: how many descriptors of control group files come along, to be entered by writing "0".
    :ivar done: whether a descriptor comes along by which the process says that its result is written.
    :ivar waits: whether there is no attempt yet, only what all attempts of its kind have in common.
    :ivar sandbox: how a child of a template closes itself off, for the executor's script; None: not at all.
    :ivar bundle: the directory of the unpacked code, or None.
    """

    id: str
    module: str
    task: str
    directory: Path
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    groups: int = 0
    done: bool = False
    waits: bool = False
    bundle: Path | None = None
    sandbox: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, text: bytes, *, bundle: Path | None = None) -> Start:
        """Read a message; a bundle in it wins over the argument. Raises MessageError."""
        try:
            message: dict[str, Any] = json.loads(text)
            if message["op"] not in {"start", "prepare"}:
                raise MessageError(f"unknown operation {message['op']!r}")
            limits = message.get("limits") or {}
            env = {str(name): str(value) for name, value in message["env"].items()}
            if message.get("agent_socket"):
                env.setdefault("FLYTE_AGENT_SOCKET", str(message["agent_socket"]))
            return cls(
                id=str(message["id"]),
                module=str(message["module"]),
                task=str(message["task"]),
                directory=Path(message["directory"]),
                env=env,
                limits=Limits(limits.get("memory"), limits.get("cpu"), limits.get("processes")),
                groups=int(message.get("cgroups") or 0),
                done=bool(message.get("done")),
                waits=message["op"] == "prepare",
                bundle=Path(message["bundle"]) if message.get("bundle") else bundle,
                sandbox=message.get("sandbox"),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            raise MessageError(f"not a start message: {type(fault).__name__}") from fault

    @property
    def descriptors(self) -> int:
        """How many descriptors come with the message."""
        return 1 + self.groups + (self.done and not self.waits)

    @property
    def import_env(self) -> dict[str, str]:
        """The part of the environment that is the same for all attempts of the task."""
        return {name: value for name, value in self.env.items() if name not in PER_ATTEMPT}

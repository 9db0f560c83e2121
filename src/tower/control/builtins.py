"""Tasks that Tower itself does, under names that clients know. Everybody who is signed in finds them.

A run of one is asked for, decided, recorded and shown as any other; only that no process is started for it.
"""

from __future__ import annotations

from functools import cache

from flyteidl2.core import types_pb2
from flyteidl2.task import task_definition_pb2

from tower.control.definitions import Definition, ready
from tower.identity.authenticators import MACHINE
from tower.store.definitions import TaskKey, TaskRow

PLACE = ("system", "production")
"""Their project, whose name nobody else can take, and their domain."""

BUILD_IMAGE: TaskKey = (*PLACE, "build-image")
"""Makes an image: from the URI of its description, the URI of its files and a wish, to the name it has."""

VERSION = "1"
_ARGUMENTS = ("tower", "build-image")


def find(key: TaskKey, version: str = "") -> Definition | None:
    """A task of Tower's own by its name; None for any other."""
    return _build_image() if key == BUILD_IMAGE and version in {"", VERSION} else None


def every() -> tuple[Definition, ...]:
    """All of them."""
    return (_build_image(),)


def builds_image(spec: task_definition_pb2.TaskSpec) -> bool:
    """Whether the specification is that of `BUILD_IMAGE`."""
    return tuple(spec.task_template.container.args) == _ARGUMENTS


@cache
def _build_image() -> Definition:
    project, domain, name = BUILD_IMAGE
    spec = task_definition_pb2.TaskSpec(short_name=name)
    template = spec.task_template
    template.type = "tower"
    template.id.project, template.id.domain, template.id.name, template.id.version = (
        project,
        domain,
        name,
        VERSION,
    )
    template.container.args.extend(_ARGUMENTS)
    for variable in ("spec", "context", "target_image"):
        entry = template.interface.inputs.variables.add(key=variable)
        entry.value.type.simple = types_pb2.STRING
    entry = template.interface.outputs.variables.add(key="o0")
    entry.value.type.simple = types_pb2.STRING
    row = TaskRow(
        project=project,
        domain=domain,
        name=name,
        version=VERSION,
        digest="",
        code_digest="",
        short_name=name,
        environment="",
        description="Makes the environment of an image.",
        deployed_by=MACHINE.subject,
        deployed_at=0.0,
        serial=0,
    )
    return ready(row, spec)

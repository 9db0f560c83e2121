"""What the process of an attempt is told at its start: what others of its kind share, and what is its own."""

from __future__ import annotations

import json
from pathlib import Path

from tower.control.reconcile import plan
from tower.control.reconcile.ahead import Kind
from tower.control.reconcile.plan import Declared, Ground
from tower.control.reconcile.rooms import Room
from tower.executors.port import TaskJob
from tower.images.port import Environment
from tower.store.runs import ActionRow


def kind(declared: Declared, ground: Ground, *, image: Environment, bundle: Path | None, code: str) -> Kind:
    """What the attempt has in common with others."""
    env = plan.process_env(declared, ground, image_env=image.env, python=image.python, own={})
    return Kind(
        python=image.python,
        bundle=bundle,
        module=declared.module,
        env=tuple(env.items()),
        limits=declared.limits,
        needs=image.needs,
        beside=f"{image.digest} {code}",
    )


def job(
    identity: str, row: ActionRow, declared: Declared, *, kind: Kind, room: Room, number: int, name: str
) -> TaskJob:
    """The attempt of this number, in its room; `name` is that of the person for whom it runs."""
    own = {
        "FLYTE_INTERNAL_EXECUTION_PROJECT": row.project,
        "FLYTE_INTERNAL_EXECUTION_DOMAIN": row.domain,
        "FLYTE_AGENT_SOCKET": str(room.agent_socket),
        "FLYTE_ATTEMPT_FACTS": _facts(row, declared, room, name=name),
        "FLYTE_ATTEMPT_NUMBER": str(number),
        "FLYTE_TASK_VERSION": row.task_version,
        "RUN_NAME": row.run,
        "ACTION_NAME": row.action,
        "TMPDIR": str(room.temporary),
    }
    return TaskJob(
        id=identity,
        python=kind.python,
        bundle=kind.bundle,
        module=declared.module,
        task=declared.name,
        directory=room.directory,
        agent_socket=room.agent_socket,
        env=dict(kind.env) | own,
        limits=declared.limits,
        needs=kind.needs,
        alone=declared.chosen,
    )


def _facts(row: ActionRow, declared: Declared, room: Room, *, name: str) -> str:
    """What `flyte.ctx()` tells; nothing is decided by it, and nothing in it is secret."""
    facts = {
        "subject": row.executed_by,
        "name": name,
        "via_app": row.via_app,
        "task_project": row.task_project if row.task_project != row.project else "",
        "task_domain": row.task_domain if row.task_domain != row.domain else "",
        "image": declared.image_name,
        "code_digest": row.code_digest,
        "secrets": str(room.secrets) if declared.secrets else "",
    }
    return json.dumps({key: value for key, value in facts.items() if value}, ensure_ascii=False)

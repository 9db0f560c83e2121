"""How deep a call comes from inside of runs, and that nothing asks for itself again."""

from __future__ import annotations

from tower.errors import Exhausted, Precondition
from tower.identity.principal import ActorKind, Principal
from tower.store import runs
from tower.store.database import Database
from tower.store.definitions import TaskKey
from tower.store.runs import ActionKey

MAX_DEPTH = 8
"""How many actions may stand behind one another: one asked for by another, in the same run or by a run."""


def depth(principal: Principal) -> int:
    """How many actions stand behind this call. Raises Exhausted when none may follow."""
    if not principal.actors:
        return 0
    found = sum(actor.kind is ActorKind.RUN for actor in principal.actors)
    if found >= MAX_DEPTH:
        raise Exhausted(
            f"At most {MAX_DEPTH} runs may ask for one another in a row, the tasks that they call included.",
            hint="Start the work from further up.",
        )
    return found


def refuse_loop(db: Database, principal: Principal, *, task: TaskKey, version: str, inputs_hash: str) -> None:
    """Raise Precondition when an action behind this call is the same task with the same inputs."""
    for actor in principal.actors:
        if actor.kind is not ActorKind.RUN:
            continue
        key = ActionKey(*actor.id.split("/")[:4])
        row = db.read_now(lambda reader, key=key: runs.get(reader, key))  # type: ignore[misc]
        if row is None:
            continue
        same = (row.task_project, row.task_domain, row.task_name) == task and row.task_version == version
        if same and row.inputs_hash == inputs_hash:
            raise Precondition(
                f"{task[2]} asks for itself with the same inputs: this would not end.",
                hint="Pass other inputs, or write a loop in the task.",
            )

"""Stored actions as the messages of the run service.

The protocol has no field for the app and the credential that a run was asked for with, nor for when. They
travel as labels, `tower/via-app`, `tower/credential-kind`, `tower/credential-id`, `tower/parent-run` and
`tower/created-at`, on `Run.labels` and on the run specification of `RunDetails`: clients read them there.
Only Tower sets them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from flyteidl2.common import identifier_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2 as pb
from flyteidl2.workflow import run_service_pb2

from tower.clock import utc
from tower.control.triggerviews import started_by
from tower.control.watching import ActionKey, ActionRow, AttemptRow, Person, Seen
from tower.rpc.messages import person, stamp

_KINDS = {"user": pb.ErrorInfo.KIND_USER, "system": pb.ErrorInfo.KIND_SYSTEM}


def key_of_run(run: identifier_pb2.RunIdentifier) -> ActionKey:
    """The root action of a run."""
    return ActionKey(run.project, run.domain, run.name)


def key_of(action: identifier_pb2.ActionIdentifier) -> ActionKey:
    """An action; without a name the root."""
    root = key_of_run(action.run)
    return root._replace(action=action.name) if action.name else root


def own_labels(row: ActionRow) -> dict[str, str]:
    """What Tower itself says about a run."""
    labels = _own_labels(row.credential_kind, row.credential_id, row.via_app)
    if row.actors != "[]":
        if parent := _asked_by(row.actors):
            labels["tower/parent-run"] = parent
        if trigger := started_by(row.actors):
            labels["tower/trigger"] = str(trigger[0])
    if row.started_at is not None:  # until then the start time of the status is this one
        labels["tower/created-at"] = utc(row.created_at).isoformat()
    return labels


def _own_labels(kind: str, credential: str, app: str) -> dict[str, str]:
    labels = {"tower/credential-kind": kind, "tower/credential-id": credential}
    if app:
        labels["tower/via-app"] = app
    return labels


def _asked_by(actors: str) -> str:
    """`project/domain/name` of the run that asked for this one from inside, "" for a caller outside."""
    runs = [actor for actor in json.loads(actors) if actor.startswith("run:")]
    return "/".join(runs[-1].removeprefix("run:").split("/")[:3]) if runs else ""


def run(row: ActionRow, executor: Person) -> pb.Run:
    """A run as lists show it."""
    labels = own_labels(row)
    if row.labels != "{}":
        labels = {**json.loads(row.labels), **labels}
    return pb.Run(action=action(row, executor), labels=labels)


def created(row: ActionRow, executor: Person) -> run_service_pb2.CreateRunResponse:
    """The answer to a CreateRun."""
    inside = '"run:' in row.actors
    if inside or row.labels != "{}" or row.started_at is not None or row.ended_at is not None:
        return run_service_pb2.CreateRunResponse(run=run(row, executor))
    credential = (row.credential_kind, row.credential_id, row.via_app)
    task = (row.task_project, row.task_domain, row.task_name, row.task_version)
    made: run_service_pb2.CreateRunResponse = run_service_pb2.CreateRunResponse.FromString(
        _usual(task, executor, row.parent or "", (row.project, row.domain), credential)
    )
    shown = made.run.action
    shown.id.run.name = row.run
    shown.id.name = row.action
    status = shown.status
    status.phase = _phase(row.phase)
    status.attempts = max(1, row.attempts)
    begun, whole = status.start_time, round(row.created_at * 1e6)
    begun.seconds, part = divmod(whole, 1_000_000)
    begun.nanos = part * 1000
    return made


@lru_cache(maxsize=16_384)  # people: as many as the directory remembers
def _usual(
    task: tuple[str, str, str, str],
    executor: Person,
    parent: str,
    place: tuple[str, str],
    credential: tuple[str, str, str],
) -> bytes:
    """What the answers about all new runs of a task by one person with one credential share."""
    made = run_service_pb2.CreateRunResponse()
    made.run.action.metadata.CopyFrom(_described(task, executor, parent))
    made.run.action.id.run.project, made.run.action.id.run.domain = place
    for label, value in _own_labels(*credential).items():
        made.run.labels[label] = value
    data: bytes = made.SerializeToString()
    return data


def action(row: ActionRow, executor: Person) -> pb.Action:
    """An action as lists show it."""
    return pb.Action(id=_identifier(row), metadata=_metadata(row, executor), status=_status(row))


def run_details(seen: Seen) -> pb.RunDetails:
    """A run with its specification."""
    spec = run_pb2.RunSpec.FromString(seen.row.run_spec)
    for label, value in own_labels(seen.row).items():
        spec.labels.values[label] = value
    return pb.RunDetails(run_spec=spec, action=details(seen))


def details(seen: Seen) -> pb.ActionDetails:
    """An action with its task, its attempts and how it ended."""
    row = seen.row
    made = pb.ActionDetails(
        id=_identifier(row),
        metadata=_metadata(row, seen.executor),
        status=_status(row, attempts=len(seen.attempts)),
    )
    if seen.spec is not None:
        made.task.CopyFrom(seen.spec)
        made.metadata.task.task_type = seen.spec.task_template.type
        made.metadata.task.short_name = seen.spec.short_name
        made.metadata.environment_name = seen.spec.environment.name
    if row.aborted_by or row.abort_reason:
        made.abort_info.reason = row.abort_reason
        if seen.aborter is not None:
            made.abort_info.aborted_by.CopyFrom(_person(seen.aborter))
    elif row.error:
        made.error_info.CopyFrom(_error(row.error))
    for each in seen.attempts:
        made.attempts.append(_attempt(each))
    if not seen.attempts:  # clients take the last attempt without looking whether there is one
        made.attempts.add(attempt=1, phase=_phase(row.phase), start_time=stamp(row.queued_at))
    return made


def _identifier(row: ActionRow) -> Any:
    return identifier_pb2.ActionIdentifier(
        run=identifier_pb2.RunIdentifier(project=row.project, domain=row.domain, name=row.run),
        name=row.action,
    )


def _person(known: Person) -> Any:
    return person(known.subject, kind=known.kind, name=known.name, email=known.email)


def _metadata(row: ActionRow, executor: Person) -> pb.ActionMetadata:
    task = (row.task_project, row.task_domain, row.task_name, row.task_version)
    described = _described(task, executor, row.parent or "")
    trigger = started_by(row.actors)
    if trigger is None:
        return described
    key, revision = trigger
    made = pb.ActionMetadata()
    made.CopyFrom(described)
    made.source = pb.RUN_SOURCE_SCHEDULE_TRIGGER
    made.trigger_name, made.trigger_id.revision = key.name, revision
    name = made.trigger_id.name
    name.project, name.domain, name.task_name, name.name = key
    return made


@lru_cache(maxsize=1024)
def _described(task_key: tuple[str, str, str, str], executor: Person, parent: str) -> pb.ActionMetadata:
    """The part that all runs of a task by one person share: put it into messages, never change it."""
    environment, _, function = task_key[2].rpartition(".")
    metadata = pb.ActionMetadata(
        parent=parent,
        executed_by=_person(executor),
        action_type=pb.ACTION_TYPE_TASK,
        environment_name=environment,
        funtion_name=function,
    )
    task = metadata.task.id
    task.project, task.domain, task.name, task.version = task_key
    metadata.task.short_name = function
    return metadata


def _status(row: ActionRow, *, attempts: int | None = None) -> pb.ActionStatus:
    started = row.started_at or row.created_at
    status = pb.ActionStatus(
        phase=_phase(row.phase),
        start_time=stamp(started),
        attempts=max(1, row.attempts if attempts is None else attempts),
    )
    if row.ended_at is not None:
        status.end_time.CopyFrom(stamp(row.ended_at))
        status.duration_ms = max(0, round((row.ended_at - started) * 1000))
    return status


def _attempt(row: AttemptRow) -> pb.ActionAttempt:
    attempt = pb.ActionAttempt(
        attempt=row.attempt,
        phase=_phase(row.phase),
        start_time=stamp(row.started_at or row.created_at),
        logs_available=row.has_logs,
    )
    if row.ended_at is not None:
        attempt.end_time.CopyFrom(stamp(row.ended_at))
    if row.error:
        attempt.error_info.CopyFrom(_error(row.error))
    if row.outputs_uri:
        attempt.outputs.output_uri = row.outputs_uri
    return attempt


def _phase(phase: int) -> Any:
    return int(phase)


def _error(stored: str) -> pb.ErrorInfo:
    error = json.loads(stored)
    return pb.ErrorInfo(
        message=error.get("message", ""),
        code=error.get("code", ""),
        kind=_KINDS.get(error.get("kind", ""), pb.ErrorInfo.KIND_UNSPECIFIED),
    )

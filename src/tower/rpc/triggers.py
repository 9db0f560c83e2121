"""TriggerService: translates, decides nothing.

The protocol has no field for whom a trigger runs as, whether it is suspended and why, and when it is due.
They travel as labels of the run specification of `TriggerDetails`, `tower/run-as`, `tower/owner`,
`tower/state`, `tower/notice`, `tower/next-at`, `tower/last-at` and `tower/last-run`. Only Tower sets them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flyteidl2.common import identifier_pb2
from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2
from flyteidl2.trigger import trigger_definition_pb2 as pb
from flyteidl2.trigger import trigger_service_pb2 as service

from tower.clock import utc
from tower.control.schedules import Declared, Schedules, TriggerKey, TriggerRow
from tower.control.triggerviews import RevisionRow, State
from tower.errors import Invalid
from tower.rpc.caller import current
from tower.rpc.messages import person, query, stamp


class TriggerService:
    """flyteidl2.trigger.TriggerService."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    async def deploy_trigger(self, request: Any, ctx: Any) -> Any:
        """Set one trigger, of a version that is deployed."""
        call = current()
        spec, key = request.spec, key_of(request.name)
        declared = _declared(key.name, spec, request.automation_spec)
        shown = await self._schedules.deploy(
            call.principal,
            key[:3],
            spec.task_version,
            declared,
            revision=request.revision,
            request_id=call.request_id,
        )
        return service.DeployTriggerResponse(trigger=details(shown.row))

    async def get_trigger_details(self, request: Any, ctx: Any) -> Any:
        """One trigger as it is now."""
        call = current()
        key = key_of(request.name)
        shown = await self._schedules.views.get(call.principal, key, request_id=call.request_id)
        return service.GetTriggerDetailsResponse(trigger=details(shown.row))

    async def get_trigger_revision_details(self, request: Any, ctx: Any) -> Any:
        """One trigger as a change made it."""
        call = current()
        row = await self._schedules.views.revision(
            call.principal, key_of(request.id.name), request.id.revision, request_id=call.request_id
        )
        return service.GetTriggerRevisionDetailsResponse(trigger=_revision_details(row))

    async def list_triggers(self, request: Any, ctx: Any) -> Any:
        """The triggers of tasks that the caller may view."""
        project, domain, task, version = "", "", "", ""
        match request.WhichOneof("scope_by"):
            case "project_id":
                project, domain = request.project_id.name, request.project_id.domain
            case "task_name":
                named = request.task_name
                project, domain, task = named.project, named.domain, named.name
            case "task_id":
                named = request.task_id
                project, domain, task, version = named.project, named.domain, named.name, named.version
            case _:
                pass
        rows, token = await self._schedules.views.page(
            current().principal,
            query(request.request),
            project=project,
            domain=domain,
            task=task,
            version=version,
        )
        return service.ListTriggersResponse(triggers=[_listed(row) for row in rows], token=token)

    async def get_trigger_revision_history(self, request: Any, ctx: Any) -> Any:
        """The changes of one trigger, also after it was deleted."""
        call = current()
        rows, token = await self._schedules.views.revisions(
            call.principal, key_of(request.name), query(request.request), request_id=call.request_id
        )
        answer = service.GetTriggerRevisionHistoryResponse(token=token)
        for row in rows:
            answer.triggers.add(
                id=_identifier(TriggerKey(row.project, row.domain, row.task, row.name), row.revision),
                metadata=pb.TriggerMetadata(updated_by=_person(row.by)),
                action=_number(row.action),
                created_at=stamp(row.at),
            )
        return answer

    async def update_triggers(self, request: Any, ctx: Any) -> Any:
        """Switch triggers on or off."""
        call = current()
        await self._schedules.set_active(
            call.principal, _keys(request.names), request.active, request_id=call.request_id
        )
        return service.UpdateTriggersResponse()

    async def delete_triggers(self, request: Any, ctx: Any) -> Any:
        """Delete triggers."""
        call = current()
        await self._schedules.delete(call.principal, _keys(request.names), request_id=call.request_id)
        return service.DeleteTriggersResponse()


def key_of(name: identifier_pb2.TriggerName) -> TriggerKey:
    """Where a trigger stands."""
    return TriggerKey(name.project, name.domain, name.task_name, name.name)


def declared_with(triggers: Iterable[task_definition_pb2.TaskTrigger]) -> list[Declared]:
    """The triggers that come with a task."""
    return [_declared(each.name, each.spec, each.automation_spec) for each in triggers]


def details(row: TriggerRow) -> pb.TriggerDetails:
    """A trigger in full."""
    spec = pb.TriggerSpec(
        inputs=common_pb2.Inputs.FromString(row.inputs),
        run_spec=run_pb2.RunSpec.FromString(row.run_spec),
        active=row.state is State.ACTIVE,
        task_version=row.version,
        description=row.description,
    )
    for label, value in _own_labels(row).items():
        spec.run_spec.labels.values[label] = value
    return pb.TriggerDetails(
        id=_identifier(row.key, row.revision),
        metadata=_metadata(row),
        spec=spec,
        status=_status(row),
        automation_spec=_automation(row.automation),
        description=row.description,
    )


def _declared(
    name: str,
    spec: pb.TriggerSpec | task_definition_pb2.TaskTriggerSpec,
    automation: common_pb2.TriggerAutomationSpec,
) -> Declared:
    if not name:
        raise Invalid("The trigger has no name.")
    return Declared(
        name=name,
        automation=automation,
        inputs=spec.inputs,
        inputs_uri=spec.offloaded_input_data.uri,
        run_spec=spec.run_spec,
        active=spec.active,
        description=spec.description,
    )


def _keys(names: Iterable[identifier_pb2.TriggerName]) -> list[TriggerKey]:
    keys = [key_of(name) for name in names]
    if not keys:
        raise Invalid("The request names no trigger.")
    return keys


def _own_labels(row: TriggerRow) -> dict[str, str]:
    labels = {"tower/state": row.state.value, "tower/owner": row.owner}
    for name, value in (("run-as", row.run_as), ("notice", row.notice), ("last-run", row.last_run)):
        if value:
            labels[f"tower/{name}"] = value
    for name, at in (("next-at", row.next_at), ("last-at", row.last_at)):
        if at is not None:
            labels[f"tower/{name}"] = utc(at).isoformat()
    return labels


def _listed(row: TriggerRow) -> pb.Trigger:
    return pb.Trigger(
        id=_identifier(row.key, row.revision),
        metadata=_metadata(row),
        status=_status(row),
        active=row.state is State.ACTIVE,
        automation_spec=_automation(row.automation),
    )


def _revision_details(row: RevisionRow) -> pb.TriggerDetails:
    key = TriggerKey(row.project, row.domain, row.task, row.name)
    spec = pb.TriggerSpec(
        inputs=common_pb2.Inputs.FromString(row.inputs),
        run_spec=run_pb2.RunSpec.FromString(row.run_spec),
        active=row.state is State.ACTIVE,
        task_version=row.version,
        description=row.description,
    )
    spec.run_spec.labels.values["tower/run-as"] = row.run_as
    return pb.TriggerDetails(
        id=_identifier(key, row.revision),
        metadata=pb.TriggerMetadata(updated_by=_person(row.by)),
        spec=spec,
        status=pb.TriggerStatus(updated_at=stamp(row.at)),
        automation_spec=_automation(row.automation),
        description=row.description,
    )


def _identifier(key: TriggerKey, revision: int) -> Any:
    name = identifier_pb2.TriggerName(
        project=key.project, domain=key.domain, name=key.name, task_name=key.task
    )
    return identifier_pb2.TriggerIdentifier(name=name, revision=revision)


def _metadata(row: TriggerRow) -> pb.TriggerMetadata:
    return pb.TriggerMetadata(deployed_by=_person(row.deployed_by), updated_by=_person(row.updated_by))


def _status(row: TriggerRow) -> pb.TriggerStatus:
    status = pb.TriggerStatus(deployed_at=stamp(row.deployed_at), updated_at=stamp(row.updated_at))
    if row.last_at is not None:
        status.triggered_at.CopyFrom(stamp(row.last_at))
    return status


def _person(subject: str) -> Any:
    return person(subject, kind=None, name=None, email=None)


def _automation(data: bytes) -> Any:
    return common_pb2.TriggerAutomationSpec.FromString(data)


def _number(action: int) -> Any:
    return action

"""RunService: translates, decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from flyteidl2.workflow import run_definition_pb2, run_service_pb2

from tower.control import runspecs
from tower.control.data import Data
from tower.control.launches import Launch
from tower.control.runs import Runs
from tower.control.schedules import Schedules
from tower.control.watching import ActionKey, Watching
from tower.errors import Invalid, Unsupported
from tower.rpc import actions, triggers
from tower.rpc.caller import current
from tower.rpc.messages import query


class RunService:
    """flyteidl2.workflow.RunService. Where clients find a run's app and credential: see `rpc/actions.py`."""

    def __init__(self, *, runs: Runs, schedules: Schedules, watching: Watching, data: Data) -> None:
        self._runs = runs
        self._schedules = schedules
        self._watching = watching
        self._data = data

    async def create_run(self, request: Any, ctx: Any) -> Any:
        """Accept a run. Owner, source and parent come from the caller's identity alone (T10, T38)."""
        call = current()
        asked = _launch(request)
        if asked.task is None and asked.spec is None:
            asked = await self._of_trigger(asked, request)
        launched = await self._runs.launch(call.principal, asked, request_id=call.request_id)
        return actions.created(launched.row, launched.executor)

    async def abort_run(self, request: Any, ctx: Any) -> Any:
        """End all of a run."""
        await self._abort(actions.key_of_run(request.run_id), reason=request.reason, whole_run=True)
        return run_service_pb2.AbortRunResponse()

    async def abort_action(self, request: Any, ctx: Any) -> Any:
        """End one action."""
        await self._abort(actions.key_of(request.action_id), reason=request.reason, whole_run=False)
        return run_service_pb2.AbortActionResponse()

    async def get_run_details(self, request: Any, ctx: Any) -> Any:
        """One run."""
        call = current()
        key = actions.key_of_run(request.run_id)
        seen = await self._watching.get(call.principal, key, request_id=call.request_id)
        return run_service_pb2.GetRunDetailsResponse(details=actions.run_details(seen))

    async def get_action_details(self, request: Any, ctx: Any) -> Any:
        """One action."""
        call = current()
        key = actions.key_of(request.action_id)
        seen = await self._watching.get(call.principal, key, request_id=call.request_id)
        return run_service_pb2.GetActionDetailsResponse(details=actions.details(seen))

    async def watch_run_details(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """One run now and after each change, to its end."""
        call = current()
        key = actions.key_of_run(request.run_id)
        async for seen in self._watching.watch(call.principal, key, request_id=call.request_id):
            yield run_service_pb2.WatchRunDetailsResponse(details=actions.run_details(seen))

    async def watch_action_details(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """One action now and after each change, to its end."""
        call = current()
        key = actions.key_of(request.action_id)
        async for seen in self._watching.watch(call.principal, key, request_id=call.request_id):
            yield run_service_pb2.WatchActionDetailsResponse(details=actions.details(seen))

    async def list_runs(self, request: Any, ctx: Any) -> Any:
        """The runs that the caller may view."""
        if request.paused_actions_only:
            return run_service_pb2.ListRunsResponse()
        project, domain, task, version, trigger = "", "", None, "", None
        match request.WhichOneof("scope_by"):
            case "project_id":
                project, domain = request.project_id.name, request.project_id.domain
            case "task_name":
                named = request.task_name
                task = (named.project, named.domain, named.name)
            case "task_id":
                named, version = request.task_id, request.task_id.version
                task = (named.project, named.domain, named.name)
            case "trigger_name":
                trigger = triggers.key_of(request.trigger_name)
                project, domain = trigger.project, trigger.domain
            case _:
                pass
        rows, token = await self._watching.page(
            current().principal,
            query(request.request),
            project=project,
            domain=domain,
            task=task,
            version=version,
            trigger=trigger,
        )
        runs = [actions.run(seen.row, seen.executor) for seen in rows]
        return run_service_pb2.ListRunsResponse(runs=runs, token=token)

    async def watch_runs(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """The newest runs of a domain, and each change of them."""
        scope, task = request.project_id, None
        project, domain = scope.name, scope.domain
        if request.WhichOneof("target") == "task_id":
            named = request.task_id
            project, domain, task = named.project, named.domain, (named.project, named.domain, named.name)
        if not project or not domain:
            raise Unsupported("Runs are watched by project and domain.", hint="Name both.")
        watched = self._watching.watch_scope(current().principal, project=project, domain=domain, task=task)
        async for rows in watched:
            runs = [actions.run(seen.row, seen.executor) for seen in rows]
            yield run_service_pb2.WatchRunsResponse(runs=runs)

    async def list_actions(self, request: Any, ctx: Any) -> Any:
        """The actions of one run."""
        call = current()
        rows, token = await self._watching.actions(
            call.principal,
            actions.key_of_run(request.run_id),
            query(request.request),
            request_id=call.request_id,
        )
        listed = [actions.action(seen.row, seen.executor) for seen in rows]
        return run_service_pb2.ListActionsResponse(actions=listed, token=token)

    async def watch_actions(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """The actions of one run and each change of them, to the run's end."""
        call = current()
        if request.filter:
            raise Unsupported("Watched actions cannot be filtered.", hint="Use ListActions.")
        key = actions.key_of_run(request.run_id)
        watched = self._watching.watch_actions(call.principal, key, request_id=call.request_id)
        async for rows in watched:
            enriched = [
                run_definition_pb2.EnrichedAction(
                    action=actions.action(seen.row, seen.executor), meets_filter=True
                )
                for seen in rows
            ]
            yield run_service_pb2.WatchActionsResponse(enriched_actions=enriched)

    async def get_action_data(self, request: Any, ctx: Any) -> Any:
        """Inputs and outputs, under the name that older clients know."""
        call = current()
        key = actions.key_of(request.action_id)
        found = await self._data.action_data(call.principal, key, request_id=call.request_id)
        return run_service_pb2.GetActionDataResponse(inputs=found.inputs, outputs=found.outputs)

    async def get_action_data_u_r_is(self, request: Any, ctx: Any) -> Any:
        """Where inputs and outputs lie."""
        call = current()
        key = actions.key_of(request.action_id)
        inputs, outputs = await self._data.action_uris(call.principal, key, request_id=call.request_id)
        return run_service_pb2.GetActionDataURIsResponse(inputs_uri=inputs, outputs_uri=outputs)

    async def signal_event(self, request: Any, ctx: Any) -> Any:
        """Not offered."""
        raise Unsupported("Conditions are not offered by this Tower.")

    async def get_action_log_context(self, request: Any, ctx: Any) -> Any:
        """Not offered: logs come from the data proxy."""
        raise Unsupported("Logs are read by TailLogs.")

    def watch_cluster_events(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """Not offered: there is no cluster."""
        raise Unsupported("There are no cluster events here.")

    def watch_groups(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """Not offered."""
        raise Unsupported("Groups of runs are not offered by this Tower.")

    async def _of_trigger(self, asked: Launch, request: Any) -> Launch:
        """What a trigger declares where the request says nothing; as the caller, not as its person."""
        call = current()
        return await self._schedules.by_hand(
            call.principal,
            triggers.key_of(request.trigger_name),
            asked,
            given=request.WhichOneof("input_wrapper") == "inputs",
            request_id=call.request_id,
        )

    async def _abort(self, key: ActionKey, *, reason: str, whole_run: bool) -> None:
        call = current()
        await self._runs.abort(
            call.principal, key, reason=reason, whole_run=whole_run, request_id=call.request_id
        )


def _launch(request: Any) -> Launch:
    """What a CreateRunRequest asks; the fields that claim an owner or a source are not read."""
    if request.WhichOneof("id") == "run_id":
        place = request.run_id
        project, domain, name = place.project, place.domain, place.name
    else:
        project, domain, name = request.project_id.name, request.project_id.domain, ""
    task, version, spec = None, "", None
    match request.WhichOneof("task"):
        case "task_id":
            named = request.task_id
            task, version = (named.project, named.domain, named.name), named.version
        case "task_spec":
            spec = request.task_spec
        case "trigger_name":
            pass
        case _:
            raise Invalid("The request names no task.", hint="Set task_id or task_spec.")
    uploaded = request.WhichOneof("input_wrapper") == "offloaded_input_data"
    return Launch(
        project=project,
        domain=domain,
        name=name,
        task=task,
        version=version,
        spec=spec,
        inputs=None if uploaded else request.inputs,
        inputs_uri=request.offloaded_input_data.uri if uploaded else "",
        run_spec=request.run_spec,
        grant=runspecs.grant(request.run_spec),
    )

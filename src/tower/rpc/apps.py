"""AppService and AppLogsService: translate, decide nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from flyteidl2.app import app_logs_payload_pb2, app_payload_pb2
from flyteidl2.logs.dataplane import payload_pb2 as logs

from tower.control import appspecs
from tower.control.apps import Apps
from tower.errors import Unsupported
from tower.rpc.caller import current
from tower.rpc.messages import query, stamp


class AppService:
    """flyteidl2.app.AppService."""

    def __init__(self, apps: Apps) -> None:
        self._apps = apps

    async def create(self, request: Any, ctx: Any) -> Any:
        """Deploy a new app. ALREADY_EXISTS tells the client to fetch, compare and update."""
        call = current()
        row = await self._apps.create(call.principal, request.app, request_id=call.request_id)
        return app_payload_pb2.CreateResponse(app=self._apps.render(row, base_url=call.base_url))

    async def get(self, request: Any, ctx: Any) -> Any:
        """One app by its identifier."""
        call = current()
        if request.WhichOneof("identifier") != "app_id":
            raise Unsupported("Apps are found by their identifier.", hint="Set app_id.")
        key = appspecs.identity(request.app_id)
        row = await self._apps.get(call.principal, *key, request_id=call.request_id)
        return app_payload_pb2.GetResponse(app=self._apps.render(row, base_url=call.base_url))

    async def update(self, request: Any, ctx: Any) -> Any:
        """Another specification, or another desired state."""
        call = current()
        row = await self._apps.update(
            call.principal, request.app, request_id=call.request_id, reason=request.reason
        )
        return app_payload_pb2.UpdateResponse(app=self._apps.render(row, base_url=call.base_url))

    async def delete(self, request: Any, ctx: Any) -> Any:
        """Delete an app."""
        call = current()
        key = appspecs.identity(request.app_id)
        await self._apps.delete(call.principal, *key, request_id=call.request_id)
        return app_payload_pb2.DeleteResponse()

    async def list(self, request: Any, ctx: Any) -> Any:
        """The apps that the caller may view, of one project (and domain) or of all."""
        call = current()
        scope = request.WhichOneof("filter_by")
        if scope not in {None, "org", "project"}:
            raise Unsupported("Apps are listed by project or for the whole organisation.")
        asked = query(request.request)
        project, domain = ("", "") if scope != "project" else (request.project.name, request.project.domain)
        rows, token = await self._apps.page(call.principal, asked, project=project, domain=domain)
        total = 0
        if request.include_total_count:
            total = await self._apps.count(call.principal, asked, project=project, domain=domain)
        apps = [self._apps.render(row, base_url=call.base_url) for row in rows]
        return app_payload_pb2.ListResponse(apps=apps, token=token, total_count=total)

    async def watch(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """The app as it is at once, then after each change, as update events; a deletion ends it."""
        call = current()
        if request.WhichOneof("target") != "app_id":
            raise Unsupported("One app is watched at a time.", hint="Set app_id.")
        key = appspecs.identity(request.app_id)
        async for row in self._apps.watch(call.principal, *key, request_id=call.request_id):
            answer = app_payload_pb2.WatchResponse()
            answer.update_event.updated_app.CopyFrom(self._apps.render(row, base_url=call.base_url))
            yield answer

    async def update_status(self, request: Any, ctx: Any) -> Any:
        """Not offered: Tower runs the processes itself."""
        raise Unsupported("The status of an app is set by Tower alone.")

    def lease(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """Not offered: Tower runs the processes itself."""
        raise Unsupported("Apps are not leased to clusters here.")


class AppLogsService:
    """flyteidl2.app.AppLogsService."""

    def __init__(self, apps: Apps) -> None:
        self._apps = apps

    async def tail_logs(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """The output of an app from its beginning, as it is written, until the app is stopped.

        One message without lines stands behind what there was when it was asked for.
        """
        call = current()
        which = request.WhichOneof("target")
        identifier = request.replica_id.app_id if which == "replica_id" else request.app_id
        key = appspecs.identity(identifier)
        async for lines in self._apps.tail(call.principal, *key, request_id=call.request_id, mark=True):
            answer = app_logs_payload_pb2.TailLogsResponse()
            if not lines:
                answer.batches.SetInParent()
                yield answer
                continue
            batch = answer.batches.logs.add()
            batch.replica_id.app_id.CopyFrom(identifier)
            batch.replica_id.name = identifier.name
            for line in lines:
                batch.lines.append(line.text)
                batch.structured_lines.add(
                    timestamp=stamp(line.at), message=line.text, originator=logs.LogLineOriginator.USER
                )
            yield answer

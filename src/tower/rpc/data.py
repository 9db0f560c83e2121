"""DataProxyService: translates, decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from flyteidl2.dataproxy import dataproxy_service_pb2 as pb
from flyteidl2.logs.dataplane import payload_pb2 as logs

from tower.control.data import Data
from tower.control.tailing import Tailing
from tower.errors import Invalid, Unsupported
from tower.rpc import actions
from tower.rpc.caller import current
from tower.rpc.messages import stamp


class DataProxyService:
    """flyteidl2.dataproxy.DataProxyService."""

    def __init__(self, *, data: Data, tailing: Tailing) -> None:
        self._data = data
        self._tailing = tailing

    async def create_upload_location(self, request: Any, ctx: Any) -> Any:
        """A URL for one upload. It needs no credential: it is one, for this content alone."""
        call = current()
        if request.filename_root:
            raise Unsupported("Uploads are named by their digest.", hint="Leave filename_root out.")
        place = await self._data.upload_place(
            call.principal,
            project=request.project,
            domain=request.domain,
            filename=request.filename,
            md5=request.content_md5,
            length=request.content_length,
            life=_seconds(request.expires_in),
            request_id=call.request_id,
        )
        return pb.CreateUploadLocationResponse(
            signed_url=call.base_url + place.path, native_url=place.uri, expires_at=stamp(place.ends_at)
        )

    async def upload_inputs(self, request: Any, ctx: Any) -> Any:
        """Keep the inputs of a run to come."""
        call = current()
        by_run = request.WhichOneof("id") == "run_id"
        project = request.run_id.project if by_run else request.project_id.name
        domain = request.run_id.domain if by_run else request.project_id.domain
        task, version = None, ""
        if request.WhichOneof("task") == "task_id":
            named = request.task_id
            task, version = (named.project, named.domain, named.name), named.version
        kept = await self._data.upload_inputs(
            call.principal,
            request.inputs,
            project=project,
            domain=domain,
            task=task,
            version=version,
            request_id=call.request_id,
        )
        answer = pb.UploadInputsResponse()
        answer.offloaded_input_data.uri = kept.uri
        answer.offloaded_input_data.inputs_hash = kept.digest
        return answer

    async def get_action_data(self, request: Any, ctx: Any) -> Any:
        """Inputs, and outputs once there are any."""
        call = current()
        key = actions.key_of(request.action_id)
        found = await self._data.action_data(call.principal, key, request_id=call.request_id)
        return pb.GetActionDataResponse(
            inputs=found.inputs,
            outputs=found.outputs,
            inputs_uri=found.inputs_uri,
            outputs_uri=found.outputs_uri,
        )

    async def tail_logs(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
        """The output of an attempt, followed until the attempt has ended.

        One message without lines stands behind what there was when it was asked for.
        """
        call = current()
        lines = self._tailing.follow(
            call.principal,
            actions.key_of(request.action_id),
            attempt=request.attempt,
            request_id=call.request_id,
            mark=True,
        )
        async for batch in lines:
            answer = pb.TailLogsResponse()
            if batch:
                page = answer.logs.add()
                for line in batch:
                    page.lines.add(timestamp=stamp(line.at), message=line.text, originator=logs.USER)
            yield answer

    async def create_download_link(self, request: Any, ctx: Any) -> Any:
        """A URL for one download: a code bundle or a report."""
        call = current()
        life = _seconds(request.expires_in)
        source = request.WhichOneof("source")
        key = actions.key_of(request.action_attempt_id.action_id) if source == "action_attempt_id" else None
        if request.artifact_type == pb.ARTIFACT_TYPE_CODE_BUNDLE and source in {
            "action_attempt_id",
            "task_id",
        }:
            task = request.task_id
            path, ends_at = await self._data.code_link(
                call.principal,
                key=key,
                task=None if key is not None else (task.project, task.domain, task.name),
                version=task.version,
                life=life,
                request_id=call.request_id,
            )
        elif request.artifact_type == pb.ARTIFACT_TYPE_REPORT and key is not None:
            path, ends_at = await self._data.report_link(
                call.principal,
                key,
                attempt=request.action_attempt_id.attempt,
                life=life,
                request_id=call.request_id,
            )
        else:
            raise Invalid(
                "There is no such artifact to download.",
                hint="Ask for the code bundle of a task or action, or for the report of an attempt.",
            )
        answer = pb.CreateDownloadLinkResponse()
        answer.pre_signed_urls.signed_url.append(call.base_url + path)
        answer.pre_signed_urls.expires_at.CopyFrom(stamp(ends_at))
        return answer


def _seconds(duration: Any) -> float:
    return float(duration.ToNanoseconds()) / 1e9

"""The steps of a deployment that talk to the control plane."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flyteidl2.app import app_definition_pb2, app_payload_pb2
from flyteidl2.core import identifier_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.task import task_definition_pb2, task_service_pb2

from flyte._bundle import Bundle
from flyte._deploy.planning import AppPlan, Place, TaskPlan
from flyte.errors import (
    AlreadyExistsError,
    DeploymentError,
    FailedPreconditionError,
    RemoteUsageError,
    ResourceExhaustedError,
)
from flyte.transport.session import Session

Step = Literal["pack", "upload", "task", "app", "wait", "image"]

_UPLOAD = "/flyteidl2.dataproxy.DataProxyService/CreateUploadLocation"
_DEPLOY = "/flyteidl2.task.TaskService/DeployTask"
_APPS = "/flyteidl2.app.AppService/"
_UP = (
    app_definition_pb2.Status.DEPLOYMENT_STATUS_ACTIVE,
    app_definition_pb2.Status.DEPLOYMENT_STATUS_STARTED,
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one step is: bytes for uploads, things for the others.

    The making of an image has no end that is known: `total` is 0, `name` what is being done.
    """

    step: Step
    name: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


async def upload(session: Session, bundle: Bundle, *, place: Place, progress: OnProgress) -> str:
    """Store a bundle; answers the URI that specifications refer to it by. Raises FlyteError.

    A server that has the bundle already answers without an address to upload to.
    """
    location = await session.unary(
        _UPLOAD,
        dataproxy_service_pb2.CreateUploadLocationRequest(
            org=place.org,
            project=place.project,
            domain=place.domain,
            filename=bundle.filename,
            content_md5=bundle.md5,
            content_length=len(bundle.body),
            add_content_md5_metadata=True,
        ),
        dataproxy_service_pb2.CreateUploadLocationResponse,
        idempotent=True,
    )
    total = len(bundle.body)
    sent = 0

    def count(size: int) -> None:
        nonlocal sent
        sent += size
        progress(Progress("upload", bundle.filename, min(sent, total), total))

    if location.signed_url:
        headers = {**location.headers, "content-md5": base64.b64encode(bundle.md5).decode()}
        progress(Progress("upload", bundle.filename, 0, total))
        await session.put(location.signed_url, bundle.body, headers=headers, progress=count)
    progress(Progress("upload", bundle.filename, total, total))
    return str(location.native_url)


async def deploy_task(session: Session, plan: TaskPlan, *, place: Place, version: str, bundle: str) -> None:
    """Register one version. The same content again is no error. Raises DeploymentError."""
    identity = task_definition_pb2.TaskIdentifier(
        org=place.org, project=place.project, domain=place.domain, name=plan.name, version=version
    )
    spec = task_definition_pb2.TaskSpec()
    spec.CopyFrom(plan.spec)
    template = spec.task_template
    template.id.resource_type = identifier_pb2.TASK
    template.id.org, template.id.project, template.id.domain = place.org, place.project, place.domain
    template.id.name, template.id.version = plan.name, version
    template.metadata.code_bundle_uri = bundle
    try:
        await session.unary(
            _DEPLOY,
            task_service_pb2.DeployTaskRequest(task_id=identity, spec=spec, triggers=plan.triggers),
            task_service_pb2.DeployTaskResponse,
            idempotent=True,
        )
    except AlreadyExistsError as error:
        raise DeploymentError(
            f"The version {version} of {plan.name} exists with other content.",
            code=error.code,
            hint="A version never changes: choose another one, or leave it to the SDK.",
        ) from error
    except (RemoteUsageError, FailedPreconditionError, ResourceExhaustedError) as error:
        raise DeploymentError(
            f"{plan.name} was not accepted: {error.message}", code=error.code, hint=error.hint
        ) from error


async def deploy_app(session: Session, plan: AppPlan, *, bundle: str) -> app_definition_pb2.App:
    """Create an app, or update the one that is there. Raises DeploymentError."""
    app = app_definition_pb2.App()
    app.CopyFrom(plan.app)
    app.metadata.code_bundle_uri = bundle
    try:
        try:
            created = await session.unary(
                f"{_APPS}Create",
                app_payload_pb2.CreateRequest(app=app),
                app_payload_pb2.CreateResponse,
                deduplicated=session.is_tower,
            )
        except AlreadyExistsError:
            return await _update(session, app)
        except FailedPreconditionError as error:
            if error.code != "aborted":  # what other backends answer for an app that exists
                raise
            return await _update(session, app)
        return created.app
    except (RemoteUsageError, FailedPreconditionError, ResourceExhaustedError) as error:
        raise DeploymentError(
            f"The app {plan.name} was not accepted: {error.message}", code=error.code, hint=error.hint
        ) from error


def is_up(app: app_definition_pb2.App) -> bool:
    """Whether the last condition says that the app serves."""
    return bool(app.status.conditions) and app.status.conditions[-1].deployment_status in _UP


async def _update(session: Session, wanted: app_definition_pb2.App) -> app_definition_pb2.App:
    """Make the app that exists the wanted one; nothing is sent when it is, and serves."""
    answer = await session.unary(
        f"{_APPS}Get",
        app_payload_pb2.GetRequest(app_id=wanted.metadata.id),
        app_payload_pb2.GetResponse,
        idempotent=True,
    )
    current = answer.app
    if is_up(current) and _same(current, wanted):
        return current
    changed = app_definition_pb2.App()
    changed.CopyFrom(wanted)
    changed.metadata.id.CopyFrom(current.metadata.id)
    changed.metadata.revision = current.metadata.revision
    changed.status.CopyFrom(current.status)
    updated = await session.unary(
        f"{_APPS}Update", app_payload_pb2.UpdateRequest(app=changed), app_payload_pb2.UpdateResponse
    )
    return updated.app


def _same(current: app_definition_pb2.App, wanted: app_definition_pb2.App) -> bool:
    """Whether two messages declare the same app; who created it and its state are not declared."""
    spec = app_definition_pb2.Spec()
    spec.CopyFrom(current.spec)
    spec.ClearField("creator")
    same_code: bool = current.metadata.code_bundle_uri == wanted.metadata.code_bundle_uri
    return same_code and bool(spec == wanted.spec)

"""Declarations as messages: a task's specification, an app's message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from flyteidl2.app import app_definition_pb2
from flyteidl2.common import runtime_version_pb2
from flyteidl2.core import interface_pb2, literals_pb2, security_pb2, tasks_pb2
from flyteidl2.task import environment_pb2, task_definition_pb2
from google.protobuf import duration_pb2

from flyte._requirements import Image, Resources, Secret
from flyte._task import Task

if TYPE_CHECKING:
    from flyte._deploy.planning import AppLike

RUNTIME = "flyte-runtime"
IMAGE = "flyte.image"
PRIVILEGES = "flyte.privileges"
PASSTHROUGH = "flyte.passthrough"
PUBLIC_PATHS = "flyte.public_paths"
WEBHOOKS = "flyte.webhooks"
_SHORT = 255
_LONG = 16 * 1024


class ScalingLike(Protocol):
    """How many processes an app has."""

    @property
    def fewest(self) -> int: ...
    @property
    def most(self) -> int: ...
    @property
    def scaledown_seconds(self) -> float | None: ...


class WebhookLike(Protocol):
    """A path that third parties deliver to."""

    @property
    def path(self) -> str: ...
    @property
    def scheme(self) -> str: ...


class LinkLike(Protocol):
    """A page that the console shows beside an app."""

    @property
    def path(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def is_relative(self) -> bool: ...


def task_spec(task: Task[..., Any], *, module: str) -> task_definition_pb2.TaskSpec:
    """The specification of a task that a process imports from `module`; without version and bundle."""
    home = task.environment
    interface = task.interface
    metadata = tasks_pb2.TaskMetadata(
        runtime=tasks_pb2.RuntimeMetadata(
            type=tasks_pb2.RuntimeMetadata.FLYTE_SDK, version=sdk_version(), flavor="python"
        ),
        retries=literals_pb2.RetryStrategy(retries=task.retries.count),
    )
    if task.timeout.max_runtime is not None:
        metadata.timeout.CopyFrom(_duration(task.timeout.max_runtime))
    if task.timeout.max_queued_time is not None:
        metadata.timeouts.queued_timeout.CopyFrom(_duration(task.timeout.max_queued_time))
    container = _container(home.image, home.resources, home.env_vars)
    container.args.extend([RUNTIME, "task", "--module", module, "--task", task.name])
    if home.privileges:
        container.config.append(_pair(PRIVILEGES, json.dumps(list(home.privileges))))
    secrets = _secrets(home.secrets)
    return task_definition_pb2.TaskSpec(
        task_template=tasks_pb2.TaskTemplate(
            type="python",
            metadata=metadata,
            interface=_described(interface.proto()),
            container=container,
            security_context=security_pb2.SecurityContext(secrets=secrets) if secrets else None,
        ),
        default_inputs=interface.defaults(),
        short_name=task.short_name,
        environment=environment_pb2.Environment(name=home.name, description=home.description),
        documentation=_documentation(task.docs),
    )


def app_message(app: AppLike, *, module: str) -> app_definition_pb2.App:
    """The message of an app that a process imports from `module`; without place and bundle."""
    container = _container(app.image, app.resources, app.env_vars)
    if app.command:
        container.command.extend(app.command)
    else:
        container.args.extend([RUNTIME, "app", "--module", module, "--app", app.name])
    container.config.append(_pair(PASSTHROUGH, app.passthrough))
    if app.webhooks:
        hooks = [{"path": hook.path, "scheme": hook.scheme} for hook in app.webhooks]
        container.config.append(_pair(WEBHOOKS, json.dumps(hooks)))
    if app.public_paths:
        container.config.append(_pair(PUBLIC_PATHS, json.dumps(list(app.public_paths))))
    autoscaling = app_definition_pb2.AutoscalingConfig(
        replicas=app_definition_pb2.Replicas(min=app.scaling.fewest, max=app.scaling.most)
    )
    if app.scaling.scaledown_seconds is not None:
        autoscaling.scaledown_period.CopyFrom(_duration(timedelta(seconds=app.scaling.scaledown_seconds)))
    spec = app_definition_pb2.Spec(
        container=container,
        autoscaling=autoscaling,
        ingress=app_definition_pb2.IngressConfig(private=False),
        desired_state=app_definition_pb2.Spec.DESIRED_STATE_ACTIVE,
        security_context=app_definition_pb2.SecurityContext(
            allow_anonymous=not app.requires_auth, secrets=_secrets(app.secrets)
        ),
        runtime_metadata=runtime_version_pb2.RuntimeMetadata(
            type=runtime_version_pb2.RuntimeMetadata.FLYTE_SDK, version=sdk_version(), flavor="python"
        ),
        profile=app_definition_pb2.Profile(type=app.type, short_description=app.description),
        links=[
            app_definition_pb2.Link(path=link.path, title=link.title, is_relative=link.is_relative)
            for link in app.links
        ],
    )
    identity = app_definition_pb2.Identifier(name=app.name)
    return app_definition_pb2.App(metadata=app_definition_pb2.Meta(id=identity), spec=spec)


def sdk_version() -> str:
    """The version of this SDK."""
    from flyte._version import version

    return version()


def _container(image: Image, resources: Resources, env_vars: Mapping[str, str]) -> tasks_pb2.Container:
    description = image.to_json()
    return tasks_pb2.Container(
        image=f"tower/{hashlib.sha256(description.encode()).hexdigest()[:12]}",
        env=[_pair(name, value) for name, value in sorted(env_vars.items())],
        config=[_pair(IMAGE, description)],
        resources=tasks_pb2.Resources(
            requests=_entries(resources.requests()), limits=_entries(resources.limits())
        ),
    )


def _secrets(secrets: Sequence[Secret]) -> list[security_pb2.Secret]:
    """Names and places; a specification never holds a value (T33)."""
    kinds = security_pb2.Secret.MountType
    return [
        security_pb2.Secret(
            key=each.key,
            env_var=each.as_env_var or "",
            mount_requirement=kinds.FILE if each.mount else kinds.ENV_VAR,
        )
        for each in secrets
    ]


def _entries(amounts: Mapping[str, str]) -> list[tasks_pb2.Resources.ResourceEntry]:
    return [
        tasks_pb2.Resources.ResourceEntry(name=tasks_pb2.Resources.ResourceName.Value(name), value=amount)
        for name, amount in amounts.items()
    ]


def _pair(key: str, value: str) -> literals_pb2.KeyValuePair:
    return literals_pb2.KeyValuePair(key=key, value=value)


def _duration(period: timedelta) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromTimedelta(period)
    return message


def _described(interface: interface_pb2.TypedInterface) -> interface_pb2.TypedInterface:
    """Variables have a description on the wire, their own name where the author gave none."""
    for variables in (interface.inputs.variables, interface.outputs.variables):
        for entry in variables:
            entry.value.description = entry.value.description or entry.key
    return interface


def _documentation(docs: str) -> task_definition_pb2.DocumentationEntity:
    headline = docs.strip().partition("\n")[0]
    return task_definition_pb2.DocumentationEntity(
        short_description=headline[:_SHORT], long_description=docs.strip()[:_LONG]
    )

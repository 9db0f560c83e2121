"""The door for RPCs: the services of flyteidl2 over Connect, behind one chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flyteidl2.auth.auth_service_connect import AuthMetadataServiceASGIApplication
from flyteidl2.auth.identity_connect import IdentityServiceASGIApplication
from flyteidl2.cluster.service_connect import ClusterServiceASGIApplication
from flyteidl2.dataproxy.dataproxy_service_connect import DataProxyServiceASGIApplication
from flyteidl2.imagebuilder.service_connect import ImageServiceASGIApplication
from flyteidl2.project.project_service_connect import ProjectServiceASGIApplication
from flyteidl2.task.task_service_connect import TaskServiceASGIApplication
from flyteidl2.trigger.trigger_service_connect import TriggerServiceASGIApplication
from flyteidl2.workflow.run_service_connect import RunServiceASGIApplication

from tower.control.data import Data
from tower.control.projects import Projects
from tower.control.runs import Runs
from tower.control.schedules import Schedules
from tower.control.tailing import Tailing
from tower.control.tasks import Tasks
from tower.control.watching import Watching
from tower.identity.chain import Chain
from tower.rpc import wire
from tower.rpc.caller import Origin
from tower.rpc.chain import Door, GaveUp
from tower.rpc.cluster import ClusterService
from tower.rpc.data import DataProxyService
from tower.rpc.faults import Faults
from tower.rpc.identity import AuthMetadataService, IdentityService
from tower.rpc.images import ImageService
from tower.rpc.projects import ProjectService
from tower.rpc.runs import RunService
from tower.rpc.tasks import TaskService
from tower.rpc.triggers import TriggerService
from tower.settings import Settings

__all__ = ["Door", "Origin", "build"]


def build(
    *,
    chain: Chain,
    origin: Origin,
    settings: Settings,
    version: str,
    tasks: Tasks,
    schedules: Schedules,
    runs: Runs,
    watching: Watching,
    data: Data,
    tailing: Tailing,
    projects: Projects,
    more: Sequence[tuple[type[Any], object]] = (),
    gave_up: GaveUp | None = None,
) -> Door:
    """The ASGI application of all services; it serves the paths below each of `Door.prefixes`.

    `more` are further services as pairs of the generated ASGI class and the implementation. `gave_up` records
    calls whose clients went away before all of them had arrived.
    Raises Broken when a method has no row in the table of actions.
    """
    services: list[tuple[type[Any], object]] = [
        (IdentityServiceASGIApplication, IdentityService()),
        (AuthMetadataServiceASGIApplication, AuthMetadataService()),
        (ClusterServiceASGIApplication, ClusterService()),
        (ProjectServiceASGIApplication, ProjectService(projects)),
        (TaskServiceASGIApplication, TaskService(tasks, schedules)),
        (TriggerServiceASGIApplication, TriggerService(schedules)),
        (DataProxyServiceASGIApplication, DataProxyService(data=data, tailing=tailing)),
        (RunServiceASGIApplication, RunService(runs=runs, schedules=schedules, watching=watching, data=data)),
        (ImageServiceASGIApplication, ImageService()),
        *more,
    ]
    applications = [
        wire.application(generated, service, interceptors=[Faults()], limit=settings.max_body)
        for generated, service in services
    ]
    return Door(
        applications,
        chain=chain,
        origin=origin,
        max_body=settings.max_body,
        version=version,
        gave_up=gave_up,
    )

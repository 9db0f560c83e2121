"""`tower up`: the listener, the sockets and the loops around a house, from the first request to the drain."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import structlog
import uvloop
from flyteidl2.actions.actions_service_connect import ActionsServiceASGIApplication
from flyteidl2.app.app_logs_service_connect import AppLogsServiceASGIApplication
from flyteidl2.app.app_service_connect import AppServiceASGIApplication
from flyteidl2.secret.secret_connect import SecretServiceASGIApplication
from flyteidl2.workflow.queue_service_connect import QueueServiceASGIApplication
from flyteidl2.workflow.state_service_connect import StateServiceASGIApplication

from tower import rpc
from tower.agent import AgentSockets
from tower.console import door as console
from tower.console.parts import Parts as ConsoleParts
from tower.control.apps import Processes
from tower.gateway.door import ROUTES as GATEWAY_ROUTES
from tower.gateway.door import Gateway, Parts
from tower.identity.workload import Workload, WorkloadKind
from tower.main import crowd, loops
from tower.main.doors import App, Doors, nothing_here
from tower.main.guards import GUARDS, Guards
from tower.main.house import VERSION, House, compose
from tower.main.lingering import lingering, stopping
from tower.main.listener import Server, bind, certificate_of, configured
from tower.main.logging import configure
from tower.main.proxy import BehindProxy
from tower.nodes import door as nodes
from tower.oauth import door as oauth
from tower.policy.actions import check_complete
from tower.rpc import attesting
from tower.rpc.apps import AppLogsService, AppService
from tower.rpc.secrets import SecretService
from tower.rpc.subactions import ActionsService, QueueService, StateService
from tower.rpc.transfer import ROUTES as TRANSFER_ROUTES
from tower.rpc.transfer import Transfer
from tower.settings import Settings

ADMIN_SOCKET = "admin.sock"
"""In the home: whoever the kernel says runs as our own user administers this Tower there."""

log = structlog.get_logger("tower")


def up(settings: Settings, guards: Guards = GUARDS) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises Fault when it cannot start."""
    os.umask(0o077)  # what Tower writes is its own operator's alone
    configure()
    uvloop.run(_up(settings, guards))


async def _up(settings: Settings, guards: Guards) -> None:
    listener = bind(settings)
    settings = replace(settings, port=listener.getsockname()[1])
    with listener:
        async with compose(settings, guards) as house, _running(house) as running:
            certificate = certificate_of(settings, house.clock.now())
            public, agents = running.public, running.agents
            if settings.behind_proxy:
                public = BehindProxy(public, settings.public_url)
                agents = BehindProxy(agents, settings.public_url)
            http = crowd.of_at_most(crowd.room())
            config = configured(public, certificate=certificate, http=http)
            server = Server(config, on_stop=running.rest)
            _spare_the_collector()
            log.info("ready", url=house.origin.base_url(""), home=str(settings.home), version=VERSION)
            # agents are no clients: they call for attempts that may go on during the drain
            beside = settings.agent == "beside"
            await server.serve(sockets=[listener.dup() if beside else listener])
            log.info("draining")
            if beside:
                async with lingering(listener, configured(agents, certificate=certificate, http=http)):
                    await running.drain()


@dataclass(frozen=True, slots=True)
class _Running:
    """The application for the public listener, and the one that is left of it for agents during the drain.

    `rest` has nothing more started from the queue; `drain` then waits for what runs.
    """

    public: App
    agents: App
    rest: Callable[[], None]
    drain: Callable[[], Awaitable[None]]


@asynccontextmanager
async def _running(house: House) -> AsyncIterator[_Running]:
    """The loops and the sockets."""
    rpc_door = rpc.build(
        chain=house.chain,
        origin=house.origin,
        settings=house.settings,
        version=VERSION,
        tasks=house.tasks,
        schedules=house.schedules,
        runs=house.runs,
        watching=house.watching,
        data=house.data,
        tailing=house.tailing,
        projects=house.projects,
        more=[
            (AppServiceASGIApplication, AppService(house.apps)),
            (AppLogsServiceASGIApplication, AppLogsService(house.apps)),
            (QueueServiceASGIApplication, QueueService(house.subactions)),
            (StateServiceASGIApplication, StateService(house.subactions)),
            (ActionsServiceASGIApplication, ActionsService(house.subactions)),
            (SecretServiceASGIApplication, SecretService(house.confidences.secrets)),
        ],
        gave_up=house.access.gave_up,
    )
    prefixes: list[tuple[str, App]] = [
        *((f"{prefix}/", rpc_door) for prefix in rpc_door.prefixes),
        ("/data/", Transfer(house.data, version=VERSION)),
        ("/api/", house.rest),
    ]
    signing_in: list[tuple[str, App]] = [(prefix, house.oauth.door) for prefix in oauth.PREFIXES]
    attested = attesting.AttestedDoor(house.attesting, chain=house.chain, version=VERSION)
    hosted = Doors([*prefixes, (attesting.PREFIX, attested)], otherwise=nothing_here)
    sockets = AgentSockets(hosted, name=_workload)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(sockets.close_all)
        isolation = loops.isolation_of(house.settings)
        reconcile, supervisor = await loops.start(house, sockets, closing, isolation)
        gateway = Gateway(_gateway_parts(house, supervisor))
        closing.push_async_callback(gateway.close)
        pages = console.build(_console_parts(house, str(isolation)))
        check_complete(
            [
                *house.rest.routes,
                *GATEWAY_ROUTES,
                *TRANSFER_ROUTES,
                *attesting.ROUTES,
                *nodes.ROUTES,
                *pages.routes,
            ]
        )
        await sockets.open("admin", "admin", house.settings.home / ADMIN_SOCKET)
        public = Doors(
            [*prefixes, *signing_in],
            otherwise=pages,
            claimed=gateway.claims,
            claimer=gateway,
        )
        yield _Running(
            _nodes(house, hosted, public),
            _nodes(house, hosted, stopping()),
            reconcile.rest,
            reconcile.stop,
        )


def _nodes(house: House, hosted: App, public: App) -> nodes.NodesDoor:
    """The door of agents, in front of `public`."""
    return nodes.NodesDoor(
        house.agents,
        hosted=hosted,
        public=public,
        guesses=house.chain.guesses,
        refused=house.access.refused,
    )


def _gateway_parts(house: House, processes: Processes) -> Parts:
    return Parts(
        places=house.apps.places,
        chain=house.chain,
        access=house.access,
        grants=house.grants,
        processes=processes,
        logins=house.logins,
        webhooks=house.webhooks,
        settings=house.settings,
        clock=house.clock,
        console=house.origin.base_url,
    )


def _console_parts(house: House, isolation: str) -> ConsoleParts:
    return ConsoleParts(
        chain=house.chain,
        access=house.access,
        directory=house.directory,
        logins=house.logins,
        accounts=house.oauth.accounts,
        federation=house.oidc.federation,
        devices=house.oauth.devices,
        projects=house.projects,
        runs=house.runs,
        grants=house.standing_grants,
        watching=house.watching,
        data=house.data,
        tailing=house.tailing,
        tasks=house.tasks,
        apps=house.apps,
        triggers=house.schedules.views,
        settings=house.settings,
        base_url=house.origin.base_url,
        isolation=isolation,
    )


def _workload(kind: str, workload_id: str, pid: int) -> Workload:
    return Workload(WorkloadKind(kind), workload_id, pid)


def _spare_the_collector() -> None:
    """What is there after the start stays: a collection need not look at it, nor come so often.

    It would walk through all that the requests under way hold, and hardly anything of ours needs it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)

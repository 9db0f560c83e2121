"""`tower up`: the listener, the sockets and the loops around a house, from the first request to the drain."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvicorn
import uvloop
from flyteidl2.actions.actions_service_connect import ActionsServiceASGIApplication
from flyteidl2.app.app_logs_service_connect import AppLogsServiceASGIApplication
from flyteidl2.app.app_service_connect import AppServiceASGIApplication
from flyteidl2.secret.secret_connect import SecretServiceASGIApplication
from flyteidl2.workflow.queue_service_connect import QueueServiceASGIApplication
from flyteidl2.workflow.state_service_connect import StateServiceASGIApplication

from tower import rpc, tls
from tower.agent import AgentSockets
from tower.agent.sockets import listening
from tower.console import door as console
from tower.console.parts import Parts as ConsoleParts
from tower.control.apps import Processes
from tower.control.reconcile import (
    Agent,
    AppSupervisor,
    BesideAgents,
    Bundles,
    Ground,
    LivePermit,
    LiveWatch,
    LoopTimers,
    Reach,
    Reconcile,
    Rooms,
    ScheduleLoop,
)
from tower.control.reconcile import Parts as ReconcileParts
from tower.errors import Unavailable
from tower.executors.process import ProcessExecutor
from tower.executors.process.isolation import Isolation, Mode, Wanted, choose
from tower.gateway.door import ROUTES as GATEWAY_ROUTES
from tower.gateway.door import Gateway, Parts
from tower.identity.workload import Workload, WorkloadKind
from tower.images.venv import VenvBuilder
from tower.main import crowd
from tower.main.doors import App, Doors, nothing_here
from tower.main.guards import GUARDS, Guards
from tower.main.handshakes import Greeter
from tower.main.house import VERSION, House, compose
from tower.main.lingering import lingering, stopping
from tower.main.logging import configure
from tower.main.proxy import BehindProxy
from tower.nodes import door as nodes
from tower.oauth import door as oauth
from tower.policy.actions import check_complete
from tower.rpc import attesting
from tower.rpc.apps import AppLogsService, AppService
from tower.rpc.caller import Origin
from tower.rpc.secrets import SecretService
from tower.rpc.subactions import ActionsService, QueueService, StateService
from tower.rpc.transfer import ROUTES as TRANSFER_ROUTES
from tower.rpc.transfer import Transfer
from tower.settings import Settings

ADMIN_SOCKET = "admin.sock"
"""In the home: whoever the kernel says runs as our own user administers this Tower there."""

_BACKLOG = 2048
_HANDSHAKES_PART = 8
_FEWEST_HANDSHAKES = 16
_STREAMS_END_SECONDS = 3
"""How long open streams may go on after SIGTERM; clients subscribe again."""

log = structlog.get_logger("tower")


def up(settings: Settings, guards: Guards = GUARDS) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises Fault when it cannot start."""
    os.umask(0o077)  # what Tower writes is its own operator's alone
    configure()
    uvloop.run(_up(settings, guards))


async def _up(settings: Settings, guards: Guards) -> None:
    listener = _bind(settings)
    settings = replace(settings, port=listener.getsockname()[1])
    with listener:
        async with compose(settings, guards) as house, _running(house) as running:
            certificate = _certificate(settings, house.clock.now())
            public, agents = running.public, running.agents
            if settings.behind_proxy:
                public = BehindProxy(public, settings.public_url)
                agents = BehindProxy(agents, settings.public_url)
            http = crowd.of_at_most(crowd.room())
            config = _config(public, certificate=certificate, http=http)
            server = _Server(config, on_stop=running.rest)
            _spare_the_collector()
            log.info("ready", url=house.origin.base_url(""), home=str(settings.home), version=VERSION)
            # agents are no clients: they call for attempts that may go on during the drain
            beside = settings.agent == "beside"
            await server.serve(sockets=[listener.dup() if beside else listener])
            log.info("draining")
            if beside:
                async with lingering(listener, _config(agents, certificate=certificate, http=http)):
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
        isolation = _isolation(house.settings)
        reconcile, supervisor = await _loops(house, sockets, closing, isolation)
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


async def _loops(
    house: House, sockets: AgentSockets, closing: AsyncExitStack, isolation: Isolation
) -> tuple[Reconcile, AppSupervisor]:
    """The loops of runs and of apps, started; drained before what they stand on is closed."""
    settings = house.settings
    executor = ProcessExecutor(isolation=isolation)
    closing.push_async_callback(executor.close)
    log.info("limits", enforcement=executor.enforcement)
    images, rooms = VenvBuilder(settings.home, confine=isolation.command), Rooms(settings.home)
    closing.push_async_callback(images.close)
    closing.push_async_callback(rooms.close)
    ground = Ground(
        endpoint=house.origin.base_url(""),
        org=settings.org,
        reserved=settings.reserved_env,
        output=settings.max_log,
        trust=_trust(settings, house.clock.now()),
    )
    parts = ReconcileParts(
        db=house.db,
        clock=house.clock,
        events=house.events,
        settings=settings,
        blobs=house.blobs,
        inputs=house.inputs,
        definitions=house.definitions,
        executor=executor,
        images=images,
        agent=_agent(house, sockets),
        bundles=Bundles(settings.home, blobs=house.blobs),
        rooms=rooms,
        permit=LivePermit(house.standing),
        watch=LiveWatch(house.standing),
        ground=lambda: ground,
        timers=LoopTimers(),
        waiting=house.waiting,
        redaction=house.confidences.redaction,
        starting=house.confidences.starting,
        handovers=house.handovers,
        rawdata=house.rawdata,
    )
    reconcile = Reconcile(parts)
    await reconcile.start()
    closing.push_async_callback(reconcile.stop)
    schedules = ScheduleLoop(firing=house.firing, clock=house.clock, events=house.events, timers=LoopTimers())
    await schedules.start()
    closing.push_async_callback(schedules.stop)
    supervisor = AppSupervisor(parts, report=house.apps.report)
    await supervisor.start()
    closing.push_async_callback(supervisor.stop)
    return reconcile, supervisor


def _isolation(settings: Settings) -> Isolation:
    """How tasks and apps are kept apart on this machine. Raises Precondition."""
    hidden = (settings.home, *settings.hidden, *([settings.tls_key] if settings.tls_key else []))
    isolation, why = choose(Wanted(settings.isolation), hidden=hidden, visible=settings.visible)
    say = log.info if isolation.mode is Mode.FULL else log.warning
    say("isolation", mode=str(isolation), wanted=settings.isolation, why=why)
    return isolation


def _nodes(house: House, hosted: App, public: App) -> nodes.NodesDoor:
    """The door of agents, in front of `public`."""
    return nodes.NodesDoor(
        house.agents,
        hosted=hosted,
        public=public,
        guesses=house.chain.guesses,
        refused=house.access.refused,
    )


def _agent(house: House, sockets: AgentSockets) -> Agent:
    """Who serves the sockets of attempts."""
    if house.settings.agent == "inside":
        return sockets
    settings = house.settings
    if settings.tls and settings.tls_cert is not None:
        reach = Reach(house.origin.base_url(""))  # the name that the certificate is for
    else:
        direct = Origin("https" if settings.tls else "http", settings.host, settings.port)
        reach = Reach(direct.base_url(""), settings.home / "tls" / "ca.pem" if settings.tls else None)
    return BesideAgents(sockets, ticketing=house.agents, reach=reach, listening=listening)


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


class _Server(uvicorn.Server):
    """Says `ready URL` on standard output, alone on its line, once connections are accepted."""

    def __init__(self, config: uvicorn.Config, *, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Begin the drain on SIGTERM and SIGINT; unlike with uvicorn alone, no signal is raised again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True
        self._on_stop()

    def _connection(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(config=self.config, server_state=self.server_state, app_state={})
        return made

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            most = max(_FEWEST_HANDSHAKES, crowd.room() // _HANDSHAKES_PART)
            servers: list[Any] = [Greeter(sockets[0], self.config.ssl, self._connection, most=most)]
            self.servers = servers
        scheme = "https" if self.config.is_ssl else "http"
        host, port = sockets[0].getsockname()[:2]
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)  # noqa: S104
        print(f"ready {scheme}://{name}:{port}", flush=True)  # noqa: T201


def _config(app: App, *, certificate: tls.Certificate | None, http: type[asyncio.Protocol]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http,
        ws="websockets-sansio",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_STREAMS_END_SECONDS,
        ws_max_size=16 * 1024 * 1024,
        ssl_certfile=None if certificate is None else str(certificate.chain),
        ssl_keyfile=None if certificate is None else str(certificate.key),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )


def _spare_the_collector() -> None:
    """What is there after the start stays: a collection need not look at it, nor come so often.

    It would walk through all that the requests under way hold, and hardly anything of ours needs it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


def _bind(settings: Settings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Unavailable(f"{settings.host} is no address of this machine.", cause=str(error)) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"Port {settings.port} on {settings.host} cannot be used.",
            hint="Choose another with --port; 0 takes any free one.",
            cause=error.strerror or "",
        ) from error
    listener.setblocking(False)
    return listener


def _trust(settings: Settings, now: float) -> Path | None:
    """The certificates that hosted clients trust, where Tower's own is of its local authority."""
    certificate = _certificate(settings, now)
    if certificate is None or certificate.authority is None:
        return None
    return tls.trust(settings.home / "tls", certificate.authority)


def _certificate(settings: Settings, now: float) -> tls.Certificate | None:
    if not settings.tls:
        return None
    if settings.tls_cert is not None and settings.tls_key is not None:
        return tls.Certificate(settings.tls_cert, settings.tls_key, None)
    names = dict.fromkeys(("localhost", "127.0.0.1", "::1", settings.host, f"*.{settings.apps_domain}"))
    names.pop("0.0.0.0", None)  # noqa: S104
    if settings.public_url:
        names[urlsplit(settings.public_url).hostname or ""] = None
    return tls.local(settings.home / "tls", names=tuple(names), now=now)

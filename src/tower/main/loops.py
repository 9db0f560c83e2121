"""The loops of runs, schedules and apps, started over a house."""

from __future__ import annotations

from contextlib import AsyncExitStack

import structlog

from tower.agent import AgentSockets
from tower.agent.sockets import listening
from tower.control.reconcile import (
    Agent,
    Ahead,
    AppSupervisor,
    BesideAgents,
    Bundles,
    Ground,
    LivePermit,
    LiveWatch,
    LoopTimers,
    Parts,
    Reach,
    Reconcile,
    Rooms,
    ScheduleLoop,
)
from tower.executors.process import ProcessExecutor
from tower.executors.process.isolation import Isolation, Mode, Wanted, choose
from tower.images.venv import VenvBuilder
from tower.main.house import House
from tower.main.listener import trust
from tower.rpc.caller import Origin
from tower.settings import Settings

log = structlog.get_logger("tower")


async def start(
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
    ahead = None
    if settings.agent == "inside":  # else each attempt has an agent process, which finds its socket itself
        ahead = Ahead(rooms=rooms, executor=executor, listening=listening)
    ground = Ground(
        endpoint=house.origin.base_url(""),
        org=settings.org,
        reserved=settings.reserved_env,
        output=settings.max_log,
        trust=trust(settings, house.clock.now()),
    )
    parts = Parts(
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
        ahead=ahead,
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


def isolation_of(settings: Settings) -> Isolation:
    """How tasks and apps are kept apart on this machine. Raises Precondition."""
    hidden = (settings.home, *settings.hidden, *([settings.tls_key] if settings.tls_key else []))
    isolation, why = choose(Wanted(settings.isolation), hidden=hidden, visible=settings.visible)
    say = log.info if isolation.mode is Mode.FULL else log.warning
    say("isolation", mode=str(isolation), wanted=settings.isolation, why=why)
    return isolation


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

"""Real rooms over a temporary SQLite file, and real servers, for the tests of gateway, console and apps."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from flyteidl2.app import app_definition_pb2 as pb

from tower.clock import Clock, SystemClock
from tower.control.access import Access
from tower.control.apikeys import ApiKeys as Keys
from tower.control.apps import Apps
from tower.control.directory import Directory
from tower.control.events import Events
from tower.control.grants import Grants
from tower.control.identities import Identities
from tower.control.logins import Logins
from tower.control.projects import Projects
from tower.control.tailing import Line
from tower.errors import Unavailable
from tower.gateway.door import Gateway, Parts, build
from tower.identity.authenticators import MACHINE, ApiKeys, BrowserSessions, ExchangedTokens, Sockets
from tower.identity.chain import Chain, Presented
from tower.identity.principal import Principal
from tower.identity.signing import SigningKey
from tower.identity.tokens import AppTokens
from tower.policy.engine import Engine
from tower.settings import Settings
from tower.store.apps import AppRow
from tower.store.audit import page as audit_page
from tower.store.database import Database

DOMAIN = "apps.localhost"


async def no_code(bundle: str, /, *, project: str, domain: str) -> str:
    """Stands for the look at an uploaded bundle."""
    return "c0de" if bundle else ""


@dataclass(slots=True)
class FakeLogs:
    """Output of apps that the test writes."""

    lines: dict[str, list[Line]] = field(default_factory=dict)

    async def __call__(self, log_id: str, offset: int) -> tuple[list[Line], int]:
        found = self.lines.get(log_id, [])
        return found[offset:], len(found)


@dataclass(slots=True)
class FakeProcesses:
    """Sockets of upstreams that the test runs; counts what the gateway asks for."""

    sockets: dict[str, Path] = field(default_factory=dict)
    woken: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def wake(self, project: str, domain: str, name: str, seconds: float, /) -> Path:
        key = f"{project}/{domain}/{name}"
        self.woken[key] += 1
        if key not in self.sockets:
            raise Unavailable("The app is starting.", hint="Try again in a moment.")
        return self.sockets[key]

    @contextmanager
    def serving(self, project: str, domain: str, name: str) -> Iterator[None]:
        key = f"{project}/{domain}/{name}"
        self.in_flight[key] += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.in_flight[key] -= 1
            if not self.in_flight.total():
                self.idle.set()


@dataclass(slots=True)
class House:
    """The rooms, wired as the composition root wires them."""

    settings: Settings
    clock: Clock
    db: Database
    directory: Directory
    access: Access
    identities: Identities
    keys: Keys
    logins: Logins
    projects: Projects
    apps: Apps
    grants: Grants
    tokens: AppTokens
    chain: Chain
    events: Events
    processes: FakeProcesses
    logs: FakeLogs
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def person(self, name: str, role: str | None = "viewer", **scope: str) -> str:
        """A user with a role in the project; the text of a key of theirs."""
        where = {"project": "flytesnacks", **scope} if role else {}
        await self.identities.add_user(MACHINE, subject=name, role=role, **where)
        return await self.key(name)

    async def key(self, name: str, **ceiling: Any) -> str:
        made = await self.keys.create(MACHINE, name=f"{name}-{next(self.numbers)}", subject=name, **ceiling)
        return made.key.text

    async def session(self, name: str, host: str) -> str:
        """The text of a session cookie of the console on `host`."""
        code = await self.logins.create_link(MACHINE, name)
        return (await self.logins.sign_in(code, host=host)).text

    async def app_session(self, console_session: str, console: str, host: str) -> str:
        """The text of a session cookie carried over to an app's host."""
        principal = await self.principal(("cookie", f"tower_session={console_session}"), host=console)
        code = await self.logins.create_handover(principal, host)
        return (await self.logins.sign_in(code, host=host, handover=True)).text

    async def principal(self, *headers: tuple[str, str], host: str = "") -> Principal:
        pairs = tuple((name.encode(), value.encode()) for name, value in headers)
        return await self.chain.authenticate(Presented(headers=pairs, host=host, audience="console"))

    async def deploy(self, name: str, **options: Any) -> AppRow:
        return await self.apps.create(MACHINE, message(name, **options), request_id="t")

    async def audit(self, **filters: Any) -> list[Any]:
        return await self.db.read(lambda reader: audit_page(reader, **filters))

    def gateway(self, **options: Any) -> Gateway:
        return build(
            Parts(
                places=self.apps.places,
                chain=self.chain,
                access=self.access,
                grants=self.grants,
                processes=self.processes,
                logins=self.logins,
                settings=self.settings,
                clock=self.clock,
                console=options.pop("console", lambda: "http://127.0.0.1:1"),
                **options,
            )
        )


def message(
    name: str,
    *,
    project: str = "flytesnacks",
    domain: str = "development",
    requires_auth: bool = True,
    config: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
    image: str = "tower/0",
    desired: int = 3,
) -> pb.App:
    """An app as the SDK sends it."""
    app = pb.App()
    app.metadata.id.project, app.metadata.id.domain, app.metadata.id.name = project, domain, name
    app.spec.container.image = image
    app.spec.container.args.extend(["flyte-runtime", "app", "--module", "m", "--app", name])
    for key, value in (config or {}).items():
        text = value if isinstance(value, str) else json.dumps(value)
        app.spec.container.config.add(key=key, value=text)
    for key, value in (env or {}).items():
        app.spec.container.env.add(key=key, value=value)
    app.spec.ingress.SetInParent()
    app.spec.desired_state = desired
    app.spec.profile.short_description = f"The app {name}"
    if not requires_auth:
        app.spec.security_context.allow_anonymous = True
    return app


@asynccontextmanager
async def built(home: Path, *, clock: Clock | None = None, **settings: Any) -> AsyncIterator[House]:
    """The house with the project flytesnacks in it."""
    clock = clock or SystemClock()
    options = Settings(home=home, apps_domain=DOMAIN, **settings)
    db = Database.open(home / "tower.db", clock=clock)
    events = Events()
    directory = Directory(db=db, clock=clock)
    access = Access(db=db, engine=Engine(), directory=directory)
    projects = Projects(db=db, access=access)
    await projects.bootstrap("flytesnacks")
    logs = FakeLogs()
    key = SigningKey.generate()
    tokens = AppTokens(key=key, clock=clock, issuer="tower")
    chain = Chain(
        [
            Sockets(attempts=directory),
            ApiKeys(directory=directory, clock=clock),
            BrowserSessions(directory=directory, clock=clock),
            ExchangedTokens(tokens=tokens, directory=directory),
        ],
        report=access.report_conflict,
    )
    house = House(
        settings=options,
        clock=clock,
        db=db,
        directory=directory,
        access=access,
        identities=Identities(db=db, access=access, directory=directory),
        keys=Keys(db=db, access=access, directory=directory),
        logins=Logins(db=db, clock=clock, access=access, directory=directory, settings=options),
        projects=projects,
        apps=Apps(
            db=db,
            access=access,
            events=events,
            projects=projects,
            code_digest=no_code,
            read_log=logs,
            settings=options,
        ),
        grants=Grants(key=key, tokens=tokens, clock=clock, settings=options),
        tokens=tokens,
        chain=chain,
        events=events,
        processes=FakeProcesses(),
        logs=logs,
    )
    await house.apps.open()
    try:
        yield house
    finally:
        await directory.close()
        await db.close()


class _Server(uvicorn.Server):
    """A server that leaves the signals of the test process alone and stops at once."""

    stopping: asyncio.Event

    async def main_loop(self) -> None:
        await self.stopping.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Any, *, uds: Path | None = None) -> AsyncIterator[int]:
    """Run an ASGI app under uvicorn on loopback (the port is given) or on a unix socket."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="websockets-sansio",
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    server.stopping = asyncio.Event()
    if uds is None:
        # with the protocol named, accepted connections get TCP_NODELAY from asyncio
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(uds))
    port = listener.getsockname()[1] if uds is None else 0
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if task.done():
                await task
            await asyncio.sleep(0.005)
        yield port
    finally:
        server.stopping.set()
        await task
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            if uds is not None:
                uds.unlink()

"""Real rooms over a temporary home, and real servers, for the tests of gateway, console and apps."""

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
from tests.connections import cut

from tower.errors import Unavailable
from tower.gateway.door import Gateway, Parts, build
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Presented
from tower.identity.principal import Principal
from tower.identity.signing import SigningKey
from tower.identity.tokens import AppClaims, AppTokens
from tower.main import house as composition
from tower.rpc.caller import Origin
from tower.settings import Settings
from tower.store import logs
from tower.store.apps import AppRow
from tower.store.audit import page as audit_page

DOMAIN = "localhost"


@dataclass
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


class House:
    """The composed house, with shorthands for what tests do."""

    def __init__(self, rooms: composition.House) -> None:
        self.rooms = rooms
        self.settings = rooms.settings
        self.db = rooms.db
        self.chain = rooms.chain
        self.access = rooms.access
        self.identities = rooms.identities
        self.keys = rooms.api_keys
        self.logins = rooms.logins
        self.projects = rooms.projects
        self.apps = rooms.apps
        self.grants = rooms.grants
        self.events = rooms.events
        self.tokens = AppTokens(
            key=SigningKey.load_or_create(rooms.settings.home / "signing.key"),
            clock=rooms.clock,
            issuer=rooms.settings.org,
        )
        self.processes = FakeProcesses()
        self.numbers = itertools.count()

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

    def write_app_log(self, app_id: str, text: str) -> None:
        """What an app prints."""
        sink = logs.LogSink(
            logs.app_path(self.settings.home, app_id),
            1_000_000,
            now=self.rooms.clock.now,
            changed=lambda: self.events.publish(("log", app_id)),
        )
        sink.write(text.encode())
        sink.close()

    def claims(self, token: str) -> AppClaims:
        """What an app token says, if it is genuine."""
        return self.tokens.verify(token)

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
                webhooks=self.rooms.webhooks,
                settings=self.settings,
                clock=self.rooms.clock,
                console=options.pop("console", Origin("http", "127.0.0.1", 1).base_url),
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
async def built(home: Path, **settings: Any) -> AsyncIterator[House]:
    """The house with the project flytesnacks in it."""
    async with composition.compose(Settings(home=home, apps_domain=DOMAIN, **settings)) as rooms:
        yield House(rooms)


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
        await cut(server.server_state)
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            if uds is not None:
                uds.unlink()

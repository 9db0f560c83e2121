"""The identity rooms over a real SQLite database, with a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from tower.control.access import Access
from tower.control.apikeys import ApiKeys
from tower.control.definitions import Definitions
from tower.control.denials import Denials
from tower.control.directory import Directory
from tower.control.firststart import bootstrap
from tower.control.grants import ISSUER, Grants
from tower.control.identities import Identities
from tower.control.logins import Logins
from tower.control.refusals import Refusals
from tower.control.standing import Standing
from tower.identity.accesstokens import AccessTokens
from tower.identity.authenticators import MACHINE, BrowserSessions, ExchangedTokens, Sockets
from tower.identity.authenticators import ApiKeys as KeyAuthenticator
from tower.identity.chain import Audience, Chain, Presented
from tower.identity.guesses import Guesses
from tower.identity.keyring import KeyRing
from tower.identity.principal import Principal
from tower.identity.signing import SigningKey
from tower.identity.tokenauth import AccessTokenBearers
from tower.identity.tokens import AppTokens
from tower.identity.workload import Workload, WorkloadKind
from tower.main.foundations import Foundations
from tower.main.governance import governance
from tower.main.oauth import OAuth, oauth
from tower.policy.engine import Engine
from tower.rest.routes import Governance
from tower.rpc.caller import Origin
from tower.settings import Settings
from tower.store import audit
from tower.store import schema as tables
from tower.store.database import Database

HOST = "127.0.0.1:8080"


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.time = now
        self.count = 0

    def now(self) -> float:
        return self.time

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count:019d}"


@dataclass
class World:
    """Everything from the store to the chain, as main puts it together."""

    home: Path
    clock: FakeClock
    db: Database
    directory: Directory
    access: Access
    standing: Standing
    identities: Identities
    api_keys: ApiKeys
    logins: Logins
    tokens: AppTokens
    grants: Grants
    chain: Chain
    ring: KeyRing
    access_tokens: AccessTokens
    oauth: OAuth
    settings: Settings
    governance: Governance

    @classmethod
    @asynccontextmanager
    async def opened(cls, home: Path, *, projects: bool = True) -> AsyncIterator[World]:
        clock = FakeClock()
        settings = Settings(home=home)
        db = Database.open(home / "tower.db", clock=clock)
        directory = Directory(db=db, clock=clock)
        access = Access(
            db=db, engine=Engine(), directory=directory, refusals=Refusals(clock), denials=Denials(clock)
        )
        standing = Standing(db=db, clock=clock, access=access, directory=directory)
        key = SigningKey.load_or_create(home / "signing-key.pem")
        ring = KeyRing(home / "signing-keys", clock=clock, first=key)
        tokens = AppTokens(key=ring, clock=clock, issuer=ISSUER)
        origin = Origin("http", "127.0.0.1", 8080)
        access_tokens = AccessTokens(keys=ring, clock=clock, ours=origin.ours)
        chain = Chain(
            [
                Sockets(attempts=standing),
                AccessTokenBearers(tokens=access_tokens, directory=directory, clock=clock),
                ExchangedTokens(tokens=tokens, directory=standing),
                KeyAuthenticator(directory=directory, clock=clock),
                BrowserSessions(directory=directory, clock=clock),
            ],
            report=access.report_conflict,
            guesses=Guesses(clock=clock),
            refused=access.refused,
        )
        logins = Logins(db=db, access=access, settings=settings)
        grants = Grants(key=key, tokens=tokens, clock=clock, settings=settings, limits=directory.app_ceilings)
        base = Foundations(settings=settings, clock=clock, db=db, directory=directory, access=access, key=key)
        world = cls(
            home=home,
            clock=clock,
            db=db,
            directory=directory,
            access=access,
            standing=standing,
            identities=Identities(db=db, access=access, directory=directory),
            api_keys=ApiKeys(db=db, access=access, directory=directory, clock=clock),
            logins=logins,
            tokens=tokens,
            grants=grants,
            chain=chain,
            ring=ring,
            access_tokens=access_tokens,
            oauth=oauth(
                base,
                logins=logins,
                chain=chain,
                grants=grants,
                ring=ring,
                tokens=access_tokens,
                issuer=origin.base_url,
            ),
            settings=settings,
            governance=governance(base, definitions=Definitions(db=db), ring=ring),
        )
        if projects:
            await db.write(
                lambda tx: tx.insert(
                    tables.projects, name="flytesnacks", created_at=0.0, created_by="machine"
                )
            )
        try:
            yield world
        finally:
            await directory.close()
            await db.close()

    async def bootstrap(self) -> str:
        """The administrator's key."""
        path = await bootstrap(
            db=self.db, access=self.access, identities=self.identities, api_keys=self.api_keys, home=self.home
        )
        assert path is not None
        return path.read_text().strip()

    async def person(
        self, name: str, role: str | None = None, project: str = "*", domain: str = "*", **more: Any
    ) -> str:
        """A user with a role and a key named after them; the key's text."""
        await self.identities.add_user(
            MACHINE, subject=name, role=role, project=project, domain=domain, **more
        )
        return await self.key(f"{name}-key", name)

    async def key(self, name: str, user: str, **more: Any) -> str:
        return (await self.api_keys.create(MACHINE, name=name, subject=user, **more)).key.text

    async def cookie(self, name: str, host: str = HOST) -> str:
        """The text of a console session of this person."""
        code = await self.logins.create_link(MACHINE, name)
        return (await self.logins.sign_in(code, host=host)).text

    async def who(
        self,
        *headers: tuple[str, str],
        bearer: str = "",
        cookie: str = "",
        workload: Workload | None = None,
        secure: bool = False,
        host: str = HOST,
        audience: Audience = "rpc",
    ) -> Principal:
        """What the chain makes of a request."""
        sent = [(name.encode(), value.encode()) for name, value in headers]
        if bearer:
            sent.append((b"authorization", f"Bearer {bearer}".encode()))
        if cookie:
            name = b"__Host-tower_session" if secure else b"tower_session"
            sent.append((b"cookie", name + b"=" + cookie.encode()))
        return await self.chain.authenticate(
            Presented(headers=tuple(sent), workload=workload, secure=secure, host=host, audience=audience)
        )

    async def running(
        self, person: Principal, *, run: str = "r1", attempt: int = 1, phase: int = 4, task: str = "t"
    ) -> Workload:
        """A run of this person with one running attempt; the workload of its socket."""
        from tower.control.grants import actors_to_text, ceilings_to_text

        place = {"project": "flytesnacks", "domain": "development", "run": run, "action": "a0"}
        action = {
            **place,
            "task_project": "flytesnacks",
            "task_domain": "development",
            "task_name": task,
            "task_version": "1",
            "inputs_uri": "",
            "inputs_hash": "",
            "run_spec": b"",
            "executed_by": person.subject,
            "credential_kind": person.credential.kind.value,
            "credential_id": person.credential.root,
            "actors": actors_to_text(person.actors),
            "ceilings": ceilings_to_text(person.ceilings),
            "phase": phase,
            "created_at": self.clock.now(),
            "queued_at": self.clock.now(),
        }

        def write(tx: Any) -> None:
            tx.execute(insert(tables.actions).values(**action))
            tx.execute(
                insert(tables.attempts).values(
                    **place, attempt=attempt, phase=phase, created_at=0.0, has_logs=False
                )
            )

        await self.db.write(write)
        return Workload(WorkloadKind.ATTEMPT, f"flytesnacks/development/{run}/a0/{attempt}", 1)

    async def records(self, **filters: Any) -> list[Any]:
        return await self.db.read(lambda reader: audit.page(reader, **filters))


def app_socket(app: str = "flytesnacks/development/hook") -> Workload:
    """The socket of an app."""
    return Workload(WorkloadKind.APP, app, 1)


ADMIN_SOCKET = Workload(WorkloadKind.ADMIN, "admin", 1)

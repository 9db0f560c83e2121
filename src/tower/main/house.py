"""Every room over one home directory, built in the order in which they need each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

from tower.clock import Clock, SystemClock
from tower.control.access import Access
from tower.control.agents import Agents
from tower.control.apikeys import ApiKeys
from tower.control.apps import Apps
from tower.control.attesting import Attesting
from tower.control.data import Data
from tower.control.definitions import Definitions
from tower.control.denials import Denials
from tower.control.directory import Directory
from tower.control.events import Events
from tower.control.firing import Firing
from tower.control.firststart import bootstrap
from tower.control.grants import Grants
from tower.control.handovers import Handovers
from tower.control.identities import Identities
from tower.control.inputs import Inputs
from tower.control.logins import Logins
from tower.control.projects import Projects
from tower.control.rawdata import RawData
from tower.control.redaction import Redaction
from tower.control.refusals import Refusals
from tower.control.runs import Runs
from tower.control.schedules import Schedules
from tower.control.standing import Standing
from tower.control.standinggrants import StandingGrants
from tower.control.subactions import SubActions
from tower.control.tailing import Read, Tailing
from tower.control.tasks import Tasks
from tower.control.waiting import Waiting
from tower.control.watching import Watching
from tower.control.webhooks import Webhooks
from tower.identity import authenticators
from tower.identity.accesstokens import AccessTokens
from tower.identity.agenttokens import AgentTokens
from tower.identity.chain import Chain
from tower.identity.guesses import Guesses
from tower.identity.keyring import KeyRing
from tower.identity.outside import OutsideRing
from tower.identity.runtokens import RunTokenBearers, RunTokens
from tower.identity.signing import SigningKey
from tower.identity.tokenauth import AccessTokenBearers
from tower.identity.tokens import AppTokens
from tower.main.confidences import confidences
from tower.main.foundations import Foundations
from tower.main.governance import governance
from tower.main.guards import GUARDS, Guards
from tower.main.oauth import FOLDER, OAuth, oauth
from tower.main.oidc import Oidc, oidc
from tower.policy.engine import Engine
from tower.rest import door as rest_door
from tower.rest.routes import Confidences, Governance
from tower.rpc import Origin
from tower.settings import Settings
from tower.store import logs
from tower.store.blobs import Blobs
from tower.store.database import Database
from tower.store.logs import Line

VERSION = version("flyte-tower")
"""What answers carry in `x-tower`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The use-cases over one home, the chain that names callers, and the administration door."""

    settings: Settings
    clock: Clock
    db: Database
    events: Events
    blobs: Blobs
    origin: Origin
    chain: Chain
    directory: Directory
    access: Access
    standing: Standing
    agents: Agents
    grants: Grants
    standing_grants: StandingGrants
    identities: Identities
    api_keys: ApiKeys
    logins: Logins
    oauth: OAuth
    governance: Governance
    oidc: Oidc
    projects: Projects
    definitions: Definitions
    inputs: Inputs
    tasks: Tasks
    runs: Runs
    schedules: Schedules
    firing: Firing
    subactions: SubActions
    waiting: Waiting
    watching: Watching
    tailing: Tailing
    data: Data
    apps: Apps
    webhooks: Webhooks
    confidences: Confidences
    attesting: Attesting
    handovers: Handovers
    rawdata: RawData
    rest: rest_door.Door


@asynccontextmanager
async def compose(settings: Settings, guards: Guards = GUARDS) -> AsyncIterator[House]:
    """The house over `settings.home`, made ready on a first start and closed at the end of the block.

    Raises Precondition when another Tower holds the same home.
    """
    settings.validate()
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    clock = SystemClock()
    db = Database.open(settings.database, clock=clock)
    try:
        house = _rooms(settings, clock=clock, db=db, guards=guards)
        await house.governance.policies.open()
        await bootstrap(
            db=db,
            access=house.access,
            identities=house.identities,
            api_keys=house.api_keys,
            home=settings.home,
        )
        await house.projects.bootstrap(settings.first_project)
        await house.apps.open()
        await house.confidences.secrets.open()
        house.governance.auditing.start()
        try:
            yield house
        finally:
            await house.governance.auditing.stop()
            await house.directory.close()
    finally:
        await db.close()


def _rooms(settings: Settings, *, clock: Clock, db: Database, guards: Guards) -> House:
    key = SigningKey.load_or_create(settings.home / "signing.key")
    events = Events()
    blobs = Blobs(settings.home / "blobs", db=db)
    directory = Directory(db=db, clock=clock, issuers=settings.issuers)
    directory.changed = lambda: events.publish(("people",))
    access = guards.access(
        db=db, engine=Engine(), directory=directory, refusals=Refusals(clock), denials=Denials(clock)
    )
    standing = guards.standing(
        db=db, clock=clock, access=access, directory=directory, longest=settings.max_grant
    )
    ring = KeyRing(settings.home / FOLDER, clock=clock, first=key)
    outside = OutsideRing(settings.home / "identity-keys", clock=clock)
    tokens = AppTokens(key=ring, clock=clock, issuer=settings.org)
    scheme = "https" if settings.tls else "http"
    origin = Origin(scheme, settings.host, settings.port, settings.public_url)
    access_tokens = AccessTokens(keys=ring, clock=clock, ours=origin.ours)
    run_tokens = RunTokens(keys=ring, clock=clock, issuer=settings.org)
    grants = Grants(key=key, tokens=tokens, clock=clock, settings=settings, limits=directory.app_ceilings)
    logins = Logins(db=db, access=access, settings=settings)
    base = Foundations(settings=settings, clock=clock, db=db, directory=directory, access=access, key=key)
    foreign = oidc(base, logins=logins, ours=origin.ours)
    chain = guards.chain(
        [
            authenticators.Sockets(attempts=standing, owners=directory),
            authenticators.ApiKeys(directory=directory, clock=clock),
            RunTokenBearers(tokens=run_tokens, attempts=standing),
            foreign.tokens,
            AccessTokenBearers(tokens=access_tokens, directory=directory, clock=clock),
            authenticators.ExchangedTokens(tokens=tokens, directory=standing),
            authenticators.BrowserSessions(directory=directory, clock=clock),
        ],
        report=access.report_conflict,
        guesses=Guesses(clock=clock),
        refused=access.refused,
    )
    identities = Identities(db=db, access=access, directory=directory)
    api_keys = ApiKeys(db=db, access=access, directory=directory, clock=clock, max_life=settings.max_key_life)
    webhooks = Webhooks(db=db, access=access, directory=directory, key=key)
    projects = Projects(db=db, access=access)
    definitions = Definitions(db=db)
    redaction = Redaction()
    inputs = Inputs(blobs=blobs, limit=settings.max_inputs, redaction=redaction)
    handovers = Handovers(blobs=blobs)
    rawdata = RawData(db=db, blobs=blobs, access=access, attempts=standing, limit=settings.max_upload)
    confiding = confidences(
        base,
        projects=projects,
        definitions=definitions,
        redaction=redaction,
        ring=outside,
        ours=origin.ours,
    )
    tasks = Tasks(
        db=db,
        access=access,
        blobs=blobs,
        projects=projects,
        definitions=definitions,
        settings=settings,
        secrets=confiding.use,
    )
    waiting = Waiting(events=events)
    watching = Watching(
        db=db,
        access=access,
        events=events,
        definitions=definitions,
        projects=projects,
        waiting=waiting,
    )
    runs = Runs(
        db=db,
        clock=clock,
        access=access,
        events=events,
        definitions=definitions,
        tasks=tasks,
        projects=projects,
        inputs=inputs,
        settings=settings,
    )
    signing_in = oauth(
        base,
        logins=logins,
        chain=chain,
        grants=grants,
        ring=ring,
        outside=outside,
        tokens=access_tokens,
        issuer=origin.base_url,
    )
    rules = governance(base, definitions=definitions, ring=ring)
    schedules = Schedules(
        db=db,
        clock=clock,
        access=access,
        events=events,
        definitions=definitions,
        inputs=inputs,
        projects=projects,
        settings=settings,
    )
    standing_grants = StandingGrants(db=db, clock=clock, access=access, events=events, settings=settings)
    return House(
        settings=settings,
        clock=clock,
        db=db,
        events=events,
        blobs=blobs,
        origin=origin,
        chain=chain,
        directory=directory,
        access=access,
        standing=standing,
        agents=Agents(
            db=db,
            clock=clock,
            access=access,
            standing=standing,
            tokens=AgentTokens(keys=ring, secret=key.derive("agents"), clock=clock, issuer=settings.org),
            key=key,
            settings=settings,
        ),
        grants=grants,
        standing_grants=standing_grants,
        identities=identities,
        api_keys=api_keys,
        logins=logins,
        oauth=signing_in,
        governance=rules,
        oidc=foreign,
        projects=projects,
        definitions=definitions,
        inputs=inputs,
        tasks=tasks,
        watching=watching,
        waiting=waiting,
        runs=runs,
        schedules=schedules,
        firing=Firing(db=db, clock=clock, access=access, directory=directory, runs=runs, settings=settings),
        subactions=SubActions(
            db=db,
            access=access,
            events=events,
            definitions=definitions,
            inputs=inputs,
            runs=runs,
            waiting=waiting,
            handovers=handovers,
            rawdata=rawdata,
            settings=settings,
        ),
        handovers=handovers,
        rawdata=rawdata,
        tailing=Tailing(watching=watching, events=events, read=_attempt_logs(settings)),
        data=Data(
            db=db,
            access=access,
            blobs=blobs,
            grants=grants,
            inputs=inputs,
            definitions=definitions,
            projects=projects,
            watching=watching,
            settings=settings,
        ),
        apps=Apps(
            db=db,
            access=access,
            events=events,
            projects=projects,
            code_digest=tasks.code_digest,
            secrets=confiding.use,
            read_log=_app_logs(settings),
            settings=settings,
        ),
        webhooks=webhooks,
        confidences=confiding,
        attesting=Attesting(
            db=db,
            clock=clock,
            access=access,
            tokens=run_tokens,
            redaction=confiding.redaction,
            settings=settings,
        ),
        rest=rest_door.build(
            chain=chain,
            access=access,
            identities=identities,
            api_keys=api_keys,
            logins=logins,
            accounts=signing_in.accounts,
            signing_keys=signing_in.signing_keys,
            standing_grants=standing_grants,
            schedules=schedules,
            governance=rules,
            webhooks=webhooks,
            confidences=confiding,
            base_url=origin.base_url,
            org=settings.org,
        ),
    )


def _attempt_logs(settings: Settings) -> Read:
    async def read(attempt_id: str, offset: int) -> tuple[Sequence[Line], int]:
        return await asyncio.to_thread(logs.read, logs.attempt_path(settings.home, attempt_id), offset)

    return read


def _app_logs(settings: Settings) -> Read:
    async def read(app_id: str, offset: int) -> tuple[Sequence[Line], int]:
        return await asyncio.to_thread(logs.read, logs.app_path(settings.home, app_id), offset)

    return read

"""Keys, sessions, roles and people, changed in any order: who gets in, and may what, is what a model says.

The real use-cases over a real SQLite file, with a clock that the test moves; the model beside them is plain
dictionaries. After every step every credential that ever was is shown again.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.identity_world import World

from tower.control.apikeys import ApiKeys
from tower.errors import AlreadyExists, Fault, NotFound, Precondition, Unauthenticated
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType

PEOPLE = ("ann", "ben")
NAMES = ("k1", "k2")
ROLES = ("admin", "viewer")
SESSION_LIFE = 12 * 3600.0
MAY = {
    "viewer": {Action.TASK_VIEW},
    "contributor": {Action.TASK_VIEW, Action.TASK_RUN},
    "admin": {Action.TASK_VIEW, Action.TASK_RUN, Action.USER_MANAGE},
}
TASK = Resource(ResourceType.TASK, "flytesnacks", "development", "t")
ASKED = (
    (Action.TASK_VIEW, TASK),
    (Action.TASK_RUN, TASK),
    (Action.USER_MANAGE, Resource(ResourceType.ORG)),
)

people = st.sampled_from(PEOPLE)
names = st.sampled_from(NAMES)
roles = st.sampled_from(ROLES)
limits = st.sampled_from(["contributor", "viewer"])
spans = st.none() | st.sampled_from([60.0, 3600.0])


@dataclass
class Key:
    """An API key as the model knows it; `current` while it has its name."""

    text: str
    name: str
    owner: str
    maker: str
    role: str | None
    actions: frozenset[str] | None
    made: float
    ends: float | None
    current: bool = True
    disabled: bool = False
    deleted: bool = False


@dataclass
class Session:
    """A browser session as the model knows it."""

    text: str
    owner: str
    ends: float
    revoked: bool = False


@dataclass
class Model:
    """All that the rule needs to say who gets in and may what."""

    roles: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in PEOPLE})
    disabled: set[str] = field(default_factory=set)
    keys: list[Key] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    def current(self, name: str, owner: str) -> Key | None:
        return next((key for key in self.of_name(name, owner) if key.current), None)

    def of_name(self, name: str, owner: str) -> list[Key]:
        return [key for key in self.keys if (key.name, key.owner) == (name, owner) and not key.deleted]

    def rights(self, person: str) -> set[Action]:
        if person in self.disabled:
            return set()
        return {action for role in self.roles[person] for action in MAY[role]}

    def holds(self, shown: Key | Session, now: float) -> bool:
        if shown.owner in self.disabled:
            return False
        if isinstance(shown, Session):
            return not shown.revoked and shown.ends > now
        return not shown.deleted and not shown.disabled and (shown.ends is None or shown.ends > now)

    def may(self, shown: Key | Session) -> set[Action]:
        found = self.rights(shown.owner)
        if isinstance(shown, Session):
            return found
        if shown.role is not None:
            found &= MAY[shown.role]
        if shown.actions is not None:
            seen = {Action.TASK_VIEW} if Action.TASK_RUN.value in shown.actions else set()
            found = {each for each in found if each.value in shown.actions or each in seen}
        return found & self.rights(shown.maker) if shown.maker else found


class Identities(RuleBasedStateMachine):
    """One Tower's identity rooms, and the model of them."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.closing = AsyncExitStack()
        self.home = Path(tempfile.mkdtemp(prefix="stateful-"))
        self.model = Model()
        self.count = 0

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        async def start() -> World:
            world = await self.closing.enter_async_context(World.opened(self.home))
            for name in PEOPLE:
                await world.identities.add_user(MACHINE, subject=name)
            return world

        self.world: World = self.run(start())
        self.keys: ApiKeys = self.world.api_keys
        self.give("ann", "admin")
        self.give("ben", "contributor")
        self.make_key("k1", "ann", None, None, None, None)
        self.make_key("k2", "ben", "ann", None, None, 3600.0)

    def teardown(self) -> None:
        self.run(self.closing.aclose())
        self.runner.close()
        shutil.rmtree(self.home)

    @property
    def now(self) -> float:
        return self.world.clock.now()

    async def person(self, name: str) -> Principal | None:
        """Somebody who calls with a fresh session of theirs; None when they cannot sign in."""
        try:
            cookie = await self.world.cookie(name)
        except Precondition:
            return None
        self.model.sessions.append(Session(cookie, name, self.now + SESSION_LIFE))
        return await self.world.who(cookie=cookie)

    # people and roles

    @rule(name=people)
    def disable_person(self, name: str) -> None:
        self.run(self.world.identities.set_disabled(MACHINE, name, disabled=True))
        self.model.disabled.add(name)

    @rule(name=people)
    def enable_person(self, name: str) -> None:
        self.run(self.world.identities.set_disabled(MACHINE, name, disabled=False))
        self.model.disabled.discard(name)

    @rule(name=people, role=roles)
    def give(self, name: str, role: str) -> None:
        self.run(self.world.identities.add_binding(MACHINE, subject=name, role=role))
        self.model.roles[name].add(role)

    @rule(name=people, role=roles)
    def take(self, name: str, role: str) -> None:
        taken = self.world.identities.remove_binding(
            MACHINE, subject=name, role=role, project="*", domain="*"
        )
        try:
            self.run(taken)
            assert role in self.model.roles[name]
        except NotFound:
            assert role not in self.model.roles[name]
        self.model.roles[name].discard(role)

    # keys

    @rule(
        name=names,
        owner=people,
        by=st.none() | people,
        role=st.none() | limits,
        actions=st.none() | st.sets(st.sampled_from(["task:run", "task:view", "user:manage"]), min_size=1),
        life=spans,
    )
    def make_key(
        self,
        name: str,
        owner: str,
        by: str | None,
        role: str | None,
        actions: set[str] | None,
        life: float | None,
    ) -> None:
        async def make() -> None:
            caller = MACHINE if by is None else await self.person(by)
            if caller is None:
                assert by in self.model.disabled
                return
            allowed = by in {None, owner} or "admin" in self.model.roles[by or ""]
            possible = owner not in self.model.disabled and self.model.current(name, owner) is None
            try:
                made = await self.keys.create(
                    caller, name=name, subject=owner, role=role, actions=actions, expires_in=life
                )
            except (AlreadyExists, Precondition):
                assert allowed
                assert not possible
                return
            except Fault:
                assert not allowed
                return
            assert allowed
            assert possible
            self.model.keys.append(
                Key(
                    text=made.key.text,
                    name=name,
                    owner=owner,
                    maker="" if by in {None, owner} else str(by),
                    role=role,
                    actions=None if actions is None else frozenset(actions),
                    made=self.now,
                    ends=None if life is None else self.now + life,
                )
            )

        self.run(make())

    @rule(name=names, owner=people, overlap=st.sampled_from([0.0, 30.0, 7200.0]))
    def rotate_key(self, name: str, owner: str, overlap: float) -> None:
        old = self.model.current(name, owner)
        try:
            made = self.run(self.keys.rotate(MACHINE, name, subject=owner, overlap=overlap))
        except NotFound:
            assert old is None
            return
        except Precondition:
            assert old is not None
            assert old.disabled or old.owner in self.model.disabled
            return
        assert old is not None
        life = None if old.ends is None else old.ends - old.made
        until = self.now + overlap
        old.ends = until if old.ends is None else min(old.ends, until)
        old.current = False
        new = Key(made.key.text, name, old.owner, "", old.role, old.actions, self.now, None)
        new.ends = None if life is None else self.now + life
        self.model.keys.append(new)

    @rule(name=names, owner=people, disabled=st.booleans())
    def disable_key(self, name: str, owner: str, disabled: bool) -> None:
        try:
            self.run(self.keys.set_disabled(MACHINE, name, subject=owner, disabled=disabled))
        except NotFound:
            assert self.model.current(name, owner) is None
            return
        for key in self.model.of_name(name, owner):
            key.disabled = disabled

    @rule(name=names, owner=people)
    def delete_key(self, name: str, owner: str) -> None:
        try:
            self.run(self.keys.delete(MACHINE, name, subject=owner))
        except NotFound:
            assert self.model.current(name, owner) is None
            return
        for key in self.model.of_name(name, owner):
            key.deleted = True

    # sessions and time

    @rule(name=people)
    def sign_in(self, name: str) -> None:
        assert (self.run(self.person(name)) is None) is (name in self.model.disabled)

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data())
    def sign_out(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.model.sessions))

        async def leave() -> None:
            try:
                caller = await self.world.who(cookie=session.text)
            except Unauthenticated:
                assert not self.model.holds(session, self.now)
                return
            await self.world.logins.sign_out(caller)
            session.revoked = True

        self.run(leave())

    @rule(seconds=st.sampled_from([1.0, 45.0, 3600.0, SESSION_LIFE]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.time += seconds

    # the law

    @invariant()
    def who_gets_in_and_may_what_is_what_the_model_says(self) -> None:
        if not hasattr(self, "world"):
            return
        self.run(self.check())

    async def check(self) -> None:
        for shown in (*self.model.keys, *self.model.sessions):
            credential = {"cookie" if isinstance(shown, Session) else "bearer": shown.text}
            try:
                caller = await self.world.who(**credential)  # type: ignore[arg-type]
            except Unauthenticated:
                assert not self.model.holds(shown, self.now), shown
                continue
            assert self.model.holds(shown, self.now), shown
            assert caller.subject == shown.owner
            found = {
                action
                for action, thing in ASKED
                if (await self.world.access.check(caller, action, thing)).allowed
            }
            assert found == self.model.may(shown), shown
        listed = {
            (row.name, row.id, bool(row.replaced_by), row.expires_at) for row in await self.keys.list(MACHINE)
        }
        assert listed == {
            (key.name, key.text.split("_")[1], not key.current, key.ends)
            for key in self.model.keys
            if not key.deleted and (key.current or (key.ends or 0) > self.now)
        }


Identities.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestIdentities = Identities.TestCase

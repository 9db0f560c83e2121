"""What a caller may do: the person's rights now, below every limit on the way.

    what the person may do now ∩ every ceiling on the way: credential, app, run, who gave a privilege

The limits that an app has now are looked up at each call, besides those in its tokens and runs. Nothing is
recorded here and nothing raised; `control.access` does both.
"""

from __future__ import annotations

from dataclasses import replace

from tower.control.directory import Directory
from tower.control.givers import Givers
from tower.identity.principal import ActorKind, Ceiling, Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Call, Decision, Engine, Explanation
from tower.policy.rules import NOTHING, Binding

FOREIGN_CODE = "foreign-code"
"""A privileged person ran code that somebody else registered (T1)."""

_DECISIONS = 16384


class Deciding:
    """Asks the engine with the facts of the directory, and remembers what it answered."""

    def __init__(self, *, engine: Engine, directory: Directory) -> None:
        self._engine = engine
        self._directory = directory
        self._givers = Givers(directory)
        self._decided: dict[tuple[int, Action, Resource, str, bool], tuple[Principal, Decision]] = {}
        self._decided_under: tuple[int, Engine] = (directory.epoch, engine)

    @property
    def revision(self) -> str:
        """The revision of the policy set in force."""
        return self._engine.revision

    @property
    def engine(self) -> Engine:
        """What decides now."""
        return self._engine

    def adopt(self, engine: Engine) -> None:
        """Decide by another rule book from the next call on. Call it after the commit of a change."""
        self._engine = engine

    def forget(self) -> None:
        """Read people, keys and the limits of apps again. Call it after the commit of a change of any."""
        self._directory.forget()

    async def check(
        self,
        principal: Principal,
        action: Action,
        resource: Resource,
        *,
        author: str = "",
        latest: bool = False,
    ) -> Decision:
        """Whether the caller may do this now. Records nothing, raises nothing.

        `author` is the subject that registered the code which is to run, "" where none is; `latest` says that
        no version of it was named.
        """
        if principal.actors:  # the limits of the apps on the way change by themselves
            return await self.check_under(
                self._engine, principal, action, resource, author=author, latest=latest
            )
        # as good as asked again: the facts of people and keys (the epoch) and the rules are the same
        state = (self._directory.epoch, self._engine)
        if state != self._decided_under:
            self._decided_under = state
            self._decided.clear()
        key = (id(principal), action, resource, author, latest)
        known = self._decided.get(key)
        if known is not None and known[0] is principal:
            return known[1]
        decision = await self.check_under(
            self._engine, principal, action, resource, author=author, latest=latest
        )
        if state == (self._directory.epoch, self._engine):
            if len(self._decided) >= _DECISIONS:
                self._decided.clear()
            self._decided[key] = principal, decision
        return decision

    async def check_under(
        self,
        engine: Engine,
        principal: Principal,
        action: Action,
        resource: Resource,
        *,
        author: str = "",
        latest: bool = False,
        audience: str = "",
    ) -> Decision:
        """What `check` would say under this rule book. `audience` is that of a token that is asked for."""
        bindings = NOTHING
        if principal.kind is not Kind.MACHINE:
            facts = await self._directory.subject(principal.subject)
            if facts is None or facts.disabled:
                return Decision(False, ("account-disabled",), engine.revision, action.value, str(resource))
            bindings = await self._directory.bindings(principal.subject)
        ceilings = self._ceilings(principal)
        foreign = author not in {"", principal.subject}
        decision = engine.decide(
            subject=principal.subject,
            kind=principal.kind,
            bindings=bindings,
            ceilings=ceilings,
            action=action,
            resource=resource,
            call=_call(
                principal,
                foreign=foreign,
                privileged=foreign and engine.privileged(bindings),
                latest=latest,
                audience=audience,
            ),
        )
        for ceiling in ceilings if decision.allowed else ():
            if not await self._givers.may(engine, ceiling, action, resource, to=principal.subject):
                return replace(decision, allowed=False, policies=(f"below {ceiling.source}",))
        return decision

    async def account_off(self, principal: Principal, action: Action, resource: Resource) -> Decision | None:
        """The refusal of somebody whose account is disabled or gone, else None. Records nothing."""
        if principal.kind is not Kind.MACHINE:
            facts = await self._directory.subject(principal.subject)
            if facts is None or facts.disabled:
                return Decision(False, ("account-disabled",), self.revision, action.value, str(resource))
        return None

    async def gives(self, ceiling: Ceiling, action: Action, resource: Resource, *, to: str) -> bool:
        """Whether the person that a limit is may do this now, as `givers` says. Records nothing."""
        return await self._givers.may(self._engine, ceiling, action, resource, to=to)

    async def warning(self, principal: Principal, author: str) -> str:
        """What people are to be warned of when the caller runs code of `author`: "foreign-code", or ""."""
        if author in {"", principal.subject} or principal.kind is Kind.MACHINE:
            return ""
        privileged = self._engine.privileged(await self._directory.bindings(principal.subject))
        return FOREIGN_CODE if privileged else ""

    async def looks_at_names(self, principal: Principal, type_: ResourceType) -> bool:
        """Whether the caller can get different answers about two things of this sort in one scope."""
        if principal.kind is Kind.MACHINE:
            return False
        if any(ceiling.tasks is not None for ceiling in self._ceilings(principal)):
            return True
        bindings = await self._directory.bindings(principal.subject)
        return self._engine.looks_at_names(bindings, type_)

    async def tasks_in(self, principal: Principal, project: str, domain: str) -> list[str]:
        """The tasks of a place that the caller has a role for alone."""
        if principal.kind is Kind.MACHINE:
            return []
        return sorted((await self._directory.bindings(principal.subject)).tasks_in(project, domain))

    async def explain(
        self,
        principal: Principal,
        action: Action,
        resource: Resource,
        *,
        author: str = "",
        latest: bool = False,
    ) -> Explanation:
        """The decision with what led to it. Records nothing. `author` and `latest` as in `check`."""
        decision = await self.check(principal, action, resource, author=author, latest=latest)
        if decision.policies == ("account-disabled",):
            return Explanation(decision, (), ())
        machine = principal.kind is Kind.MACHINE
        bindings = NOTHING if machine else await self._directory.bindings(principal.subject)
        foreign = author not in {"", principal.subject}
        found = self._engine.explain(
            subject=principal.subject,
            kind=principal.kind,
            bindings=bindings,
            ceilings=self._ceilings(principal),
            action=action,
            resource=resource,
            call=_call(
                principal,
                foreign=foreign,
                privileged=foreign and self._engine.privileged(bindings),
                latest=latest,
            ),
        )
        limits = [
            (
                ceiling,
                allows
                and await self._givers.may(self._engine, ceiling, action, resource, to=principal.subject),
            )
            for ceiling, allows in found.ceilings
        ]
        return replace(found, decision=decision, ceilings=tuple(limits))

    def _ceilings(self, principal: Principal) -> tuple[Ceiling, ...]:
        """Those of the principal, and those that the apps on the way have now."""
        if not principal.actors:
            return principal.ceilings
        live = [
            ceiling
            for actor in principal.actors
            if actor.kind is ActorKind.APP
            for ceiling in self._directory.app_ceilings(actor.id)
        ]
        return tuple(dict.fromkeys((*principal.ceilings, *live)))

    async def roles(self, principal: Principal) -> list[Binding]:
        """The roles of the caller, of their groups included, before any limit."""
        given = await self._directory.bindings(principal.subject)
        return sorted(given.items, key=str)


def _call(
    principal: Principal,
    *,
    foreign: bool = False,
    privileged: bool = False,
    latest: bool = False,
    audience: str = "",
) -> Call:
    credential = principal.credential
    return Call(
        credential=credential.kind.value,
        attested=credential.attested,
        app=principal.via_app,
        in_run=any(actor.kind is ActorKind.RUN for actor in principal.actors),
        foreign_code=foreign,
        privileged=privileged,
        latest=latest,
        audience=audience,
    )

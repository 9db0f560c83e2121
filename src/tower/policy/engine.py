"""The decision: Cedar over the built-in policy set, parsed once and tried once when it is loaded."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

import cedarpy

from tower.errors import Broken
from tower.identity.principal import Ceiling, Kind
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.rules import ANY, LADDER, NOTHING, Binding, Bindings, Role, covering, group, inside

_ENTITY = {
    ResourceType.ORG: "Org",
    ResourceType.PROJECT: "Project",
    ResourceType.DOMAIN: "Domain",
    ResourceType.TASK: "Task",
    ResourceType.RUN: "Run",
    ResourceType.APP: "App",
    ResourceType.KEY: "Key",
    ResourceType.USER: "Account",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether, by which policies (their ids; empty for a refusal) of which revision, and about what."""

    allowed: bool
    policies: tuple[str, ...]
    revision: str
    action: str = ""
    resource: str = ""

    def also(self, other: Decision) -> Decision:
        """Both decisions as one, about this one's action and resource: allowed when both are."""
        return replace(
            self,
            allowed=self.allowed and other.allowed,
            policies=tuple(dict.fromkeys((*self.policies, *other.policies))),
        )


class Engine:
    """Decides, and remembers what it decided.

    A decision never depends on the name of a single task, run or app: only on the kind of thing, its scope
    and whether the caller owns it. Cedar is shown no more than that, so remembering by it is sound.
    """

    def __init__(
        self, *, policies: str | None = None, schema: str | None = None, remember: int = 16384
    ) -> None:
        """Raises Broken for policies that do not parse, do not fit the schema or fail the trial at load."""
        here = files("tower.policy")
        text = (here / "builtin.cedar").read_text("utf-8") if policies is None else policies
        shape = (here / "builtin.cedarschema").read_text("utf-8") if schema is None else schema
        self.revision = hashlib.sha256(f"{shape}\0{text}".encode()).hexdigest()[:16]
        self._remember = remember
        self._known: OrderedDict[tuple[Any, ...], Decision] = OrderedDict()
        try:
            checked = cedarpy.validate_policies(text, shape)
            self._policies = cedarpy.PolicySet.from_str(text)
            self._schema = cedarpy.Schema.from_str(shape)
        except ValueError as error:
            raise Broken("The policy set cannot be read.", cause=str(error)) from error
        if not checked.validation_passed:
            raise Broken("The policy set does not fit its schema.", cause="; ".join(map(str, checked.errors)))
        self._try()

    def decide(
        self,
        *,
        subject: str,
        kind: Kind,
        bindings: Bindings,
        ceilings: tuple[Ceiling, ...],
        action: Action,
        resource: Resource,
    ) -> Decision:
        """What the bindings allow, and no more than every ceiling allows.

        The policies of an allowed decision are those that allowed the subject itself, then, as
        `below <source>`, each ceiling that was tried. A refusal by a ceiling names it in the same way.
        """
        decision = self._ask(subject, kind, bindings, action=action, resource=resource, limited=False)
        policies = decision.policies
        for ceiling in ceilings if decision.allowed else ():
            policies = (*policies, f"below {ceiling.source}")
            if not self._below(ceiling, subject, kind, action=action, resource=resource):
                return Decision(False, (policies[-1],), self.revision, action.value, str(resource))
        return Decision(decision.allowed, policies, self.revision, action.value, str(resource))

    def _below(
        self, ceiling: Ceiling, subject: str, kind: Kind, *, action: Action, resource: Resource
    ) -> bool:
        if action.value in ceiling.forbidden:
            return False
        if ceiling.role is None and ceiling.project == ANY and ceiling.domain == ANY:
            return True
        role = Role.ADMIN.value if ceiling.role is None else ceiling.role
        allowed = _single(role, ceiling.project, ceiling.domain)
        return self._ask(subject, kind, allowed, action=action, resource=resource, limited=True).allowed

    def _ask(
        self,
        subject: str,
        kind: Kind,
        bindings: Bindings,
        *,
        action: Action,
        resource: Resource,
        limited: bool,
    ) -> Decision:
        owned = bool(resource.owner) and resource.owner == subject
        place = (resource.type, resource.project, resource.domain)
        key = (kind is Kind.MACHINE, subject, bindings.revision, action, place, owned, limited)
        known = self._known.get(key)
        if known is None:
            known = self._evaluate(
                subject, kind, bindings, action=action, place=place, owned=owned, limited=limited
            )
            self._known[key] = known
            while len(self._known) > self._remember:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known

    def _evaluate(
        self,
        subject: str,
        kind: Kind,
        bindings: Bindings,
        *,
        action: Action,
        place: tuple[ResourceType, str, str],
        owned: bool,
        limited: bool,
    ) -> Decision:
        caller = _uid("Machine" if kind is Kind.MACHINE else "User", subject)
        thing = _uid(_ENTITY[place[0]], json.dumps(place[1:]))
        request = {
            "principal": caller,
            "action": _uid("Action", action.value),
            "resource": thing,
            "context": {"limited": limited},
        }
        entities = [*_caller(caller, bindings), _resource(thing, place, owner=caller if owned else None)]
        result = cedarpy.is_authorized(request, self._policies, entities, schema=self._schema)
        if result.diagnostics.errors:
            raise Broken("The policy set failed on a request.", cause="; ".join(result.diagnostics.errors))
        names = result.diagnostics.id_annotations_by_reason
        reasons = tuple(sorted(names.get(reason, reason) for reason in result.diagnostics.reasons))
        return Decision(result.allowed, reasons if result.allowed else (), self.revision)

    def _try(self) -> None:
        """Ask for what must hold in every policy set: a broken one stops the start, not the first request."""
        org, task = Resource(ResourceType.ORG), Resource(ResourceType.TASK, "trial", "development", "trial")
        admin, unknown = Bindings.of([Binding("admin")]), Bindings.of([Binding("no-such-role")])
        trials = (
            (Kind.MACHINE, NOTHING, Action.USER_MANAGE, org, True),
            (Kind.USER, admin, Action.USER_MANAGE, org, True),
            (Kind.USER, admin, Action.TASK_RUN, task, True),
            (Kind.USER, NOTHING, Action.TASK_VIEW, task, False),
            (Kind.USER, NOTHING, Action.USER_MANAGE, org, False),
            (Kind.USER, unknown, Action.TASK_VIEW, task, False),
        )
        for kind, bindings, action, resource, expected in trials:
            found = self._ask("trial", kind, bindings, action=action, resource=resource, limited=False)
            if found.allowed is not expected:
                raise Broken("The policy set fails its trial.", cause=f"{kind} {action} {resource}: {found}")
        self._known.clear()


@lru_cache(maxsize=1024)
def _single(role: str, project: str, domain: str) -> Bindings:
    return Bindings.of([Binding(role, project, domain)])


def _uid(type_: str, name: str) -> dict[str, str]:
    return {"type": type_, "id": name}


def _groups(role: str, scopes: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    return [{"__entity": _uid("Group", group(role, project, domain))} for project, domain in scopes]


def _caller(caller: dict[str, str], bindings: Bindings) -> list[dict[str, Any]]:
    """The caller's slice: they themselves, their role-groups, and the weaker groups that those are in."""
    entities: dict[str, dict[str, Any]] = {}
    direct = [] if caller["type"] == "Machine" else sorted(bindings.items, key=repr)
    for binding in direct:
        ladder = LADDER[LADDER.index(Role(binding.role)) :] if binding.role in LADDER else (binding.role,)
        names = [group(role, binding.project, binding.domain) for role in ladder]
        for name, weaker in zip(names, [*names[1:], None], strict=True):
            parents = [] if weaker is None else [_uid("Group", weaker)]
            entities[name] = {"uid": _uid("Group", name), "attrs": {}, "parents": parents}
    parents = [_uid("Group", group(binding.role, binding.project, binding.domain)) for binding in direct]
    return [{"uid": caller, "attrs": {}, "parents": parents}, *entities.values()]


def _resource(
    thing: dict[str, str], place: tuple[ResourceType, str, str], *, owner: dict[str, str] | None
) -> dict[str, Any]:
    scopes = covering(place[1], place[2])
    known = inside(place[1]) if place[0] is ResourceType.PROJECT and place[1] else ()
    attrs: dict[str, Any] = {
        "viewers": _groups(Role.VIEWER, scopes),
        "contributors": _groups(Role.CONTRIBUTOR, scopes),
        "admins": _groups(Role.ADMIN, scopes),
        "insiders": _groups(Role.VIEWER, known),
    }
    if owner is not None and owner["type"] == "User":
        attrs["owner"] = {"__entity": owner}
    return {"uid": thing, "attrs": attrs, "parents": []}

"""Roles and the bindings that give them: a binding is an edge to a role-group of a scope, never a policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tower.policy.actions import Action, Resource, ResourceType
from tower.settings import DOMAINS

ANY = "*"
"""As a project or domain of a binding: every one, those to come included."""


class Role(StrEnum):
    """What a binding can give everywhere. Each includes the ones below it."""

    ADMIN = "admin"
    CONTRIBUTOR = "contributor"
    VIEWER = "viewer"


LADDER = (Role.ADMIN, Role.CONTRIBUTOR, Role.VIEWER)
"""From the strongest role to the weakest."""

LISTED: Mapping[str, frozenset[str]] = {"act-as": frozenset({Action.ACT_AS.value})}
"""Built-in roles that are a list of actions, as the roles that administrators make are."""

KINDS = {
    "task": ResourceType.TASK,
    "app": ResourceType.APP,
    "service": ResourceType.USER,
}
"""What a binding can be for alone, besides a whole scope."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A role in a scope, or for one thing there: `kind` of `KINDS` and its `name`.

    A role that nobody defined gives nothing. `group` is the group through which the subject has it.
    """

    role: str
    project: str = ANY
    domain: str = ANY
    kind: str = ""
    name: str = ""
    group: str = ""

    @property
    def scope(self) -> Scope:
        """Where it holds."""
        return self.project, self.domain, self.kind, self.name

    def __str__(self) -> str:
        place = f"{self.project}/{self.domain}" + (f" for {self.kind} {self.name}" if self.kind else "")
        return f"{self.role} in {place}" + (f" through group {self.group}" if self.group else "")


Scope = tuple[str, str, str, str]
"""Project, domain, kind and name; "*" for every project or domain, "" for everything there."""


@dataclass(frozen=True, slots=True)
class Bindings:
    """All that one subject was given, the groups they are in, and a digest that changes with either."""

    items: frozenset[Binding]
    revision: str
    groups: frozenset[str] = frozenset()
    by_scope: Mapping[Scope, tuple[Binding, ...]] = field(default_factory=dict, compare=False, repr=False)
    named: frozenset[tuple[str, str, str, str]] = field(default=frozenset(), compare=False, repr=False)

    @classmethod
    def of(cls, items: Iterable[Binding], groups: Iterable[str] = ()) -> Bindings:
        """The bindings with their digest."""
        unique, inside_of = frozenset(items), frozenset(groups)
        lines = sorted(repr((binding.role, *binding.scope, binding.group)) for binding in unique)
        text = "\n".join([*lines, *sorted(map(repr, inside_of))])
        by_scope: dict[Scope, tuple[Binding, ...]] = {}
        for binding in sorted(unique, key=repr):
            by_scope[binding.scope] = (*by_scope.get(binding.scope, ()), binding)
        named = frozenset((each.kind, each.project, each.domain, each.name) for each in unique if each.kind)
        return cls(unique, hashlib.sha256(text.encode()).hexdigest()[:16], inside_of, by_scope, named)

    def name(self, resource: Resource) -> bool:
        """Whether one of them is for this very thing."""
        kind, name = single(resource)
        return any(
            (kind, *scope, name) in self.named for scope in covering(resource.project, resource.domain)
        )

    def tasks_in(self, project: str, domain: str) -> frozenset[str]:
        """The tasks of this place that one of them is for alone."""
        places = covering(project, domain)
        return frozenset(
            name for kind, *scope, name in self.named if kind == "task" and tuple(scope) in places
        )

    def reaching(self, scopes: Iterable[Scope]) -> tuple[Binding, ...]:
        """Those that hold in one of the scopes."""
        return tuple(binding for scope in scopes for binding in self.by_scope.get(scope, ()))


NOTHING = Bindings.of(())


def group(role: str, project: str, domain: str, kind: str = "", name: str = "") -> str:
    """The name of the role-group of a scope. Lengths stand first, so that no two scopes share a name."""
    one = f"/{kind}:{name}" if kind else ""
    return f"{role}@{len(project)}:{project}/{len(domain)}:{domain}{one}"


def covering(project: str, domain: str) -> tuple[tuple[str, str], ...]:
    """The scopes that include this place: "" for project or domain is the level above, so fewer cover it."""
    if not project:
        return ((ANY, ANY),)
    if not domain:
        return ((project, ANY), (ANY, ANY))
    return ((project, domain), (project, ANY), (ANY, domain), (ANY, ANY))


def inside(project: str) -> tuple[tuple[str, str], ...]:
    """Every scope whose people work somewhere in this project and so may know that it exists."""
    return tuple({scope for domain in ("", *DOMAINS) for scope in covering(project, domain)})


def kind_of(resource: ResourceType) -> str:
    """The kind of `KINDS` that is about this sort of resource, or ""."""
    return next((kind for kind, type_ in KINDS.items() if type_ is resource), "")


def single(resource: Resource) -> tuple[str, str]:
    """Kind and name of what a binding for this thing alone names, of a run its task; "" for nothing."""
    if resource.type is ResourceType.RUN:
        return ("task", resource.task) if resource.task else ("", "")
    return kind_of(resource.type), resource.name


def scopes_of(resource: Resource) -> tuple[Scope, ...]:
    """Every scope that a binding may have to hold for this resource, its own included."""
    wide: list[Scope] = [(*scope, "", "") for scope in covering(resource.project, resource.domain)]
    kind, name = single(resource)
    if kind and name:
        places = covering(resource.project, resource.domain)
        wide += [(*scope, kind, name) for scope in places]
    return tuple(wide)

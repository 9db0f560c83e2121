"""What Cedar is shown of one question: the caller's slice of roles and groups, and the thing in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tower.identity.principal import Kind
from tower.policy.actions import Resource, ResourceType
from tower.policy.rules import (
    ANY,
    LADDER,
    Binding,
    Bindings,
    Role,
    Scope,
    group,
    inside,
    scopes_of,
)

TYPES = {
    ResourceType.ORG: "Org",
    ResourceType.PROJECT: "Project",
    ResourceType.DOMAIN: "Domain",
    ResourceType.TASK: "Task",
    ResourceType.RUN: "Run",
    ResourceType.APP: "App",
    ResourceType.KEY: "Key",
    ResourceType.USER: "Account",
    ResourceType.SECRET: "Secret",
    ResourceType.POLICY: "Policy",
}
"""The entity type of each sort of resource."""

Entity = dict[str, Any]
Roles = Mapping[str, frozenset[str]]


def uid(type_: str, name: str) -> dict[str, str]:
    """The identifier of an entity."""
    return {"type": type_, "id": name}


def caller_uid(subject: str, kind: Kind) -> dict[str, str]:
    """The caller as an entity: the operator of the machine is of a type of its own."""
    return uid("Machine" if kind is Kind.MACHINE else "User", subject)


def resource_uid(resource: Resource) -> dict[str, str]:
    """The thing as an entity."""
    return uid(TYPES[resource.type], f"{resource.project}/{resource.domain}/{resource.name}")


def relevant(bindings: Bindings, resource: Resource) -> tuple[Binding, ...]:
    """The bindings that can matter for this resource: no more than these are shown."""
    reaching = bindings.reaching(scopes_of(resource))
    if resource.type is ResourceType.PROJECT and resource.project:
        known = {id(binding) for binding in reaching}
        reaching += tuple(each for each in _insiders(bindings, resource.project) if id(each) not in known)
    return reaching


def slice_of(
    caller: dict[str, str],
    kind: Kind,
    bindings: Bindings,
    shown: tuple[Binding, ...],
    *,
    action: str,
    resource: Resource,
    owned: bool,
    roles: Roles,
) -> list[Entity]:
    """The entities for one question."""
    if kind is Kind.MACHINE:
        return [{"uid": caller, "attrs": {}, "parents": []}, _thing(resource, (), {}, action, owner=None)]
    return [
        *_caller(caller, kind, bindings, shown),
        _thing(resource, shown, roles, action, owner=caller if owned else None),
    ]


def _caller(
    caller: dict[str, str], kind: Kind, bindings: Bindings, shown: tuple[Binding, ...]
) -> list[Entity]:
    """They themselves, their groups, their role-groups, and the weaker role-groups that those are in."""
    entities: dict[str, Entity] = {}
    through: dict[str, list[dict[str, str]]] = {name: [] for name in bindings.groups}
    direct: list[dict[str, str]] = []
    for binding in shown:
        ladder = LADDER[LADDER.index(Role(binding.role)) :] if binding.role in LADDER else (binding.role,)
        names = [group(role, *binding.scope) for role in ladder]
        for name, weaker in zip(names, [*names[1:], None], strict=True):
            parents = [] if weaker is None else [uid("Role", weaker)]
            entities[name] = {"uid": uid("Role", name), "attrs": {}, "parents": parents}
        edge = uid("Role", names[0])
        (through.setdefault(binding.group, []) if binding.group else direct).append(edge)
    groups = [
        {"uid": uid("Group", name), "attrs": {}, "parents": edges} for name, edges in sorted(through.items())
    ]
    parents = [*direct, *(uid("Group", name) for name in sorted(through))]
    attrs = {"name": caller["id"], "service": kind is Kind.SERVICE}
    return [{"uid": caller, "attrs": attrs, "parents": parents}, *groups, *entities.values()]


def _thing(
    resource: Resource,
    shown: tuple[Binding, ...],
    roles: Roles,
    action: str,
    *,
    owner: dict[str, str] | None,
) -> Entity:
    scopes = scopes_of(resource)
    insiders: list[Scope] = []
    if resource.type is ResourceType.PROJECT and resource.project:
        insiders = [(*scope, "", "") for scope in inside(resource.project)]
        insiders += [binding.scope for binding in shown if binding.kind]
    listed = {
        group(binding.role, *binding.scope)
        for binding in shown
        if binding.scope in scopes and action in roles.get(binding.role, ())
    }
    attrs: dict[str, Any] = {
        "project": resource.project,
        "domain": resource.domain,
        "name": resource.name,
        "viewers": _groups(Role.VIEWER, scopes),
        "contributors": _groups(Role.CONTRIBUTOR, scopes),
        "admins": _groups(Role.ADMIN, scopes),
        "insiders": _groups(Role.VIEWER, insiders),
        "granted": [{"__entity": uid("Role", name)} for name in sorted(listed)],
    }
    if owner is not None:
        attrs["owner"] = {"__entity": owner}
    return {"uid": resource_uid(resource), "attrs": attrs, "parents": []}


def _insiders(bindings: Bindings, project: str) -> Iterable[Binding]:
    return (
        binding
        for binding in sorted(bindings.items, key=repr)
        if binding.project in {project, ANY} and binding.kind != "service"
    )


def _groups(role: str, scopes: Iterable[Scope]) -> list[Entity]:
    return [{"__entity": uid("Role", group(role, *scope))} for scope in scopes]

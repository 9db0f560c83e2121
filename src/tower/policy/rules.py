"""Roles and the bindings that give them: a binding is an edge to a role-group of a scope, never a policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tower.settings import DOMAINS

ANY = "*"
"""As a project or domain of a binding: every one, those to come included."""


class Role(StrEnum):
    """What a binding can give. Each includes the ones below it."""

    ADMIN = "admin"
    CONTRIBUTOR = "contributor"
    VIEWER = "viewer"


LADDER = (Role.ADMIN, Role.CONTRIBUTOR, Role.VIEWER)
"""From the strongest role to the weakest."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A role in a scope. A role that is not in `Role` gives nothing."""

    role: str
    project: str = ANY
    domain: str = ANY


@dataclass(frozen=True, slots=True)
class Bindings:
    """All that one subject was given, and a digest of it that changes with it."""

    items: frozenset[Binding]
    revision: str

    @classmethod
    def of(cls, items: Iterable[Binding]) -> Bindings:
        """The bindings with their digest."""
        unique = frozenset(items)
        lines = sorted(repr((binding.role, binding.project, binding.domain)) for binding in unique)
        return cls(unique, hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16])


NOTHING = Bindings.of(())


def group(role: str, project: str, domain: str) -> str:
    """The name of the role-group of a scope. Lengths stand first, so that no two scopes share a name."""
    return f"{role}@{len(project)}:{project}/{len(domain)}:{domain}"


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

"""How refusals speak of a thing: the same words whether it is hidden or absent (T43)."""

from __future__ import annotations

from tower.control.privileges import GRANTABLE
from tower.errors import NotFound
from tower.policy.actions import Resource, ResourceType
from tower.policy.engine import Decision


def not_found(resource: Resource) -> NotFound:
    """The one answer about a thing that is absent or hidden: use it for both, so that they cannot differ."""
    return NotFound(f"There is no {spoken(resource)}, or none that you may view.")


def remedy(decision: Decision) -> str:
    """What to do about a refusal."""
    first = decision.policies[0] if decision.policies else ""
    if first.startswith("below run:") and decision.action in GRANTABLE:
        return (
            f"Deploy the task in an environment with the privilege {decision.action}, as somebody who has it."
        )
    if first.startswith("below privilege "):
        return "Who gave this work the privilege may not do that themselves."
    if first.startswith("below "):
        return "What you called with has a limit that forbids it."
    if first:
        return "A policy forbids it: `flyte auth why` names it."
    return "Ask an administrator for a role there."


def spoken(resource: Resource) -> str:
    """A thing in words."""
    place = "/".join(part for part in (resource.project, resource.domain) if part)
    if resource.type is ResourceType.ORG:
        return "this installation"
    if resource.type in {ResourceType.PROJECT, ResourceType.DOMAIN}:
        return f"{resource.type} {place or resource.name}"
    name = f" {resource.name}" if resource.name else "s"
    return f"{resource.type}{name}" + (f" in {place}" if place else "")

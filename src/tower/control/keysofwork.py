"""The limits of what running work and limited keys make: above neither them nor who let them make it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from tower.control.access import Access
from tower.errors import Denied
from tower.identity.principal import ActorKind, CredentialKind, Principal
from tower.policy.actions import Action
from tower.policy.engine import Decision


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a new key: the `actions` that it is for alone, and whom it is not above ("" is nobody)."""

    actions: frozenset[str]
    maker: str


def works(principal: Principal) -> bool:
    """Whether running work asks for itself, and no app in its place."""
    return principal.credential.kind is CredentialKind.WORKLOAD and not principal.via_app


def limits(principal: Principal, actions: Collection[str] | None, *, owner: str) -> Limits:
    """The limits of a key of `owner` that this work makes, which asks for these actions, None for all.

    Raises Denied where a key could not carry the limits that the work has.
    """
    forbidden: set[str] = set()
    people: set[str] = set()
    for ceiling in principal.ceilings:
        forbidden |= ceiling.forbidden
        if ceiling.person:
            people |= {ceiling.person} - {principal.subject}
        elif (ceiling.role, ceiling.project, ceiling.domain) != (None, "*", "*") or any(
            each is not None for each in (ceiling.actions, ceiling.projects, ceiling.tasks)
        ):
            raise Denied("A limited credential makes no keys.", hint="Run this with one without a limit.")
    if len(people) > 1 or (people and owner != principal.subject):
        raise Denied(
            "This key would be above who let this work make keys.",
            hint="Deploy the task as the person whom it runs as.",
        )
    wanted = frozenset(map(str, Action)) - forbidden if actions is None else frozenset(actions)
    above = sorted(wanted & forbidden)
    if above:
        raise Denied(
            f"This work may not do {above[0]}, and so no key that it makes.",
            hint="Give its environment that privilege too, or leave the action out.",
        )
    return Limits(wanted, next(iter(people), ""))


async def no_login(access: Access, principal: Principal, decision: Decision, *, request_id: str) -> None:
    """Record and raise Denied for a caller below limits that would make a way to sign in as somebody.

    A link, a password and a webhook carry no limit that running work or a limited key has: with one of them
    the right to manage people would be every other one, too.
    """
    work = any(actor.kind is ActorKind.RUN for actor in principal.actors)
    if not work and all(ceiling.person for ceiling in principal.ceilings):
        return  # who made the key for its owner manages people themselves, or it would not be allowed
    policy = "above-the-work" if work else "above-the-credential"
    refused = replace(decision, allowed=False, policies=(policy,))
    await access.refuse(principal, refused, request_id=request_id)
    if work:
        raise Denied(
            "Running work makes no way to sign in as somebody.", hint="Do it yourself, from outside."
        )
    raise Denied("A limited credential makes no way to sign in as somebody.", hint="Use one without a limit.")

"""Limits that are a person: who made a key for somebody else (T35), or gave work a privilege (T1)."""

from __future__ import annotations

from tower.control.directory import Directory
from tower.identity.principal import Ceiling
from tower.policy.actions import Action, Resource
from tower.policy.engine import Engine


class Givers:
    """Asks what such people may do at the time of use: nobody hands on more than they have then."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def may(
        self, engine: Engine, ceiling: Ceiling, action: Action, resource: Resource, *, to: str
    ) -> bool:
        """Whether the person of a limit may do this now; True for a limit that is none, or of other actions.

        `to` is the subject that would do it. What was given with a key ends when that is deleted or disabled.
        """
        person = ceiling.person
        if not person or not ceiling.limits(action.value) or action is Action.SELF_VIEW:
            return True
        facts = await self._directory.subject(person)
        if facts is None or facts.disabled:
            return False
        key = await self._directory.key(ceiling.key) if ceiling.key else None
        if key is not None and key.off:
            return False
        if action is Action.KEY_MANAGE_OWN and person != to:
            action = Action.KEY_MANAGE  # what is the caller's own is somebody else's to the giver
        return engine.decide(
            subject=person,
            kind=facts.kind,
            bindings=await self._directory.bindings(person),
            ceilings=(),
            action=action,
            resource=resource,
        ).allowed

"""Policy cases as data: who has what, what is asked for, what is to come out. Reviewers need no Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tower.errors import Invalid
from tower.identity.principal import Ceiling, Kind
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Call, Decision, Engine
from tower.policy.rules import Binding, Bindings

_FIELDS = {
    *("name", "subject", "service", "bindings", "groups", "ceilings", "call"),
    *("action", "resource", "owner", "view", "allowed", "raises", "audit"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One decision. `subject` is alice unless the case says otherwise; `groups` maps each to its bindings."""

    name: str
    subject: str
    kind: Kind
    bindings: Bindings
    ceilings: tuple[Ceiling, ...]
    call: Call
    action: Action
    resource: Resource
    allowed: bool

    @classmethod
    def read(cls, value: Any, *, place: str) -> Case:
        """From a JSON object. Raises Invalid naming the place and what is wrong with it."""
        try:
            unknown = value.keys() - _FIELDS
            if unknown:
                raise ValueError(f"no field {min(unknown)}")
            groups = {str(name): given for name, given in value.get("groups", {}).items()}
            given = [Binding(*each) for each in value.get("bindings", ())]
            given += [replace(Binding(*each), group=name) for name, all_ in groups.items() for each in all_]
            return cls(
                name=str(value.get("name", place)),
                subject=str(value.get("subject", "alice")),
                kind=Kind.SERVICE if value.get("service") else Kind.USER,
                bindings=Bindings.of(given, groups),
                ceilings=tuple(_ceiling(each) for each in value.get("ceilings", ())),
                call=Call(**value.get("call", {})),
                action=Action(value["action"]),
                resource=_resource(value),
                allowed=bool(value["allowed"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise Invalid(f"The {place} is no policy case: {problem}.") from None

    def decide(self, engine: Engine) -> Decision:
        """What the engine makes of it."""
        return engine.decide(
            subject=self.subject,
            kind=self.kind,
            bindings=self.bindings,
            ceilings=self.ceilings,
            action=self.action,
            resource=self.resource,
            call=self.call,
        )


def _resource(value: dict[str, Any]) -> Resource:
    given = value["resource"]
    if isinstance(given, str):
        return replace(Resource.parse(given), owner=str(value.get("owner", "")))
    return Resource(**{**given, "type": ResourceType(given["type"])})


def _ceiling(value: dict[str, Any]) -> Ceiling:
    lists = {name: frozenset(each) for name, each in value.items() if isinstance(each, list)}
    return Ceiling(**{**value, **lists})

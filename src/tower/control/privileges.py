"""What running work may do to people, keys, policies and secrets: nothing but what its deployer gave it (T1).

The environment of a task declares privileges, and a version of it has them when whoever deployed it may do
the same there. Work then does such a thing only while its own version has the privilege, every action that
asked for it has it too, whoever gave it may still do it to that very thing, and so may the person it runs as.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from flyteidl2.task import task_definition_pb2

from tower.errors import Invalid
from tower.identity.principal import Ceiling, CredentialKind, Principal
from tower.identity.tokens import ceiling_from_json, ceiling_to_json
from tower.policy.actions import Action, Resource, ResourceType

FIELD = "flyte.privileges"
"""The entry of `container.config` that declares them: a JSON list of actions."""

GRANTABLE = frozenset(
    {
        Action.KEY_MANAGE.value,
        Action.KEY_MANAGE_OWN.value,
        Action.USER_MANAGE.value,
        Action.POLICY_MANAGE.value,
        Action.SECRET_CREATE.value,
        Action.SECRET_DELETE.value,
    }
)
"""What the version of a task may be given."""

IDENTITY_ACTIONS = GRANTABLE | {Action.ACT_AS.value, Action.APP_RAW.value, Action.AUDIT_PRUNE.value}
"""What no app does for the person it acts for, nor a task without the privilege (T1, T16)."""

_PLACES = {
    Action.SECRET_CREATE: ResourceType.SECRET,
    Action.SECRET_DELETE: ResourceType.SECRET,
    Action.POLICY_MANAGE: ResourceType.POLICY,
}
"""What stands in the place of the task; people and keys belong to the installation."""


@dataclass(frozen=True, slots=True)
class Given:
    """The privileges of a version: `by` whom, and `limits`, that person's own as they were shown then."""

    actions: frozenset[str]
    by: str
    limits: tuple[Ceiling, ...]

    @property
    def giver(self) -> Ceiling:
        """The limit that is the person."""
        return next(each for each in self.limits if each.person == self.by)


def declared(spec: task_definition_pb2.TaskSpec) -> frozenset[str]:
    """The privileges that a specification declares. Raises Invalid for what is none."""
    found = [pair.value for pair in spec.task_template.container.config if pair.key == FIELD]
    if not found:
        return frozenset()
    try:
        (names,) = map(json.loads, found)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Invalid(f"The privileges of a task are one JSON list of actions in {FIELD}.")
    unknown = sorted(set(names) - GRANTABLE)
    if unknown:
        raise Invalid(
            f"There is no privilege {unknown[0][:60]}.",
            hint=f"Privileges are {', '.join(sorted(GRANTABLE))}.",
        )
    return frozenset(names)


def thing(action: str, *, project: str, domain: str, owner: str) -> Resource:
    """What whoever gives this privilege in a place must be allowed to do it to; `owner` is who gives."""
    named = Action(action)
    if named in _PLACES:
        return Resource(_PLACES[named], project, domain)
    return Resource(ResourceType.KEY, owner=owner) if named is Action.KEY_MANAGE_OWN else _ORG


def given(principal: Principal, actions: Iterable[str], *, task: str) -> Given:
    """What this caller gives a version of `task`: never above the caller, nor above what they showed."""
    about = frozenset(actions)
    source = f"privilege of {task} given by {principal.subject}"
    kinds = {CredentialKind.API_KEY, CredentialKind.ACCESS_TOKEN}
    person = Ceiling(
        source,
        person=principal.subject,
        key=principal.credential.root if principal.credential.kind in kinds else "",
        about=about,
    )
    limits = tuple(
        replace(each, source=f"{source} with {each.source}", about=about) for each in principal.ceilings
    )
    return Given(about, principal.subject, (person, *limits))


def to_text(privileges: Given) -> str:
    """The column `tasks.privileges`."""
    fields = {
        "actions": sorted(privileges.actions),
        "by": privileges.by,
        "limits": [ceiling_to_json(each) for each in privileges.limits],
    }
    return json.dumps(fields, separators=(",", ":"))


def from_text(text: str) -> Given | None:
    """The inverse; None for "". Raises ValueError: a limit that cannot be read is not the absence of one."""
    if not text:
        return None
    try:
        fields = json.loads(text)
        limits = tuple(ceiling_from_json(each) for each in fields["limits"])
        read = Given(frozenset(fields["actions"]), str(fields["by"]), limits)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not privileges: {error!r}") from error
    if not any(each.person == read.by and read.by for each in limits):
        raise ValueError("privileges of nobody")
    return read


def of_work(run: str, text: str) -> tuple[Ceiling, ...]:
    """The limits of work of this run whose version has these privileges. Raises ValueError."""
    privileges = from_text(text)
    if privileges is None:
        return (Ceiling(run, forbidden=IDENTITY_ACTIONS),)
    return (Ceiling(run, forbidden=IDENTITY_ACTIONS - privileges.actions), *privileges.limits)


_ORG = Resource(ResourceType.ORG)

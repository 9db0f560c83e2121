"""The authority of one call in plain Python: what the engine must say, written down a second time and slowly.

    what the person may do now  ∩  every ceiling on the way

Nothing here looks at Tower's policies, its schema or Cedar; it shares names of actions and data types.
"""

from __future__ import annotations

from dataclasses import dataclass

from tower.identity.principal import Ceiling
from tower.policy.actions import Resource, ResourceType
from tower.policy.rules import Binding

VIEW = {"project:view", "task:view", "run:view", "app:view", "app:use"}
WORK = {
    *("task:register", "task:run", "run:abort", "data:upload", "app:deploy", "app:manage"),
    *("secret:list", "secret:use"),
}
MANAGE = {
    *("project:manage", "app:raw-credentials", "secret:create", "secret:delete"),
    *("key:manage", "user:manage"),
    *("policy:view", "policy:manage", "audit:view"),
}
ROLES = {
    "viewer": VIEW,
    "contributor": VIEW | WORK,
    "admin": VIEW | WORK | MANAGE,
    "act-as": {"service:act-as"},
}
LADDER = {"viewer", "contributor", "admin"}
GROUPS = {"view": VIEW, "work": WORK, "manage": MANAGE}
WIDE = {ResourceType.DOMAIN, ResourceType.PROJECT, ResourceType.ORG}
KINDS = {"task": ResourceType.TASK, "app": ResourceType.APP, "service": ResourceType.USER}
SECRETS = {"secret:list", "secret:use", "secret:create", "secret:delete"}
SHOWS = {
    "task:view": {"task:run", "task:register"},
    "run:view": {"run:abort"},
    "app:view": {"app:use", "app:deploy", "app:manage"},
    "secret:list": {"secret:create", "secret:delete"},
}


@dataclass(frozen=True)
class Rule:
    """A policy of an administrator: whom, what, where. None is anyone, anything, anywhere."""

    permits: bool
    action: str | None = None
    group_of_actions: str | None = None
    person: str | None = None
    members: str | None = None
    project: str = "*"
    domain: str = "*"
    kind: str = ""
    target: str = ""
    named: str | None = None
    only_through_app: bool = False

    def cedar(self) -> str:
        """The same in Cedar, without its scope."""
        head = "permit" if self.permits else "forbid"
        who = "principal"
        if self.person is not None:
            who = f'principal == User::"{self.person}"'
        elif self.members is not None:
            who = f'principal in Group::"{self.members}"'
        what = "action"
        if self.action is not None:
            what = f'action == Action::"{self.action}"'
        elif self.group_of_actions is not None:
            what = f'action in Action::"{self.group_of_actions}"'
        tests = []
        if self.named is not None:
            tests.append(f'resource.name == "{self.named}"')
        if self.only_through_app:
            tests.append('context.app != ""')
        return f"{head} ({who}, {what}, resource)" + "".join(f" when {{ {test} }}" for test in tests) + ";"

    def applies(self, subject: str, groups: set[str], app: str, action: str, resource: Resource) -> bool:
        """Whether the rule speaks about this call."""
        name = "" if resource.type is ResourceType.RUN else resource.name
        return (
            (self.action is None or action == self.action)
            and (self.group_of_actions is None or action in GROUPS[self.group_of_actions])
            and (self.person is None or subject == self.person)
            and (self.members is None or self.members in groups)
            and self.project in {"*", resource.project}
            and self.domain in {"*", resource.domain}
            and (not self.kind or (resource.type is KINDS[self.kind] and name == self.target))
            and (self.named is None or name == self.named)
            and (not self.only_through_app or app != "")
        )


@dataclass(frozen=True)
class World:
    """All that a decision can depend on."""

    subject: str
    groups: frozenset[str]
    bindings: tuple[Binding, ...]
    roles: dict[str, frozenset[str]]
    rules: tuple[Rule, ...]
    ceilings: tuple[Ceiling, ...]
    app: str

    def allows(self, action: str, resource: Resource) -> bool:
        """The decision."""
        if not self._person_may(action, resource):
            return False
        return all(self._leaves(ceiling, action, resource) for ceiling in self.ceilings)

    def _person_may(self, action: str, resource: Resource) -> bool:
        speaking = [
            rule
            for rule in self.rules
            if rule.applies(self.subject, set(self.groups), self.app, action, resource)
        ]
        if any(not rule.permits for rule in speaking):
            return False
        if any(rule.permits for rule in speaking):
            return True
        return self._roles_give(self.bindings, action, resource, own=True)

    def _roles_give(
        self, bindings: tuple[Binding, ...], action: str, resource: Resource, *, own: bool
    ) -> bool:
        known = {**ROLES, **self.roles}
        if action == "self:view":
            return True
        if any(action in known.get(each.role, set()) and _covers(each, resource) for each in bindings):
            return True
        if action == "project:view" and resource.type is ResourceType.PROJECT and resource.project:
            return any(
                each.role in LADDER and each.project in {"*", resource.project} and each.kind != "service"
                for each in bindings
            )
        mine = own and resource.owner == self.subject
        if action == "run:abort" and resource.type is ResourceType.RUN and mine:
            return any(each.role in LADDER and _covers(each, resource) for each in bindings)
        if action == "identity:token" and resource.type is ResourceType.RUN:
            return resource.owner == self.subject
        if action in SECRETS and resource.type is ResourceType.SECRET:
            return mine
        return action == "key:manage-own" and resource.type is ResourceType.KEY and mine

    def _leaves(self, ceiling: Ceiling, action: str, resource: Resource) -> bool:
        if action in ceiling.forbidden:
            return False
        if action == "self:view":
            return True
        if ceiling.actions is not None and not {action, *SHOWS.get(action, ())} & ceiling.actions:
            return False
        if ceiling.projects is not None and resource.project not in ceiling.projects:
            return False
        if ceiling.tasks is not None:
            if resource.type is ResourceType.TASK:
                place = f"{resource.project}/{resource.domain}/{resource.name}"
                if action not in {"task:view", "task:run"} or place not in ceiling.tasks:
                    return False
            elif resource.type in WIDE and action in {"task:view", "task:register"}:
                return False
        if ceiling.role is None and (ceiling.project, ceiling.domain) == ("*", "*"):
            return True
        top = (Binding(ceiling.role or "admin", ceiling.project, ceiling.domain),)
        return self._roles_give(top, action, resource, own=False)


def _covers(binding: Binding, resource: Resource) -> bool:
    if binding.project != "*" and binding.project != resource.project:
        return False
    if binding.domain != "*" and (not resource.project or binding.domain != resource.domain):
        return False
    if not binding.kind:
        return True
    if resource.type is ResourceType.RUN:  # a role for a task alone is one for its runs, too
        return binding.kind == "task" and bool(resource.task) and resource.task == binding.name
    return resource.type is KINDS[binding.kind] and bool(resource.name) and resource.name == binding.name

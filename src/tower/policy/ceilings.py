"""The lists of a ceiling: which actions, projects and tasks it leaves of what a person may do. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tower.identity.principal import Ceiling
from tower.policy.actions import Action, Resource, ResourceType

IMPLIED: Mapping[str, frozenset[str]] = {
    Action.TASK_VIEW.value: frozenset({Action.TASK_RUN.value, Action.TASK_REGISTER.value}),
    Action.RUN_VIEW.value: frozenset({Action.RUN_ABORT.value}),
    Action.APP_VIEW.value: frozenset(
        {Action.APP_USE.value, Action.APP_DEPLOY.value, Action.APP_MANAGE.value}
    ),
    Action.SECRET_LIST.value: frozenset({Action.SECRET_CREATE.value, Action.SECRET_DELETE.value}),
}
"""To list one of these actions is to list the key: who may do something to a thing may see it."""


def lists_allow(ceiling: Ceiling, action: Action, resource: Resource) -> bool:
    """Whether the lists of this ceiling leave the action. Everyone may always learn who they are."""
    if action.value in ceiling.forbidden:
        return False
    if action is Action.SELF_VIEW:
        return True
    if ceiling.actions is not None and not _listed(action, ceiling.actions):
        return False
    if ceiling.projects is not None and resource.project not in ceiling.projects:
        return False
    return ceiling.tasks is None or _one_of(ceiling.tasks, action, resource)


def _listed(action: Action, allowed: frozenset[str]) -> bool:
    return action.value in allowed or not allowed.isdisjoint(IMPLIED.get(action.value, ()))


def _one_of(allowed: frozenset[str], action: Action, resource: Resource) -> bool:
    """Below a list of tasks nothing is registered, not even under their names, and no tasks are listed."""
    match resource.type:
        case ResourceType.TASK:
            named = f"{resource.project}/{resource.domain}/{resource.name}"
            return action in {Action.TASK_VIEW, Action.TASK_RUN} and named in allowed
        case ResourceType.DOMAIN | ResourceType.PROJECT | ResourceType.ORG:
            return action not in {Action.TASK_VIEW, Action.TASK_REGISTER}
        case _:
            return True

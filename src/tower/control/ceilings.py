"""Limits of apps: what an app may do for people at most, set at deploy and by administrators; both hold."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tower.audit import Event
from tower.control.access import Access, not_found
from tower.control.directory import Directory
from tower.control.identities import check_place
from tower.errors import Invalid
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.store import policies as store
from tower.store.database import Database, Transaction
from tower.store.policies import CeilingRow

__all__ = ["CeilingRow", "Ceilings", "Limits", "declared", "limits_text"]

MOST = 500


@dataclass(frozen=True, slots=True)
class Limits:
    """What an app may do for people at most; None for no such limit. A task is `project/domain/name`."""

    actions: frozenset[str] | None = None
    projects: frozenset[str] | None = None
    tasks: frozenset[str] | None = None


class Ceilings:
    """The use-cases of `/api/v1/ceilings`."""

    def __init__(self, *, db: Database, access: Access, directory: Directory) -> None:
        self._db = db
        self._access = access
        self._directory = directory

    async def of(
        self, principal: Principal, project: str, domain: str, name: str, *, request_id: str = ""
    ) -> list[CeilingRow]:
        """The limits of one app: as deployed, and as set by administrators."""
        app = Resource(ResourceType.APP, project, domain, name)
        await self._access.require(
            principal, Action.POLICY_VIEW, app, request_id=request_id, view=Action.APP_VIEW
        )
        return await self._db.read(lambda reader: store.ceilings_of(reader, project, domain, name))

    async def set(
        self,
        principal: Principal,
        project: str,
        domain: str,
        name: str,
        limits: Limits | None,
        *,
        request_id: str = "",
    ) -> None:
        """Limit an app, or lift that limit (None). What the app was deployed with holds besides it."""
        app = Resource(ResourceType.APP, project, domain, name)
        decision = await self._access.require(
            principal, Action.POLICY_MANAGE, app, request_id=request_id, view=Action.APP_VIEW
        )
        text = None if limits is None else limits_text(limits)

        def write(tx: Transaction) -> None:
            check_place(tx, project, domain)
            if text is None:
                if not store.remove_ceiling(tx, project, domain, name, source="admin"):
                    raise not_found(app)
            else:
                row = CeilingRow(project, domain, name, "admin", text, tx.now, principal.subject)
                store.put_ceiling(tx, row)
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.CEILING_DELETE if text is None else Event.CEILING_UPDATE,
                request_id=request_id,
                detail={} if text is None else {"limits": json.loads(text)},
            )
            tx.after_commit(self._directory.forget)

        await self._db.write(write)


def declared(text: str) -> str:
    """The option `flyte.ceiling` of an app, checked, as it is stored. Raises Invalid.

    A JSON object with `actions`, `projects` and `tasks`, lists of texts; what is left out is not limited.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not value.keys() <= Limits.__dataclass_fields__.keys():
        raise Invalid(
            "The option flyte.ceiling is no JSON object of actions, projects and tasks.",
            hint='Write {"actions": ["task:run"], "tasks": ["PROJECT/DOMAIN/ENVIRONMENT.FUNCTION"]}.',
        )
    for name, each in value.items():
        if not isinstance(each, list) or not all(isinstance(item, str) for item in each):
            raise Invalid(f"The field {name} of the option flyte.ceiling is no list of texts.")
    return limits_text(Limits(**{name: frozenset(each) for name, each in value.items()}))


def limits_text(limits: Limits) -> str:
    """Limits as they are stored. Raises Invalid for an action that there is not, or a task without place."""
    unknown = sorted((limits.actions or frozenset()) - {action.value for action in Action})
    if unknown:
        raise Invalid(f"There is no action {unknown[0][:60]}.", hint=f"Actions are {', '.join(Action)}.")
    misplaced = sorted(task for task in limits.tasks or () if task.count("/") != 2)
    if misplaced:
        raise Invalid(f"{misplaced[0][:80]} is no task.", hint="Write PROJECT/DOMAIN/ENVIRONMENT.FUNCTION.")
    lists = {name: getattr(limits, name) for name in Limits.__dataclass_fields__}
    if sum(len(each) for each in lists.values() if each is not None) > MOST:
        raise Invalid(f"The limits of an app list more than {MOST} things.")
    return json.dumps({name: sorted(each) for name, each in lists.items() if each is not None})

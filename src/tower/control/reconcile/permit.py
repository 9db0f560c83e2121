"""May this attempt still start? The person's rights as they are now, not as they were at the request."""

from __future__ import annotations

from tower.control.access import Access
from tower.control.directory import Directory
from tower.policy.actions import Action, Resource, ResourceType
from tower.store.runs import ActionRow


class LivePermit:
    """A `Permit` that asks the directory and the policy. The attempt's row must be committed."""

    def __init__(self, *, access: Access, directory: Directory) -> None:
        self._access = access
        self._directory = directory

    async def __call__(self, row: ActionRow, attempt: int) -> str:
        """ "" or a sentence for the run's page."""
        principal = await self._directory.attempt("/".join((*row.key, str(attempt))))
        if principal is None:
            return (
                f"{row.executed_by} asked for this run, and the account or the key that was used for it "
                "does not hold any more."
            )
        task = Resource(
            ResourceType.TASK, project=row.task_project, domain=row.task_domain, name=row.task_name
        )
        place = Resource(ResourceType.DOMAIN, project=row.project, domain=row.domain)
        things = [task] if (row.project, row.domain) == (task.project, task.domain) else [task, place]
        for thing in things:
            if not (await self._access.check(principal, Action.TASK_RUN, thing)).allowed:
                return f"{row.executed_by} may not run {row.task_name} any more."
        return ""

"""May this attempt still start? The person's rights as they are now, not as they were at the request."""

from __future__ import annotations

from tower.control.standing import Standing
from tower.errors import Unauthenticated
from tower.store.runs import ActionRow


class LivePermit:
    """A `Permit` that asks what the attempt's own calls will ask. The attempt's row must be committed."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    async def __call__(self, row: ActionRow, attempt: int) -> str:
        """ "" or a sentence for the run's page."""
        try:
            principal = await self._standing.attempt("/".join((*row.key, str(attempt))))
        except Unauthenticated as fault:
            return fault.message
        if principal is None:
            return (
                f"{row.executed_by} asked for this run, and the account, the key or the webhook that was "
                "used for it does not hold any more."
            )
        return ""


class LiveWatch:
    """A `Watch` that asks whether there is still somebody whom the attempt acts for."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    async def __call__(self, attempt_id: str) -> str:
        """ "" or a sentence for the run's page."""
        return await self._standing.gone(attempt_id)

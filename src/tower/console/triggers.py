"""The pages of triggers: as whom they run, which version, when, and what somebody should look at."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from tower.console.parts import Parts
from tower.console.requests import visit
from tower.console.templates import page
from tower.console.views import Moment, moment, run_href, trigger_href
from tower.control.listing import Query
from tower.control.triggerviews import FiringRow, RevisionRow, TriggerKey, TriggerRow, spoken

PAGE = 50
_ACTIONS = {1: "deployed", 2: "activated", 3: "deactivated", 4: "deleted"}


@dataclass(frozen=True, slots=True)
class TriggerLine:
    """A trigger in a list, and on its page."""

    name: str
    href: str
    task: str
    place: str
    state: str
    owner: str
    version: str
    schedule: str
    next: Moment | None
    last: Moment | None
    last_run: str
    last_href: str
    notice: str
    description: str
    revision: int
    deployed_by: str
    updated_by: str


@dataclass(frozen=True, slots=True)
class FiringLine:
    """What came of a due time."""

    due: Moment
    outcome: str
    run: str
    href: str
    reason: str


class TriggerPages:
    """The list of triggers and the page of one."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def index(self, request: Request) -> Response:
        """The triggers that the caller may view, of every project or of one domain."""
        found = await visit(request, self._parts.chain)
        project = request.path_params.get("project", "")
        domain = request.path_params.get("domain", "")
        query = Query(limit=PAGE, token=request.query_params.get("token", ""), sort="name", descending=False)
        rows, token = await self._parts.triggers.page(found.principal, query, project=project, domain=domain)
        return page(
            "triggers.html",
            found,
            triggers=[_line(row) for row in rows],
            place=f"{project}/{domain}" if project else "",
            path=request.scope["path"],
            token=token,
        )

    async def one(self, request: Request) -> Response:
        """State, what came of the last due times, and who changed it."""
        found = await visit(request, self._parts.chain)
        fields = request.path_params
        key = TriggerKey(fields["project"], fields["domain"], fields["task"], fields["name"])
        shown = await self._parts.triggers.get(found.principal, key, request_id=found.request_id)
        changes, _ = await self._parts.triggers.revisions(
            found.principal, key, Query(limit=PAGE), request_id=found.request_id
        )
        return page(
            "trigger.html",
            found,
            trigger=_line(shown.row),
            firings=[_firing(key, each) for each in shown.firings],
            changes=[_change(each) for each in changes],
        )


def _line(row: TriggerRow) -> TriggerLine:
    return TriggerLine(
        name=row.name,
        href=trigger_href(row.key),
        task=row.task,
        place=f"{row.project}/{row.domain}",
        state=row.state.value,
        owner=row.owner,
        version=row.version,
        schedule=spoken(row),
        next=None if row.next_at is None else moment(row.next_at),
        last=None if row.last_at is None else moment(row.last_at),
        last_run=row.last_run,
        last_href=run_href(row.project, row.domain, row.last_run),
        notice=row.notice,
        description=row.description,
        revision=row.revision,
        deployed_by=row.deployed_by,
        updated_by=row.updated_by,
    )


def _firing(key: TriggerKey, row: FiringRow) -> FiringLine:
    return FiringLine(
        due=moment(row.due_at),
        outcome=row.outcome.value,
        run=row.run,
        href=run_href(key.project, key.domain, row.run),
        reason=row.reason,
    )


def _change(row: RevisionRow) -> tuple[int, str, str, str, str, Moment]:
    return (
        row.revision,
        _ACTIONS.get(row.action, "changed"),
        row.by,
        row.version,
        row.run_as,
        moment(row.at),
    )

"""The pages of runs and apps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from tower.console import streams, views
from tower.console.parts import Parts
from tower.console.requests import Visit, form, host, own_page, visit
from tower.console.templates import fragment, page
from tower.control import appspecs, builtins
from tower.control.apps import AppRow, Revision
from tower.control.definitions import Definition
from tower.control.listing import Filter, Op, Query
from tower.control.runs import run_resource
from tower.control.watching import ActionKey, Seen
from tower.errors import NotFound
from tower.identity.principal import Principal
from tower.policy.actions import Action, Resource, ResourceType

PAGE = 50
_EVENTS = {"content-type": "text/event-stream", "x-accel-buffering": "no"}


class Runs:
    """Lists of runs and the page of one."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def index(self, request: Request) -> Response:
        """The newest runs of every project, or of one domain.

        `mine=1` shows the caller's own, `task=NAME` those of the tasks of that name; the official SDK prints
        the address of a task's page instead, which is this page too.
        """
        found = await visit(request, self._parts.chain)
        project = request.path_params.get("project", "")
        domain = request.path_params.get("domain", "")
        mine = request.query_params.get("mine") == "1"
        task = request.path_params.get("name") or request.query_params.get("task", "")
        wanted = {"executed_by": found.principal.subject if mine else "", "task_name": task}
        filters = tuple(Filter(Op.EQUAL, name, (value,)) for name, value in wanted.items() if value)
        query = Query(limit=PAGE, token=request.query_params.get("token", ""), filters=filters)
        rows, token = await self._parts.watching.page(found.principal, query, project=project, domain=domain)
        return page(
            "runs.html",
            found,
            runs=[views.run_line(seen) for seen in rows],
            place=f"{project}/{domain}" if project else "",
            path=request.scope["path"],
            mine=mine,
            task=task,
            latest=await self._latest(found.principal, (project, domain, task)),
            token=token,
        )

    async def _latest(self, principal: Principal, task: tuple[str, str, str]) -> views.TaskLine | None:
        """The version of a task that was deployed last, where the list is about one task."""
        definition = await self._definition(principal, task, "") if all(task) else None
        return None if definition is None else views.task_line(definition)

    async def one(self, request: Request) -> Response:
        """Who asked, through what, why it was allowed, what ran, and what came of it."""
        found = await visit(request, self._parts.chain)
        key = _run_key(request)
        run = await self._view(found.principal, key, found.request_id)
        return page(
            "run.html", found, isolation=self._parts.isolation, run=run, events=f"{run.line.href}/events"
        )

    async def events(self, request: Request) -> Response:
        """The state and the output as they change."""
        found = await visit(request, self._parts.chain)
        key = _run_key(request)
        await self._parts.watching.get(found.principal, key, request_id=found.request_id)

        async def holds() -> None:
            await visit(request, self._parts.chain)

        body = streams.encoded(self._states(found, key), self._output(found, key), holds=holds)
        return StreamingResponse(body, headers=_EVENTS)

    async def logs(self, request: Request) -> Response:
        """The output as text, until the run is over."""
        found = await visit(request, self._parts.chain)
        key = _run_key(request)
        await self._parts.watching.get(found.principal, key, request_id=found.request_id)

        async def text() -> AsyncIterator[bytes]:
            async for lines in self._lines(found, key):
                yield "".join(lines).encode()

        return StreamingResponse(text(), media_type="text/plain; charset=utf-8")

    async def abort(self, request: Request) -> Response:
        """End the run, for who may; one that has ended already stays as it is."""
        own_page(request)
        found = await visit(request, self._parts.chain)
        await form(request)
        key = _run_key(request)
        await self._parts.runs.abort(
            found.principal, key, reason="in the console", whole_run=True, request_id=found.request_id
        )
        return RedirectResponse(views.run_href(key.project, key.domain, key.run), 303)

    async def revoke(self, request: Request) -> Response:
        """End the grant that the run stands on, for its person and administrators; it is stopped with it."""
        own_page(request)
        found = await visit(request, self._parts.chain)
        await form(request)
        key = _run_key(request)
        await self._parts.grants.revoke(found.principal, key, request_id=found.request_id)
        return RedirectResponse(views.run_href(key.project, key.domain, key.run), 303)

    async def _states(self, found: Visit, key: ActionKey) -> AsyncIterator[streams.Event]:
        async for _ in self._parts.watching.watch(found.principal, key, request_id=found.request_id):
            run = await self._view(found.principal, key, found.request_id)
            yield "state", fragment("run_state.html", run=run)

    async def _output(self, found: Visit, key: ActionKey) -> AsyncIterator[streams.Event]:
        async for lines in self._lines(found, key):
            yield "log", lines

    async def _lines(self, found: Visit, key: ActionKey) -> AsyncIterator[list[str]]:
        """The output of each attempt after the other."""
        number = 1
        while True:
            async for lines in self._parts.tailing.follow(
                found.principal, key, attempt=number, request_id=found.request_id
            ):
                yield [line.text for line in lines]
            seen = await self._parts.watching.get(found.principal, key, request_id=found.request_id)
            number += 1
            if number > len(seen.attempts) and (seen.row.phase.terminal or number > seen.row.max_attempts):
                return

    async def _view(self, principal: Principal, key: ActionKey, request_id: str) -> views.RunPage:
        seen = await self._parts.watching.get(principal, key, request_id=request_id)
        found = await self._parts.data.action_data(principal, key, request_id=request_id)
        row, grant = seen.row, self._parts.grants.of(key)
        return views.run_page(
            seen,
            credential_name=await self._credential_name(seen),
            definition=await self._definition(
                principal, (row.task_project, row.task_domain, row.task_name), row.task_version
            ),
            grant=grant,
            inputs=found.inputs,
            outputs=found.outputs,
            stoppable=await self._stoppable(principal, seen),
            revocable=grant is not None
            and not row.phase.terminal
            and await self._parts.grants.revocable(principal, grant),
        )

    async def _stoppable(self, principal: Principal, seen: Seen) -> bool:
        """Whether to show the button that aborts; pressing it is decided anew."""
        row = seen.row
        if row.phase.terminal:
            return False
        thing = run_resource(row.key, row=row, owner=row.executed_by)
        return (await self._parts.access.check(principal, Action.RUN_ABORT, thing)).allowed

    async def _credential_name(self, seen: Seen) -> str:
        if not seen.row.credential_id:
            return ""
        facts = await self._parts.directory.key(seen.row.credential_id)
        return "" if facts is None else facts.name

    async def _definition(
        self, principal: Principal, task: tuple[str, str, str], version: str
    ) -> Definition | None:
        """A version of a task as far as the caller may view it; looking at a page is no refused call."""
        place = Resource(ResourceType.TASK, *task)
        if (
            builtins.find(task, version) is None
            and not (await self._parts.access.check(principal, Action.TASK_VIEW, place)).allowed
        ):
            return None
        try:
            return await self._parts.tasks.details(principal, task, version, request_id="")
        except NotFound:
            return None


class AppPages:
    """The list of apps and the page of one."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def index(self, request: Request) -> Response:
        """The apps that the caller may view."""
        found = await visit(request, self._parts.chain)
        query = Query(limit=PAGE, token=request.query_params.get("token", ""), sort="name", descending=False)
        rows, token = await self._parts.apps.page(found.principal, query)
        return page("apps.html", found, apps=[self._shown(request, row) for row in rows], token=token)

    async def one(self, request: Request) -> Response:
        """State, address, revisions and output."""
        found = await visit(request, self._parts.chain)
        app = await self._view(request, found)
        return page("app.html", found, app=app, events=f"{app.href}/events")

    async def events(self, request: Request) -> Response:
        """The state and the output as they change."""
        found = await visit(request, self._parts.chain)
        await self._view(request, found)

        async def holds() -> None:
            await visit(request, self._parts.chain)

        body = streams.encoded(self._states(request, found), self._output(request, found), holds=holds)
        return StreamingResponse(body, headers=_EVENTS)

    async def _states(self, request: Request, found: Visit) -> AsyncIterator[streams.Event]:
        key = _app_key(request)
        async for _ in self._parts.apps.watch(found.principal, *key, request_id=found.request_id):
            yield "state", fragment("app_state.html", app=await self._view(request, found))

    async def _output(self, request: Request, found: Visit) -> AsyncIterator[streams.Event]:
        key = _app_key(request)
        async for lines in self._parts.apps.tail(found.principal, *key, request_id=found.request_id):
            yield "log", [line.text for line in lines]

    async def _view(self, request: Request, found: Visit) -> views.AppPage:
        key = _app_key(request)
        row = await self._parts.apps.get(found.principal, *key, request_id=found.request_id)
        revisions = await self._parts.apps.revisions(found.principal, *key, request_id=found.request_id)
        return self._shown(request, row, revisions)

    def _shown(self, request: Request, row: AppRow, revisions: Sequence[Revision] = ()) -> views.AppPage:
        base = self._parts.base_url(host(request))
        domain = self._parts.settings.apps_domain
        return views.app_page(
            row,
            url=appspecs.host_url(row.host, base_url=base, apps_domain=domain),
            path_url=appspecs.path_url(row, base_url=base),
            revisions=revisions,
        )


def _run_key(request: Request) -> ActionKey:
    fields = request.path_params
    return ActionKey(fields["project"], fields["domain"], fields["name"])


def _app_key(request: Request) -> tuple[str, str, str]:
    fields = request.path_params
    return fields["project"], fields["domain"], fields["name"]

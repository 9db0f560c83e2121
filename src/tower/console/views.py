"""What the pages show, put in words: plain values for the templates, which decide nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from flyteidl2.task import common_pb2

from tower.clock import utc
from tower.console import values
from tower.control import privileges, standinggrants
from tower.control.apps import AppRow, Revision
from tower.control.definitions import Definition
from tower.control.triggerviews import TriggerKey, started_by
from tower.control.watching import ActionRow, Seen
from tower.states import Phase

_SHOWN_DIGEST = 16
_WARNINGS = {
    "foreign-code": "Somebody else registered this code; it ran with the rights of a privileged person."
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A time for people and for machines."""

    text: str
    iso: str


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output by its name."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed."""

    code: str
    message: str
    kind: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a run."""

    number: int
    phase: str
    started: Moment | None
    ended: Moment | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in a list."""

    name: str
    href: str
    task: str
    task_href: str
    version: str
    phase: str
    subject: str
    via_app: str
    created: Moment
    seconds: str


@dataclass(frozen=True, slots=True)
class Privileges:
    """What a version may do beyond what running work may, and who let it."""

    actions: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True)
class Grant:
    """How long a run may act for its person: until when, and why it holds no more ("" while it does)."""

    until: Moment
    ended: str
    revoked: bool
    command: str
    """What revokes it."""
    revocable: bool
    """Whether the caller may revoke it now."""


@dataclass(frozen=True, slots=True)
class TaskLine:
    """The latest version of a task, above the list of its runs."""

    version: str
    deployed_by: str
    deployed: Moment
    privileges: Privileges | None


@dataclass(frozen=True, slots=True)
class RunPage:
    """A run with all that is known of it; `registered_by` is None where the caller may not view the task."""

    line: RunLine
    project: str
    domain: str
    task_place: str
    subject_name: str
    subject_kind: str
    credential_kind: str
    credential_id: str
    credential_name: str
    actors: tuple[str, ...]
    policies: tuple[str, ...]
    policy_revision: str
    registered_by: str | None
    privileges: Privileges | None
    grant: Grant | None
    warning: str
    code_digest: str
    inputs_hash: str
    started: Moment | None
    ended: Moment | None
    abort: str
    failure: Failure | None
    attempts: tuple[Attempt, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    trigger: tuple[str, str] | None
    """Name and address of the trigger that started it."""
    stoppable: bool
    """Whether the caller may abort it now."""

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return Phase[self.line.phase].terminal


@dataclass(frozen=True, slots=True)
class AppPage:
    """An app."""

    name: str
    place: str
    href: str
    status: str
    message: str
    desired: str
    url: str
    path_url: str
    description: str
    requires_auth: bool
    revision: int
    deployed_by: str
    code_digest: str
    created: Moment
    updated: Moment
    revisions: tuple[tuple[int, str, Moment], ...] = ()


def moment(seconds: float) -> Moment:
    """Seconds since the epoch for a page."""
    at = utc(seconds)
    return Moment(at.strftime("%Y-%m-%d %H:%M:%S UTC"), at.isoformat())


def run_href(project: str, domain: str, name: str) -> str:
    """The address of a run's page; clients build the same."""
    return f"/v2/domain/{domain}/project/{project}/runs/{name}"


def task_href(project: str, domain: str, name: str) -> str:
    """The address of the runs of a task; clients build the same."""
    return f"/v2/domain/{domain}/project/{project}/runs?{urlencode({'task': name})}"


def app_href(project: str, domain: str, name: str) -> str:
    """The address of an app's page."""
    return f"/v2/domain/{domain}/project/{project}/apps/{name}"


def run_line(seen: Seen) -> RunLine:
    """A run for a list."""
    row = seen.row
    took = "" if row.started_at is None or row.ended_at is None else f"{row.ended_at - row.started_at:.1f} s"
    return RunLine(
        name=row.run,
        href=run_href(row.project, row.domain, row.run),
        task=row.task_name,
        task_href=task_href(row.project, row.domain, row.task_name),
        version=row.task_version,
        phase=row.phase.name,
        subject=row.executed_by,
        via_app=row.via_app,
        created=moment(row.created_at),
        seconds=took,
    )


def run_page(
    seen: Seen,
    *,
    credential_name: str,
    definition: Definition | None,
    grant: standinggrants.Seen | None,
    inputs: common_pb2.Inputs,
    outputs: common_pb2.Outputs,
    stoppable: bool,
    revocable: bool,
) -> RunPage:
    """A run for its page."""
    row = seen.row
    abort = ""
    if row.aborted_by:
        abort = f"by {row.aborted_by}" + (f": {row.abort_reason}" if row.abort_reason else "")
    return RunPage(
        line=run_line(seen),
        project=row.project,
        domain=row.domain,
        task_place=f"{row.task_project}/{row.task_domain}",
        subject_name=seen.executor.name,
        subject_kind=seen.executor.kind,
        credential_kind=row.credential_kind.replace("_", " "),
        credential_id=row.credential_id,
        credential_name=credential_name,
        actors=_texts(row.actors),
        policies=tuple(policy for policy in row.decision.split(",") if policy),
        policy_revision=row.policy_revision,
        registered_by=_registrar(row, definition),
        privileges=None if row.spec is not None else _privileges(definition),
        grant=None if grant is None else _grant(row, grant, revocable=revocable),
        warning=_WARNINGS.get(row.warning, row.warning),
        code_digest=row.code_digest,
        inputs_hash=row.inputs_hash,
        started=None if row.started_at is None else moment(row.started_at),
        ended=None if row.ended_at is None else moment(row.ended_at),
        abort=abort,
        failure=_failure(row.error),
        attempts=tuple(
            Attempt(
                number=each.attempt,
                phase=each.phase.name,
                started=None if each.started_at is None else moment(each.started_at),
                ended=None if each.ended_at is None else moment(each.ended_at),
                failure=_failure(each.error),
            )
            for each in seen.attempts
        ),
        inputs=_values(inputs),
        outputs=_values(outputs),
        trigger=_trigger(row.actors),
        stoppable=stoppable,
    )


def task_line(definition: Definition) -> TaskLine:
    """A task for the page of its runs."""
    row = definition.row
    return TaskLine(row.version, row.deployed_by, moment(row.deployed_at), _privileges(definition))


def app_page(row: AppRow, *, url: str, path_url: str, revisions: Sequence[Revision] = ()) -> AppPage:
    """An app for its page or a list."""
    return AppPage(
        name=row.name,
        place=f"{row.project}/{row.domain}",
        href=app_href(row.project, row.domain, row.name),
        status=row.status.name,
        message=row.message,
        desired=row.desired.name,
        url=url,
        path_url=path_url,
        description=row.description,
        requires_auth=row.requires_auth,
        revision=row.revision,
        deployed_by=row.deployed_by,
        code_digest=row.code_digest[:_SHOWN_DIGEST],
        created=moment(row.created_at),
        updated=moment(row.updated_at),
        revisions=tuple((each.revision, each.deployed_by, moment(each.created_at)) for each in revisions),
    )


def trigger_href(key: TriggerKey) -> str:
    """The address of a trigger's page; clients build the same."""
    return f"/v2/domain/{key.domain}/project/{key.project}/triggers/{key.task}/{key.name}"


def _grant(row: ActionRow, seen: standinggrants.Seen, *, revocable: bool) -> Grant:
    command = f"flyte delete grant {row.project}/{row.domain}/{row.run}"
    revoked = seen.row.revoked_at is not None
    return Grant(moment(seen.expires_at), seen.ended, revoked, command, revocable)


def _registrar(row: ActionRow, definition: Definition | None) -> str | None:
    if row.spec is not None:
        return row.executed_by
    return None if definition is None else definition.row.deployed_by


def _privileges(definition: Definition | None) -> Privileges | None:
    given = None if definition is None else privileges.from_text(definition.row.privileges)
    return None if given is None else Privileges(tuple(sorted(given.actions)), given.by)


def _trigger(actors: str) -> tuple[str, str] | None:
    found = started_by(actors)
    return None if found is None else (f"{found[0].name} of {found[0].task}", trigger_href(found[0]))


def _values(found: common_pb2.Inputs | common_pb2.Outputs) -> tuple[Value, ...]:
    shown = values.show_all((each.name, each.value) for each in found.literals)
    return tuple(Value(name, text) for name, text in shown)


def _texts(text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return ()
    return tuple(str(each) for each in found)


def _failure(text: str) -> Failure | None:
    if not text:
        return None
    try:
        found = json.loads(text)
        return Failure(str(found.get("code", "")), str(found.get("message", "")), str(found.get("kind", "")))
    except (ValueError, AttributeError):
        return Failure("", text, "")

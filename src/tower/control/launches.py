"""What a caller asks for, and the row that a run begins as."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from flyteidl2.task import common_pb2, run_pb2, task_definition_pb2

from tower.clock import Clock
from tower.control import lineage, privileges, runspecs
from tower.control.access import Access
from tower.control.definitions import Definition
from tower.control.grants import actors_to_text, ceilings_to_text
from tower.control.inputs import Kept
from tower.identity.principal import CredentialKind, Principal
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.states import Phase
from tower.store.definitions import TaskKey
from tower.store.runs import ROOT, ActionRow, Person, Template

_REMEMBERED = 16_384


@dataclass(slots=True)  # not frozen: for this many fields that would cost 2 µs on each new run
class Launch:
    """What a caller asks for. Either `task` with `version` ("" is the latest) or `spec` names what runs.

    `name` "" lets Tower name the run. Inputs come as a message or as the URI of an earlier upload. `grant` is
    how long the run may act for its person at most, in seconds; None takes as long as this Tower gives.
    """

    project: str
    domain: str
    run_spec: run_pb2.RunSpec
    name: str = ""
    task: TaskKey | None = None
    version: str = ""
    spec: task_definition_pb2.TaskSpec | None = None
    inputs: common_pb2.Inputs | None = None
    inputs_uri: str = ""
    grant: float | None = None


class _Usual(NamedTuple):
    """What the runs of one caller of one task have in common, as long as the decision about them stands.

    `Access` decides anew when anything changes that it looked at, and then it is another decision.
    """

    principal: Principal
    definition: Definition
    decision: Decision
    template: Template
    executor: Person


class Launches:
    """Makes the rows of new runs and actions. Nothing is stored here."""

    def __init__(self, *, clock: Clock, access: Access, settings: Settings) -> None:
        self._clock = clock
        self._access = access
        self._settings = settings
        self._usual: dict[tuple[int, int], _Usual] = {}

    async def new(
        self,
        principal: Principal,
        asked: Launch,
        *,
        definition: Definition,
        decision: Decision,
        kept: Kept,
        request_id: str,
    ) -> tuple[ActionRow, Person]:
        """The row of a new run, and whose it is: for most, what their last run of the task had."""
        run_spec = runspecs.clean(asked.run_spec, principal=principal, settings=self._settings)
        known = self._usual.get((id(principal), id(definition)))
        if (
            known is not None
            and known.principal is principal
            and known.definition is definition
            and known.decision is decision
            and run_spec is runspecs.NOTHING
        ):
            now = self._clock.now()
            row = known.template.fill(
                run=asked.name or self._clock.name("r"),
                inputs_uri=kept.uri,
                inputs_hash=kept.digest,
                request_id=request_id,
                now=now,
                grant_expires_at=self._grant_end(principal, now, asked.grant),
            )
            return row, known.executor
        row = self.make(
            principal,
            asked,
            definition=definition,
            decision=decision,
            kept=kept,
            run_spec=run_spec,
            request_id=request_id,
            warning=await self._access.warning(principal, definition.row.deployed_by),
        )
        executor = person(principal)
        # a key names the same principal each time; others are made anew at each call, and not found again
        again = principal.credential.kind is CredentialKind.API_KEY and not principal.actors
        if again and run_spec is runspecs.NOTHING and asked.task is not None:
            if len(self._usual) >= _REMEMBERED:
                self._usual.clear()
            usual = _Usual(principal, definition, decision, Template(row), executor)
            self._usual[id(principal), id(definition)] = usual
        return row, executor

    def make(
        self,
        principal: Principal,
        asked: Launch,
        *,
        definition: Definition,
        decision: Decision,
        kept: Kept,
        run_spec: run_pb2.RunSpec,
        request_id: str,
        warning: str,
    ) -> ActionRow:
        """The row of a new run, as nothing knows it yet."""
        now = self._clock.now()
        task = definition.row
        spec = None if asked.task is not None else definition.spec.SerializeToString(deterministic=True)
        return ActionRow(
            project=asked.project,
            domain=asked.domain,
            run=asked.name or self._clock.name("r"),
            action=ROOT,
            parent=None,
            task_project=task.project,
            task_domain=task.domain,
            task_name=task.name,
            task_version=task.version,
            spec=spec,
            code_digest=task.code_digest,
            inputs_uri=kept.uri,
            inputs_hash=kept.digest,
            run_spec=run_spec.SerializeToString(deterministic=True),
            labels=json.dumps(dict(run_spec.labels.values), sort_keys=True)
            if run_spec.labels.values
            else "{}",
            executed_by=principal.subject,
            via_app=principal.via_app,
            credential_kind=principal.credential.kind.value,
            credential_id=principal.credential.root,
            actors=actors_to_text(principal.actors) if principal.actors else "[]",
            ceilings=ceilings_to_text(principal.ceilings) if principal.ceilings else "[]",
            decision=",".join(decision.policies),
            policy_revision=decision.revision,
            request_id=request_id,
            phase=Phase.QUEUED,
            attempts=0,
            max_attempts=definition.max_attempts,
            queue_timeout=min(definition.queue_timeout or inf, self._settings.queue_timeout),
            run_timeout=min(definition.run_timeout or inf, self._settings.run_timeout),
            created_at=now,
            queued_at=now,
            started_at=None,
            ended_at=None,
            outputs_uri="",
            error="",
            abort_reason="",
            aborted_by="",
            turn=-lineage.depth(principal),
            warning=warning,
            grant_expires_at=self._grant_end(principal, now, asked.grant),
        )

    def _grant_end(self, principal: Principal, now: float, asked: float | None) -> float:
        """Until when a new run may act for its person: never longer than the run that asks for it."""
        ends = now + min(self._settings.max_grant, inf if asked is None else asked)
        if principal.credential.kind is CredentialKind.WORKLOAD:
            return min(ends, principal.credential.expires_at or ends)
        return ends


def created(row: ActionRow, definition: Definition) -> dict[str, str]:
    """What the audit says of a new action besides who and why: what runs, on what, and whose code it is."""
    detail = {
        "run": f"{row.project}/{row.domain}/{row.run}",
        "version": row.task_version,
        "code_digest": row.code_digest,
        "inputs": row.inputs_hash,
    }
    if row.parent is not None:
        detail |= {"action": row.action, "parent": row.parent}
    if definition.row.deployed_by != row.executed_by:
        detail["author"] = definition.row.deployed_by
    if row.warning:
        detail["warning"] = row.warning
    given = privileges.from_text(definition.row.privileges)
    if given is not None and row.spec is None:
        detail |= {"privileges": " ".join(sorted(given.actions)), "given_by": given.by}
    return detail


def person(principal: Principal) -> Person:
    """The caller as a row names them."""
    return Person(principal.subject, principal.kind.value, principal.name, principal.email)

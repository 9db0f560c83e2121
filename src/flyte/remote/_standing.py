"""What is known of a run from when it was last asked for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Self

from flyteidl2.common import identifier_pb2
from flyteidl2.task import run_pb2
from flyteidl2.workflow import run_definition_pb2 as wire

from flyte.errors import RunError
from flyte.remote._outcome import BEFORE, failure
from flyte.remote._phase import Phase
from flyte.remote._wire import instant, subject
from flyte.transport.session import Session

_ROOT = "a0"
# The protocol has no field for these; Tower puts them among the labels and lets nobody else set them.
_OWN_LABELS = "tower/"
_VIA_APP = "tower/via-app"
_CREDENTIAL = "tower/credential-id"
_CREATED_AT = "tower/created-at"
_PARENT = "tower/parent-run"
_TRIGGER = "tower/trigger"


class Standing:
    """A run as it stood when last asked for. Nothing here asks the control plane."""

    def __init__(
        self,
        session: Session,
        *,
        identity: identifier_pb2.RunIdentifier,
        metadata: wire.ActionMetadata,
        status: wire.ActionStatus,
        labels: Mapping[str, str],
    ) -> None:
        self._console = session.console_url
        self._id = identity
        self._metadata = metadata
        self._status = status
        self._labels = dict(labels)
        self._details: wire.ActionDetails | None = None
        self._spec: run_pb2.RunSpec | None = None

    @classmethod
    def from_wire(cls, session: Session, run: wire.Run) -> Self:
        """A run out of an answer of the control plane."""
        action = run.action
        return cls(
            session,
            identity=action.id.run,
            metadata=action.metadata,
            status=action.status,
            labels=run.labels,
        )

    @property
    def name(self) -> str:
        """The name, unique within project and domain."""
        return str(self._id.name)

    @property
    def project(self) -> str:
        """The project it runs in."""
        return str(self._id.project)

    @property
    def domain(self) -> str:
        """The domain it runs in."""
        return str(self._id.domain)

    @property
    def url(self) -> str:
        """Its page in the console."""
        return f"{self._console}/v2/domain/{self.domain}/project/{self.project}/runs/{self.name}"

    @property
    def phase(self) -> Phase:
        """Where it stood when it was last asked for."""
        return Phase.of(self._status.phase)

    @property
    def done(self) -> bool:
        """Whether it had ended."""
        return self.phase.is_terminal

    @property
    def task(self) -> str:
        """The name of its task."""
        return str(self._metadata.task.id.name)

    @property
    def version(self) -> str:
        """The version of its task."""
        return str(self._metadata.task.id.version)

    @property
    def executed_by(self) -> str:
        """The subject that it runs as."""
        return subject(self._metadata.executed_by)

    @property
    def via_app(self) -> str:
        """`project/domain/name` of the app that it came through; empty for a direct call."""
        return self._labels.get(_VIA_APP, "")

    @property
    def via_trigger(self) -> str:
        """`project/domain/task/name` of the trigger that started it; empty where somebody asked for it."""
        return self._labels.get(_TRIGGER, "")

    @property
    def credential_id(self) -> str:
        """The public id of the key that asked for it; empty where none is known."""
        return self._labels.get(_CREDENTIAL, "")

    @property
    def parent(self) -> str:
        """`project/domain/name` of the run that asked for this one from inside of a task; empty otherwise."""
        return self._labels.get(_PARENT, "")

    @property
    def started_at(self) -> dt.datetime | None:
        """When its first attempt started, in UTC; None while it waits."""
        return None if self.phase in BEFORE else instant(self._status.start_time)

    @property
    def labels(self) -> dict[str, str]:
        """The labels that it was started with."""
        return {key: value for key, value in self._labels.items() if not key.startswith(_OWN_LABELS)}

    @property
    def attempts(self) -> int:
        """How many attempts were made."""
        return int(self._status.attempts)

    @property
    def created_at(self) -> dt.datetime | None:
        """When it was asked for, in UTC; from a backend that does not say so, the earliest time known."""
        if _CREATED_AT in self._labels:
            return dt.datetime.fromisoformat(self._labels[_CREATED_AT])
        stamps = [instant(self._status.start_time)]
        if self._spec is not None:
            stamps.append(instant(self._spec.run_start_time))
        for attempt in self._details.attempts if self._details is not None else ():
            stamps += [instant(each.start_time) for each in attempt.phase_transitions]
        return min((stamp for stamp in stamps if stamp is not None), default=None)

    @property
    def ended_at(self) -> dt.datetime | None:
        """When it ended, in UTC."""
        return instant(self._status.end_time) if self._status.HasField("end_time") else None

    @property
    def error(self) -> str:
        """Why it failed or was aborted; empty otherwise, and before the details were asked for."""
        if self._details is None:
            return ""
        match self._details.WhichOneof("result"):
            case "error_info":
                return str(self._details.error_info.message)
            case "abort_info":
                return str(self._details.abort_info.reason)
            case _:
                return ""

    def raise_for_status(self) -> Self:
        """Raise RunFailedError, RunAbortedError or RunTimedOutError unless it succeeded or goes on."""
        error = self._failure()
        if error is not None:
            raise error
        return self

    def summary(self) -> dict[str, Any]:
        """What is known without asking."""
        return {
            "name": self.name,
            "phase": str(self.phase),
            "url": self.url,
            "project": self.project,
            "domain": self.domain,
            "task": self.task,
            "version": self.version,
            "executed_by": self.executed_by,
            "via_app": self.via_app,
            "via_trigger": self.via_trigger,
            "parent": self.parent,
            "created_at": self.created_at.isoformat() if self.created_at is not None else None,
            "started_at": self.started_at.isoformat() if self.started_at is not None else None,
            "ended_at": self.ended_at.isoformat() if self.ended_at is not None else None,
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.phase}>"

    def _action(self) -> identifier_pb2.ActionIdentifier:
        return identifier_pb2.ActionIdentifier(run=self._id, name=_ROOT)

    def _take(self, details: wire.RunDetails) -> None:
        self._spec = details.run_spec
        self._labels = dict(details.run_spec.labels.values) or self._labels
        self._take_action(details.action)

    def _take_action(self, details: wire.ActionDetails) -> None:
        self._details = details
        self._metadata = details.metadata
        self._status = details.status

    def _failure(self) -> RunError | None:
        return failure(self.name, self.phase, self.error)

    def _has_begun(self) -> bool:
        """Whether there is an attempt with a log; that its image is made is told there, too."""
        return self.attempts > 0 and (self.phase not in BEFORE or self.phase is Phase.INITIALIZING)

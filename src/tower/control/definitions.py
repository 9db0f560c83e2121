"""Task versions in memory: immutable once read, and which version is the latest until the next deployment."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from flyteidl2.task import task_definition_pb2
from google.protobuf.message import DecodeError

from tower.control.interface import Interface
from tower.errors import Broken
from tower.store import definitions as store
from tower.store.database import Database
from tower.store.definitions import TaskKey, TaskRow

_REMEMBER = 2048


@dataclass(frozen=True, slots=True)
class Definition:
    """One version of a task, ready to run: its row, its specification (never change it) and its interface."""

    row: TaskRow
    spec: task_definition_pb2.TaskSpec
    interface: Interface
    max_attempts: int
    queue_timeout: float | None
    run_timeout: float | None


class Definitions:
    """The task versions of the store. It knows nothing of rights: ask `Access` first.

    Lookups go by key and run in the event loop without a pause, so that none can put back what a deployment
    made it forget meanwhile.
    """

    def __init__(self, *, db: Database) -> None:
        self._db = db
        self._versions: OrderedDict[tuple[TaskKey, str], Definition] = OrderedDict()
        self._latest: OrderedDict[TaskKey, str] = OrderedDict()

    def find(self, key: TaskKey, version: str) -> Definition | None:
        """A version, or with version "" the latest; None when there is no such thing."""
        if not version:
            latest = self._find_latest(key)
            if latest is None:
                return None
            version = latest
        known = self._versions.get((key, version))
        if known is not None:
            self._versions.move_to_end((key, version))
            return known
        found = self._db.read_now(lambda reader: store.get(reader, key, version))
        if found is None:
            return None
        definition = _definition(*found)
        self._versions[key, version] = definition
        if len(self._versions) > _REMEMBER:
            self._versions.popitem(last=False)
        return definition

    def deployed(self, key: TaskKey, version: str) -> None:
        """Forget which version is the latest, and who gave this one what. Call it after the commit."""
        self._latest.pop(key, None)
        self._versions.pop((key, version), None)

    def _find_latest(self, key: TaskKey) -> str | None:
        known = self._latest.get(key)
        if known is not None:
            return known
        latest = self._db.read_now(lambda reader: store.latest(reader, key))
        if latest is not None:
            self._latest[key] = latest
            if len(self._latest) > _REMEMBER:
                self._latest.popitem(last=False)
        return latest


def read_spec(data: bytes) -> task_definition_pb2.TaskSpec:
    """A stored specification. Raises Broken when it does not parse."""
    try:
        spec: task_definition_pb2.TaskSpec = task_definition_pb2.TaskSpec.FromString(data)
    except DecodeError as error:
        raise Broken("A task's specification cannot be read.", cause=str(error)) from error
    return spec


def ready(row: TaskRow, spec: task_definition_pb2.TaskSpec) -> Definition:
    """A specification with what a run needs of it worked out."""
    metadata = spec.task_template.metadata
    return Definition(
        row=row,
        spec=spec,
        interface=Interface(spec),
        max_attempts=1 + metadata.retries.retries,
        queue_timeout=_seconds(metadata.timeouts.queued_timeout),
        run_timeout=_seconds(metadata.timeout),
    )


def _definition(row: TaskRow, data: bytes) -> Definition:
    return ready(row, read_spec(data))


def _seconds(duration: object) -> float | None:
    nanoseconds: int = duration.ToNanoseconds()  # type: ignore[attr-defined]
    return nanoseconds / 1e9 if nanoseconds > 0 else None

"""What lists of runs can be narrowed to."""

from __future__ import annotations

from collections.abc import Iterable

from flyteidl2.common import list_pb2

from flyte.remote._phase import Phase
from flyte.remote._wire import equal


def run_filters(
    *,
    created_by: str | None,
    phase: str | Iterable[str] | None,
    task_name: str | None,
    task_version: str | None,
) -> list[list_pb2.Filter]:
    """The filters on the wire. Raises ValueError for a phase that is none."""
    filters = []
    if created_by is not None:
        filters.append(equal("created_by", created_by))
    if phase is not None:
        names = [phase] if isinstance(phase, str) else list(phase)
        unknown = [name for name in names if name.upper() not in Phase.__members__]
        if unknown or not names:
            raise ValueError(f"A phase is one of {', '.join(list(Phase)[1:])}.")
        filters.append(equal("phase", *(str(Phase[name.upper()].number) for name in names)))
    if task_name is not None:
        filters.append(equal("task_name", task_name))
    if task_version is not None:
        filters.append(equal("task_version", task_version))
    return filters

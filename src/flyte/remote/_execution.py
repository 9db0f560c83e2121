"""A run under the name that flytekit has for it: an execution with a closure."""

from __future__ import annotations

import datetime as dt
from typing import Any, Self

from flyte._init import own_session, use_session
from flyte.remote._phase import Phase
from flyte.remote._run import Run


class ExecutionId(str):
    """The name of an execution; it also knows where it is."""

    __slots__ = ("domain", "project")

    project: str
    domain: str

    @classmethod
    def of(cls, run: Run) -> Self:
        """The identifier of a run."""
        made = cls(run.name)
        made.project, made.domain = run.project, run.domain
        return made

    @property
    def name(self) -> str:
        """The name alone."""
        return str(self)


class Closure:
    """What is known of how an execution went, as of the last look at it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def phase(self) -> Phase:
        """Equal to its name: `closure.phase == "SUCCEEDED"`."""
        return self._run.phase

    @property
    def created_at(self) -> dt.datetime | None:
        """When it was asked for, in UTC."""
        return self._run.created_at

    @property
    def started_at(self) -> dt.datetime | None:
        """When it started, in UTC; None while it waits."""
        return self._run.started_at

    @property
    def ended_at(self) -> dt.datetime | None:
        """When it ended, in UTC; None while it goes on."""
        return self._run.ended_at

    @property
    def duration(self) -> dt.timedelta | None:
        """From its start to its end; None before."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at

    @property
    def error(self) -> str:
        """Why it failed; empty otherwise."""
        return self._run.error


class Execution:
    """A run as flytekit's users know it; `run` is the same thing as `flyte.remote` has it."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def id(self) -> ExecutionId:
        """Its name."""
        return ExecutionId.of(self.run)

    @property
    def name(self) -> str:
        """Its name."""
        return self.run.name

    @property
    def closure(self) -> Closure:
        """How it went."""
        return Closure(self.run)

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self.run.done

    @property
    def error(self) -> str:
        """Why it failed; empty otherwise."""
        return self.run.error

    @property
    def inputs(self) -> dict[str, Any]:
        """The values that it was started with, by name. Asks the control plane."""
        with use_session(own_session()):
            return self.run.inputs()

    @property
    def outputs(self) -> dict[str, Any]:
        """The results by name, o0, o1, …. Asks the control plane; raises RunError for one that failed."""
        with use_session(own_session()):
            return dict(self.run.outputs().named)

    def sync(self) -> Self:
        """Look again."""
        with use_session(own_session()):
            self.run.sync()
        return self

    def wait(self, timeout: float | None = None) -> Self:
        """Wait for the end. Raises TimeoutError."""
        with use_session(own_session()):
            self.run.wait(timeout=timeout)
        return self

    def __repr__(self) -> str:
        return f"<Execution {self.name} {self.closure.phase}>"

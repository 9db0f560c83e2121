"""Attempts and apps as processes of this machine."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tower.errors import Unavailable
from tower.executors.port import AppJob, Limits, OnOutput, OnStart, TaskJob
from tower.executors.process.cgroups import Cgroups, Group
from tower.executors.process.child import Child, Plan
from tower.executors.process.folders import Key, entrust, hand_over, key_of, own
from tower.executors.process.isolation import Isolation, Mode
from tower.executors.process.pool import Pool
from tower.executors.process.slot import Slot
from tower.executors.process.template import Template, UnsafeError
from tower.executors.process.work import Work

_DETECT = object()


class ProcessExecutor:
    """Forks attempts from template processes and starts apps, with limits as good as the machine lets us.

    `enforcement` says how limits are held: "cgroups v1", "cgroups v2" or "rlimits". With rlimits memory is
    limited per process, the processor by affinity and the number of processes not at all.
    """

    def __init__(
        self,
        *,
        idle_seconds: float = 300.0,
        largest_pool: int = 16,
        package: str = "flyte.runtime",
        groups: Cgroups | object | None = _DETECT,
        isolation: Isolation | None = None,
    ) -> None:
        """`package` holds the modules `worker`, `task`, `serve` and `command`.

        `groups=None` keeps to rlimits; `isolation` None keeps nothing apart.
        """
        self.isolation = isolation or Isolation(mode=Mode.NONE)
        found = Cgroups.open() if groups is _DETECT else groups
        self._groups = found if isinstance(found, Cgroups) else None
        self._package = package
        self._pool = Pool(
            self.isolation, module=f"{package}.worker", idle_seconds=idle_seconds, largest=largest_pool
        )
        self._unsafe: set[tuple[Key, str]] = set()
        self._works: set[Work] = set()
        self._slots: dict[Path, Slot] = {}
        self._closed = False
        self._serial = 0

    @property
    def enforcement(self) -> str:
        """How limits are held on this machine."""
        return "rlimits" if self._groups is None else f"cgroups v{self._groups.version}"

    async def start_task(self, job: TaskJob, *, on_output: OnOutput, on_start: OnStart) -> Work:
        """Start one attempt; returns when its process exists. Raises Fault."""
        slot = self._slots.pop(job.directory, None)
        if slot is not None:
            return self._give(slot, job, on_output=on_output, on_start=on_start)
        work = self._work(job.limits, on_output=on_output, on_start=on_start)
        key = key_of(job)
        try:
            if job.command:
                self._spawn(list(job.command), job=job, work=work)
                return work
            if not job.alone and (key, job.module) not in self._unsafe:
                try:
                    await self._fork(self._pool.get(key), job=job, work=work)
                except UnsafeError as reason:
                    if not reason.once:
                        self._unsafe.add((key, job.module))
                else:
                    return work
            self._spawn(
                [str(job.python), "-P", "-m", f"{self._package}.task"],
                job=job,
                work=work,
                given=json.dumps(self._message(job, None) | {"bundle": str(job.bundle or "")}).encode(),
            )
        except BaseException as error:
            if not work.abandoned:  # else its end is still to come
                self._drop(work)
            if isinstance(error, OSError):
                raise Unavailable("The attempt could not be started.", cause=str(error)) from error
            raise
        return work

    def prepares(self, job: TaskJob) -> bool:
        """Whether a process could wait for an attempt like this one, as far as is known without asking."""
        return self._preparing(job) is not None

    def _preparing(self, job: TaskJob) -> Template | None:
        key = key_of(job)
        if self._closed or job.command or job.alone or (key, job.module) in self._unsafe:
            return None
        template = self._pool.find(key)
        return template if template is not None and template.prepares(job) else None

    def prepare(self, job: TaskJob, *, gone: Callable[[], None]) -> bool:
        """Have a process wait for an attempt like this one, in its folders; False where none can.

        `job` says what all of the kind have in common; its `env` lacks what is an attempt's own. The one that
        is started with the same `directory` gets the process. `gone` is called when it ended without one.
        """
        template = self._preparing(job)
        if template is None:
            return False
        try:
            group = self._group(job.limits)
        except Unavailable:
            return False
        said = False
        with suppress(OSError):
            slot = Slot(job, user=template.user, group=group, left=self._end_slot, gone=gone)
            try:
                with self._handing_over(job, template, group) as (message, groups):
                    said = template.prepare(slot, message, groups=groups)
            finally:
                slot.theirs.close()
                if said:
                    self._slots[job.directory] = slot
                else:
                    slot.drop()
        if not said and group is not None and self._groups is not None:
            self._groups.release(group)
        return said

    def claim(self, directory: Path) -> bool:
        """Whether a process waits there: until the attempt starts there, or it is discarded, it is kept."""
        slot = self._slots.get(directory)
        return slot is not None and slot.claim()

    def discard(self, directory: Path) -> None:
        """There will be no attempt there."""
        slot = self._slots.get(directory)
        if slot is not None:
            slot.drop()

    def _give(self, slot: Slot, job: TaskJob, *, on_output: OnOutput, on_start: OnStart) -> Work:
        """Make the process that waits the attempt. Raises Unavailable when it cannot be any more."""
        if self._closed or not slot.waits or not slot.serves(job):
            # its folders are not used by another process: it, or what it left, might still be in them
            slot.drop()
            raise Unavailable("The process that waited for the attempt has ended.")
        work, said = None, -1
        try:
            entrust(job.directory / "inputs.pb", slot.user)
            work = self._hold(job.limits, slot.group, on_output=on_output, on_start=on_start)
            said = work.hear()
            packet = json.dumps(self._message(job, None) | {"done": True}, separators=(",", ":")).encode()
            slot.give(work, packet, said)
        except BaseException as error:
            if not slot.given:
                slot.drop()  # its end gives back the group
                if work is not None:
                    work.drop()
                    self._works.discard(work)
            if isinstance(error, OSError):
                raise Unavailable("The attempt could not be started.", cause=str(error)) from error
            raise
        finally:
            if said >= 0:
                os.close(said)
        return work

    def _end_slot(self, slot: Slot, status: int) -> None:
        """One that waited has ended: what may be left of it ends, too."""
        if self._slots.get(slot.job.directory) is slot:
            del self._slots[slot.job.directory]
        limits = slot.job.limits
        try:
            work = self._hold(limits, slot.group, on_output=lambda _: None, on_start=lambda _: None)
        except OSError:  # there is no descriptor for it
            if slot.group is not None and self._groups is not None:
                self._groups.release(slot.group)
            return
        work.announce(slot.pid)
        work.exited(status)

    async def start_app(self, job: AppJob, *, on_output: OnOutput, on_start: OnStart) -> Work:
        """Start one app process. Raises Fault."""
        arguments = list(job.command)
        if not arguments:
            arguments = [str(job.python), "-P", "-m", f"{self._package}.serve"]
            arguments += ["--module", job.module, "--app", job.app]
            if job.bundle is not None:
                arguments += ["--bundle", str(job.bundle)]
        else:
            if "/" not in arguments[0]:
                arguments[0] = _which(arguments[0], job.env)
            if job.secrets:
                arguments = [str(job.python), "-I", "-m", f"{self._package}.command", *arguments]
        # a process that has a table of its own does not see this one
        peer = 0 if self.isolation.mode.namespaces else os.getpid()
        job = replace(job, env={**job.env, "FLYTE_APP_PEER": str(peer)})
        work = self._work(job.limits, on_output=on_output, on_start=on_start)
        try:
            self._spawn(arguments, job=job, work=work)
        except BaseException as error:
            if not work.abandoned:
                self._drop(work)
            if isinstance(error, OSError):
                raise Unavailable("The app could not be started.", cause=str(error)) from error
            raise
        return work

    async def _fork(self, template: Template, *, job: TaskJob, work: Work) -> None:
        with self._handing_over(job, template, work.group) as (message, groups):
            await template.start(work, message, groups=groups)

    @contextmanager
    def _handing_over(
        self, job: TaskJob, template: Template, group: Group | None
    ) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Give a job's folders to a child of a template: its message, and the files of its group, open."""
        temporary = hand_over(job, template.user)
        message = self._message(job, group)
        message["sandbox"] = self.isolation.attempt(
            template.shown, own=own(job), temporary=temporary, memory=job.limits.memory
        )
        groups: list[int] = []
        try:
            for path in () if group is None else group.entries:
                groups += [os.open(path, os.O_WRONLY | os.O_CLOEXEC)]
            yield message, groups
        finally:
            for descriptor in groups:
                os.close(descriptor)

    async def close(self) -> None:
        """Stop everything that was started here, then the templates."""
        self._closed = True
        self._pool.freeze()
        for slot in list(self._slots.values()):
            slot.drop()
        await asyncio.gather(*(work.stop(2.0) for work in list(self._works) if work.pid))
        await self._pool.close()
        await asyncio.gather(*(work.wait() for work in list(self._works) if work.pid))
        if self._groups is not None:
            self._groups.close()

    def _work(self, limits: Limits, *, on_output: OnOutput, on_start: OnStart) -> Work:
        if self._closed:
            raise Unavailable("The server is stopping.")
        group = self._group(limits)
        try:
            return self._hold(limits, group, on_output=on_output, on_start=on_start)
        except OSError as error:
            if group is not None and self._groups is not None:
                self._groups.release(group)
            raise Unavailable("The process could not be started.", cause=str(error)) from error

    def _group(self, limits: Limits) -> Group | None:
        """A fresh group, where this machine has any. Raises Unavailable."""
        if self._groups is None:
            return None
        self._serial += 1
        try:
            return self._groups.make(str(self._serial), limits)
        except OSError as error:
            raise Unavailable("The limits could not be set.", cause=str(error)) from error

    def _hold(self, limits: Limits, group: Group | None, *, on_output: OnOutput, on_start: OnStart) -> Work:
        work = Work(
            on_output=on_output,
            on_start=on_start,
            limit=limits.output,
            groups=self._groups,
            group=group,
            on_end=self._works.discard,
        )
        self._works.add(work)
        return work

    def _drop(self, work: Work) -> None:
        """A work that never got a process."""
        work.drop()
        self._works.discard(work)
        if work.group is not None and self._groups is not None:
            self._groups.release(work.group)

    def _message(self, job: TaskJob, group: Group | None) -> dict[str, Any]:
        grouped = self._groups is not None
        limits = job.limits
        return {
            "op": "start",
            "id": job.id,
            "module": job.module,
            "task": job.task,
            "directory": str(job.directory),
            "agent_socket": str(job.agent_socket),
            "env": dict(job.env),
            "limits": {
                "memory": None if grouped else limits.memory,
                "cpu": None if grouped else limits.cpu,
                "processes": None,  # the rlimit would count all processes of Tower's own user
            },
            "cgroups": 0 if group is None else len(group.entries),
        }

    def _spawn(self, arguments: list[str], *, job: TaskJob | AppJob, work: Work, given: bytes = b"") -> None:
        plan = Plan(groups=tuple(work.group.entries)) if work.group is not None else _own_limits(job.limits)
        user = self.isolation.user()
        temporary = hand_over(job, user)
        shown = self.isolation.program(
            read=[job.python.parent.parent, job.python, job.bundle, *job.needs],
            write=own(job),
            directory=job.directory,
            user=user,
            temporary=temporary,
            memory=job.limits.memory,
            links=job.links if isinstance(job, TaskJob) else {},
        )
        child = Child(
            arguments,
            environment=job.env,
            directory=job.directory,
            plan=replace(plan, sandbox=shown),
            output=work.output.writer,
            on_exit=work.exited,
            given=given,
        )
        try:
            work.running(child.pid)
        except BaseException:  # nobody takes it in
            work.abandon()
            raise


def _own_limits(limits: Limits) -> Plan:
    cpus: tuple[int, ...] = ()
    if limits.cpu:
        cpus = tuple(sorted(os.sched_getaffinity(0)))[: max(1, math.ceil(limits.cpu))]
    return Plan(memory=limits.memory, cpus=cpus)


def _which(program: str, env: Mapping[str, str]) -> str:
    for folder in env.get("PATH", "/usr/bin:/bin").split(":"):
        path = Path(folder, program)
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    raise Unavailable(f"The app's command {program!r} is not in its image.")

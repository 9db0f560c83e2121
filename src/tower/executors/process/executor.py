"""Attempts and apps as processes of this machine."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tower.errors import Unavailable
from tower.executors.port import AppJob, Limits, OnOutput, OnStart, TaskJob
from tower.executors.process.cgroups import Cgroups, Group
from tower.executors.process.child import Child, Plan
from tower.executors.process.folders import Key, entrust, hand_over, key_of, own
from tower.executors.process.isolation import SANDBOX, Isolation, Mode
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
        self._idle_seconds = idle_seconds
        self._largest_pool = largest_pool
        self._templates: dict[Key, Template] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._unsafe: set[tuple[Key, str]] = set()
        self._works: set[Work] = set()
        self._slots: dict[Path, Slot] = {}
        self._reaper: asyncio.TimerHandle | None = None
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
                    await self._fork(self._template(key, job), job=job, work=work)
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
        except asyncio.CancelledError:
            if not work.abandoned:
                self._drop(work)
            raise
        except BaseException:
            self._drop(work)
            raise
        return work

    def prepare(self, job: TaskJob, *, gone: Callable[[bool], None]) -> bool:
        """Have a process wait for an attempt like this one, in its folders; False where none can.

        `job` says what all of the kind have in common; its `env` lacks what is an attempt's own. The one that
        is started with the same `directory` gets the process. `gone` is called when it ended without one,
        with whether another one would fare no better.
        """
        key = key_of(job)
        template = self._templates.get(key)
        if self._closed or template is None or job.command or job.alone or (key, job.module) in self._unsafe:
            return False
        try:
            group = self._group(job.limits)
        except Unavailable:
            return False
        said = False
        with suppress(OSError):
            slot = Slot(job, user=template.user, group=group, left=self._end_slot, gone=gone)
            try:
                said = self._prepare(template, slot)
            finally:
                slot.theirs.close()
                if said:
                    self._slots[job.directory] = slot
                else:
                    slot.drop()
        if not said and group is not None and self._groups is not None:
            self._groups.release(group)
        return said

    def waits(self, directory: Path) -> bool:
        """Whether a process waits there for its attempt."""
        slot = self._slots.get(directory)
        return slot is not None and slot.waits

    def discard(self, directory: Path) -> None:
        """There will be no attempt there."""
        slot = self._slots.get(directory)
        if slot is not None:
            slot.drop()

    def _prepare(self, template: Template, slot: Slot) -> bool:
        job = slot.job
        temporary = hand_over(job, template.user)
        message = self._message(job, slot.group)
        message["sandbox"] = self.isolation.attempt(
            template.shown, own=own(job), temporary=temporary, memory=job.limits.memory
        )
        groups: list[int] = []
        try:
            for path in () if slot.group is None else slot.group.entries:
                groups += [os.open(path, os.O_WRONLY | os.O_CLOEXEC)]
            return template.prepare(slot, message, groups=groups)
        finally:
            for group in groups:
                os.close(group)

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
        except BaseException:
            self._drop(work)
            raise
        return work

    async def _fork(self, template: Template, *, job: TaskJob, work: Work) -> None:
        temporary = hand_over(job, template.user)
        message = self._message(job, work.group)
        message["sandbox"] = self.isolation.attempt(
            template.shown, own=own(job), temporary=temporary, memory=job.limits.memory
        )
        groups: list[int] = []
        try:
            for path in () if work.group is None else work.group.entries:
                groups += [os.open(path, os.O_WRONLY | os.O_CLOEXEC)]
            await template.start(work, message, groups=groups)
        except OSError as error:
            raise Unavailable("The limits could not be set.", cause=str(error)) from error
        finally:
            for group in groups:
                os.close(group)

    async def close(self) -> None:
        """Stop everything that was started here, then the templates."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        for slot in list(self._slots.values()):
            slot.drop()
        await asyncio.gather(*(work.stop(2.0) for work in list(self._works) if work.pid))
        await asyncio.gather(*(template.close() for template in self._templates.values()), *self._leaving)
        await asyncio.gather(*(work.wait() for work in list(self._works) if work.pid))
        self._templates.clear()
        if self._groups is not None:
            self._groups.close()

    def _work(self, limits: Limits, *, on_output: OnOutput, on_start: OnStart) -> Work:
        if self._closed:
            raise Unavailable("The server is stopping.")
        return self._hold(limits, self._group(limits), on_output=on_output, on_start=on_start)

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

    def _template(self, key: Key, job: TaskJob) -> Template:
        template = self._templates.get(key)
        if template is None or not template.alive:
            self._make_room()
            python, bundle, needs, parents = key
            user = self.isolation.user()
            template = Template(
                python,
                bundle,
                environment=_environment(python),
                module=f"{self._package}.worker",
                user=user,
                shown=self.isolation.program(
                    read=[SANDBOX, python.parent.parent, python, bundle, *needs],
                    write=parents,
                    directory=Path("/"),
                    user=user,
                    parent=True,
                ),
            )
            self._templates[key] = template
            self._schedule()
        return template

    def _make_room(self) -> None:
        idle = sorted(
            ((template.used_at, key) for key, template in self._templates.items() if template.idle),
            key=lambda entry: entry[0],
        )
        surplus = len(self._templates) + 1 - self._largest_pool
        for _, key in idle[: max(0, surplus)]:
            self._retire(key)

    def _retire(self, key: Key) -> None:
        task = asyncio.get_running_loop().create_task(self._templates.pop(key).close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _schedule(self) -> None:
        if self._reaper is None and not self._closed:
            self._reaper = asyncio.get_running_loop().call_later(self._idle_seconds / 2, self._reap)

    def _reap(self) -> None:
        self._reaper = None
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        for key, template in list(self._templates.items()):
            if not template.alive:
                del self._templates[key]
            elif template.idle and template.used_at <= oldest:
                self._retire(key)
        if self._templates:
            self._schedule()

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
        work.running(child.pid)


def _own_limits(limits: Limits) -> Plan:
    cpus: tuple[int, ...] = ()
    if limits.cpu:
        cpus = tuple(sorted(os.sched_getaffinity(0)))[: max(1, math.ceil(limits.cpu))]
    return Plan(memory=limits.memory, cpus=cpus)


def _environment(python: Path) -> Mapping[str, str]:
    """What a template process sees: nothing of Tower's own environment."""
    return MappingProxyType(
        {
            "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
        }
    )


def _which(program: str, env: Mapping[str, str]) -> str:
    for folder in env.get("PATH", "/usr/bin:/bin").split(":"):
        path = Path(folder, program)
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    raise Unavailable(f"The app's command {program!r} is not in its image.")

"""The template processes that there are, one for each interpreter, bundle and place; the idle ones end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tower.executors.process.folders import Key
from tower.executors.process.isolation import SANDBOX, Isolation
from tower.executors.process.template import Template


class Pool:
    """Starts templates, and ends those that nobody uses: the idle ones, the longest first."""

    def __init__(self, isolation: Isolation, *, module: str, idle_seconds: float, largest: int) -> None:
        """`module` is the worker's name; beyond `largest` an idle one makes room for a new one."""
        self._isolation = isolation
        self._module = module
        self._idle_seconds = idle_seconds
        self._largest = largest
        self._templates: dict[Key, Template] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def templates(self) -> list[Template]:
        """Those that are not being ended."""
        return list(self._templates.values())

    def find(self, key: Key) -> Template | None:
        """The one that is there."""
        return self._templates.get(key)

    def get(self, key: Key) -> Template:
        """The one that lives, started if need be. Raises Unavailable or OSError when it cannot be."""
        template = self._templates.get(key)
        if template is None or not template.alive:
            self._make_room()
            python, bundle, needs, parents = key
            user = self._isolation.user()
            template = Template(
                python,
                bundle,
                environment=_environment(python),
                module=self._module,
                user=user,
                shown=self._isolation.program(
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

    def reap(self) -> None:
        """End those that were idle for long, and look again later."""
        self._reaper = None
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        for key, template in list(self._templates.items()):
            if not template.alive:
                del self._templates[key]
            elif template.idle and template.used_at <= oldest:
                self._retire(key)
        if self._templates:
            self._schedule()

    def freeze(self) -> None:
        """End none any more until all end."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()

    async def close(self) -> None:
        """End all of them."""
        self.freeze()
        await asyncio.gather(*(template.close() for template in self.templates), *self._leaving)
        self._templates.clear()

    def _make_room(self) -> None:
        idle = sorted(
            ((template.used_at, key) for key, template in self._templates.items() if template.idle),
            key=lambda entry: entry[0],
        )
        surplus = len(self._templates) + 1 - self._largest
        for _, key in idle[: max(0, surplus)]:
            self._retire(key)

    def _retire(self, key: Key) -> None:
        task = asyncio.get_running_loop().create_task(self._templates.pop(key).close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _schedule(self) -> None:
        if self._reaper is None and not self._closed:
            self._reaper = asyncio.get_running_loop().call_later(self._idle_seconds / 2, self.reap)


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

"""The routes of a door of our own making: the table that it dispatches by, and that is checked for rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Handler = TypeVar("Handler")


@dataclass(frozen=True, slots=True)
class Route(Generic[Handler]):
    """One of them. A template is a path, or ends with one part in braces, which stands for the rest of it."""

    method: str
    template: str
    handler: Handler

    def part(self, path: str) -> str | None:
        """What a path has in place of the braces, "" without any; None for a path of another route."""
        fixed, brace, _ = self.template.partition("{")
        if not brace:
            return "" if path == fixed else None
        return path.removeprefix(fixed) if path.startswith(fixed) else None


class Table(Generic[Handler]):
    """What a door serves. What is not in it is not served."""

    def __init__(self, door: str, routes: Sequence[tuple[str, str, Handler]]) -> None:
        self._routes = tuple(Route(*each) for each in routes)
        self.names = tuple(f"{door} {each.method} {each.template}" for each in self._routes)
        """What `tower.policy.actions.check_complete` takes."""

    def find(self, method: str, path: str) -> tuple[Handler, str] | None:
        """Who serves a request, with the part of the path that the braces stand for."""
        for route in self._routes:
            part = route.part(path)
            if part is not None and route.method == method:
                return route.handler, part
        return None

    def methods(self, path: str) -> tuple[str, ...]:
        """Those that a path is served for; none where there is nothing."""
        return tuple(sorted({each.method for each in self._routes if each.part(path) is not None}))

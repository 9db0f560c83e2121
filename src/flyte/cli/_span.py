"""A span of time as an option: 3600, 90m, 12h, 7d."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import rich_click as click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"([0-9]{1,9})([smhd]?)")


class Span(click.ParamType[timedelta]):
    """Seconds without a unit; never nothing."""

    name = "SPAN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The span. Fails with wrong usage."""
        if isinstance(value, timedelta):
            return value
        found = _SPAN.fullmatch(str(value).strip())
        seconds = int(found[1]) * _UNITS[found[2]] if found else 0
        if not seconds:
            self.fail(f"{value!r} is no span of time; write 3600, 90m, 12h or 7d.", param, ctx)
        return timedelta(seconds=seconds)

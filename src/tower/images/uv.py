"""The tool that makes environments, run as a process of its own with a closed environment."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tower.errors import Unavailable

_KEPT_LINES = 60
_LONGEST_LINE = 500
_PASSED = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
    }
)
_OURS_TO_SAY = frozenset(
    {
        "UV_PYTHON",
        "UV_PROJECT",
        "UV_PROJECT_ENVIRONMENT",
        "UV_SYSTEM_PYTHON",
        "UV_TARGET",
        "UV_PREFIX",
        "UV_WORKING_DIRECTORY",
        "UV_CONSTRAINT",
        "UV_OVERRIDE",
        "UV_OFFLINE",
    }
)
_FROM_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its exit code and the last lines of what it said."""

    code: int
    lines: tuple[str, ...]


def environment(own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the tool may know of our environment: where the package index is and how to reach it."""
    passed = {
        name: value
        for name, value in own.items()
        if name in _PASSED or (name.startswith("UV_") and name not in _OURS_TO_SAY)
    }
    for theirs, ours in _FROM_PIP.items():
        if theirs in own and ours not in passed:
            passed[ours] = own[theirs]
    passed.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return passed | {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}


async def run(
    arguments: Sequence[str | Path],
    *,
    directory: Path,
    seconds: float,
    progress: Callable[[str], object] = lambda _: None,
    more: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a program to its end, each line it says given to `progress`. Raises Unavailable after `seconds`.

    When the caller is cancelled the program and all it started are ended first.
    """
    process = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=directory,
        env=environment() | dict(more or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=1 << 20,
    )
    assert process.stdout is not None
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        async with asyncio.timeout(seconds):
            while chunk := await _line(process.stdout):
                line = chunk.decode(errors="replace").strip()[:_LONGEST_LINE]
                if line:
                    lines.append(line)
                    progress(line)
            code = await process.wait()
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, TimeoutError):
            raise Unavailable(
                f"Building the image took longer than {seconds:.0f} seconds.", hint="Try again."
            ) from error
        raise
    return Outcome(code, tuple(lines))


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # longer than any line of the tool
        return await stream.read(1 << 16)

"""The tools that make environments, seeing what they need and nothing else of the machine.

Packages are strangers' work: installing one runs none of its code, but a tool with a fault, or one that may
build packages, must not find Tower's home either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tower.images import uv
from tower.images.uv import Outcome


class Confine(Protocol):
    """Makes the command that runs another one confined; `tower.executors` has it."""

    def __call__(
        self, arguments: Sequence[str], *, read: Iterable[Path], write: Iterable[Path], directory: Path
    ) -> Sequence[str]:
        """The command: the program sees the system, `read`, and `write` to write to."""


class Tools:
    """Runs tools; without a `confine` they see what Tower sees."""

    def __init__(self, confine: Confine | None, *, program: str, seconds: float) -> None:
        """`program` is uv; a tool may take `seconds`."""
        self.program = program
        self._confine = confine
        self._seconds = seconds

    async def run(
        self,
        arguments: Sequence[str | Path],
        *,
        directory: Path,
        read: Iterable[Path] = (),
        write: Iterable[Path] = (),
        progress: Callable[[str], object] = lambda _: None,
    ) -> Outcome:
        """Run a tool to its end; it may write to `directory` and `write`. Raises Unavailable."""
        words = [str(word) for word in arguments]
        if self._confine is None:
            return await uv.run(words, directory=directory, seconds=self._seconds, progress=progress)
        command = self._confine(
            words, read=[Path(words[0]), *read], write=[directory, *write], directory=directory
        )
        # a cache that is seen by a mount of its own cannot be linked to
        more = {"UV_LINK_MODE": "copy"}
        return await uv.run(command, directory=directory, seconds=self._seconds, progress=progress, more=more)

    async def uv(
        self,
        arguments: Sequence[str | Path],
        *,
        directory: Path,
        read: Iterable[Path] = (),
        progress: Callable[[str], object] = lambda _: None,
    ) -> Outcome:
        """Run uv with its cache and with what its settings name."""
        environment = uv.environment()
        cache = _cache(environment)
        write = [] if cache is None else [_made(cache)]
        return await self.run(
            [self.program, *arguments],
            directory=directory,
            read=[*read, *_named(environment)],
            write=write,
            progress=progress,
        )


def _cache(environment: Mapping[str, str]) -> Path | None:
    if text := environment.get("UV_CACHE_DIR"):
        return Path(text)
    if text := environment.get("XDG_CACHE_HOME"):
        return Path(text, "uv")
    home = environment.get("HOME")
    return Path(home, ".cache", "uv") if home else None


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _named(environment: Mapping[str, str]) -> list[Path]:
    """The files and folders that settings point to: certificates, local indexes, credentials for an index."""
    home = environment.get("HOME")
    found = [] if not home else [Path(home, ".config", "uv"), Path(home, ".netrc")]
    for name, value in environment.items():
        # the cache is written to, and what is named for reading too would be mounted over it
        if name.startswith(("UV_", "SSL_")) and name != "UV_CACHE_DIR":
            found += [Path(word.removeprefix("file://")) for word in value.replace(",", " ").split()]
    return [path for path in found if path.is_absolute() and len(path.parts) > 2 and path.exists()]


def installed(python: str) -> tuple[Path, ...]:
    """What an interpreter needs of the place where it was installed."""
    path = Path(python)
    prefix = Path(os.path.realpath(path)).parent.parent
    return (path, *(prefix / name for name in ("lib", "lib64") if (prefix / name).is_dir()))

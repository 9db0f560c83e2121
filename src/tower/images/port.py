"""What an image builder is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

ASK_COMMAND = "tower-ask"
"""Asks the agent for processes of the official SDK: for a token, and for the secrets of a task."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What an image names, in the order that makes its digest.

    It travels as JSON in `container.config["flyte.image"]` with these keys. `base` is "debian" or the URI
    of a base image; `python` a version like "3.11" or "" for the builder's own. `sdk` "" is the SDK of this
    project; "flyte==2.12.1" is the official one instead, with `ASK_COMMAND` beside its interpreter.
    """

    base: str = "debian"
    python: str = ""
    pip_packages: tuple[str, ...] = ()
    apt_packages: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    env_vars: Mapping[str, str] = field(default_factory=dict)
    sdk: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """A ready environment: the interpreter, the variables the image sets, the digest that names it.

    `needs` is what the interpreter reads outside of the environment's own folder.
    """

    digest: str
    python: Path
    env: Mapping[str, str]
    needs: tuple[Path, ...] = ()


Progress = Callable[[str], None]


class Builder(Protocol):
    """Makes environments; a specification is built once, however many ask for it at the same time."""

    async def ready(self, spec: ImageSpec, *, progress: Progress) -> Environment:
        """The environment for a specification, built if need be. Raises Fault naming what failed."""

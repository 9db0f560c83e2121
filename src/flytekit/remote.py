"""`remote.default()`: the control plane as the person whom this code runs as. The rest is `flyte.remote`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flyte.remote

if TYPE_CHECKING:
    from flyte.remote import Remote

__all__ = ["default"]


def default() -> Remote:
    """As `flyte.remote.default`: needs neither a network nor a login until it is used, nor its code."""
    return flyte.remote.default()


def __getattr__(name: str) -> Any:
    return getattr(flyte.remote, name)

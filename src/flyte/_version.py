"""The version of this distribution."""

from __future__ import annotations

import functools


@functools.cache
def version() -> str:
    """The installed version; "0" where the package is used without being installed."""
    from importlib import metadata

    try:
        return metadata.version("flyte-tower")
    except metadata.PackageNotFoundError:
        return "0"

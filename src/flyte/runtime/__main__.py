"""`python -m flyte.runtime` starts nothing: name the part that is meant."""

from __future__ import annotations

import sys

print(  # noqa: T201
    "usage: python -m flyte.runtime.worker | flyte.runtime.task | flyte.runtime.serve", file=sys.stderr
)
sys.exit(2)

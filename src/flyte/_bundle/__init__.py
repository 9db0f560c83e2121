"""The code of a deployment as one archive: which files go in, and the same bytes for the same files."""

from __future__ import annotations

from flyte._bundle.archive import MAX_BUNDLE_BYTES, Bundle, pack
from flyte._bundle.collect import COPY_STYLES, CopyStyle, Selection, collect
from flyte._bundle.ignore import Ignore

__all__ = [
    "COPY_STYLES",
    "MAX_BUNDLE_BYTES",
    "Bundle",
    "CopyStyle",
    "Ignore",
    "Selection",
    "collect",
    "pack",
]

"""Python value <-> literal: one codec per shape, used from annotations or from the wire's own types."""

from __future__ import annotations

from flyte._values.codec import Codec
from flyte._values.faults import MAX_BYTES, MAX_DEPTH, check_size, describe
from flyte._values.python import codec_of
from flyte._values.wire import codec_for

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Codec", "check_size", "codec_for", "codec_of", "describe"]

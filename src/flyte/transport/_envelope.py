"""The bytes of the Connect protocol: messages, envelopes of a stream, error documents. Nothing here does I/O.

Source: https://connectrpc.com/docs/protocol/
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from flyte.errors import FlyteError, ServerError, UnavailableError
from flyte.transport._codes import STATUSES, error_for

M = TypeVar("M", bound=Message)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 256 * 1024
_COMPRESSED, _END = 0x01, 0x02
_PREFIX = struct.Struct(">BI")


def envelope(data: bytes) -> bytes:
    """One message of a stream, with its prefix of flags and length."""
    return _PREFIX.pack(0, len(data)) + data


def inflate(data: bytes, *, limit: int = MAX_MESSAGE_BYTES) -> bytes:
    """Undo gzip, up to `limit` bytes. Raises ServerError for a bomb and for what is not gzip."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise ServerError("The answer of the control plane is damaged.") from error
    if len(plain) > limit:
        raise too_large(limit)
    return plain


def decode(response: type[M], data: bytes) -> M:
    """Parse one message. Raises ServerError."""
    try:
        message: M = response.FromString(data)
    except DecodeError as error:
        raise ServerError(f"The answer is not a {response.DESCRIPTOR.name}.") from error
    return message


def too_large(limit: int) -> FlyteError:
    """The error for an answer above the limit, in bytes."""
    return ServerError(f"The answer of the control plane is larger than {limit // 1024} KiB.")


def error_from(status: int, content_type: str, body: bytes) -> FlyteError:
    """The error that a whole HTTP answer with a status other than 200 stands for."""
    document = _object(body) if content_type.partition(";")[0].strip() == "application/json" else None
    if document is not None and isinstance(document.get("error"), dict):
        document = document["error"]  # the shape of Tower's administration API
    if document is not None and isinstance(document.get("code"), str):
        return _error(document, status=status)
    if 300 <= status < 400:
        return ServerError(
            f"The endpoint answered with a redirection (HTTP {status}), which is never followed.",
            hint="Use the address of the control plane itself as the endpoint.",
        )
    return error_for(
        STATUSES.get(status, "unknown"), "" if status in STATUSES else f"The endpoint answered HTTP {status}."
    )


def _error(document: dict[str, Any], *, status: int = 200) -> FlyteError:
    message = document.get("message")
    hint = document.get("hint")
    text = " ".join(part for part in (message, hint) if part and isinstance(part, str))
    return error_for(str(document.get("code")), text, status=status)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def document(body: bytes) -> Any:
    """The JSON of an answer; None for an empty one. Raises ServerError."""
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServerError("The answer of the control plane is not JSON.") from error


class Unwrapper:
    """Takes a stream apart into messages.

    :ivar ended: whether the end of the stream was announced, and announced as good.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.ended = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The messages that are whole now. Raises the error that an end of stream carries."""
        self._buffer += chunk
        while len(self._buffer) >= _PREFIX.size:
            flags, length = _PREFIX.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise too_large(MAX_MESSAGE_BYTES)
            if len(self._buffer) < _PREFIX.size + length:
                return
            data = bytes(self._buffer[_PREFIX.size : _PREFIX.size + length])
            del self._buffer[: _PREFIX.size + length]
            if flags & _COMPRESSED:
                data = inflate(data)
            if flags & _END:
                self._finish(data)
                return
            yield data

    def close(self) -> None:
        """The connection is over. Raises UnavailableError unless the stream was ended by the server."""
        if not self.ended:
            raise UnavailableError("The connection ended in the middle of an answer.")

    def _finish(self, data: bytes) -> None:
        document = _object(data) or {}
        error = document.get("error")
        if isinstance(error, dict):
            raise _error(error)
        self.ended = True

"""The Connect protocol where the generated code needs help: bounded input, honest decoding errors.

A message that does not decode is the caller's mistake, so its code is INVALID_ARGUMENT; the official client
repeats a call that failed with UNKNOWN or INTERNAL. Nesting is bounded by protobuf itself (100 levels).
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from connectrpc.code import Code
from connectrpc.codec import Codec, proto_binary_codec, proto_json_codec
from connectrpc.errors import ConnectError
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError

from tower.rpc.codes import HTTP

UNARY = frozenset({"application/proto", "application/json"})
STREAM = frozenset({"application/connect+proto", "application/connect+json"})
MOST_PARTS = 10_000
"""Of a message as JSON: objects, lists, and commas in whatever place."""
LONGEST_ANSWER = 512 * 1024
"""The bytes, in binary form, of a message that is answered as JSON."""
SMALL = 1024
"""Messages of fewer bytes are not deflated."""

_ENDPOINT: Any = type(Endpoint.unary(method=None, function=None))  # type: ignore[arg-type]  # it has no public name


class Gzip:
    """Gzip whose output is bounded: a small body that would unpack into a huge one is refused."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def name(self) -> str:
        """As in the headers."""
        return "gzip"

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Compress; a small message is only wrapped, where deflating costs more than it saves."""
        return gzip.compress(data, compresslevel=0 if len(data) < SMALL else 1, mtime=0)

    def decompress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Decompress one member up to the limit."""
        decoder = zlib.decompressobj(wbits=31)
        try:
            result = decoder.decompress(data, self._limit + 1)
        except zlib.error as error:
            raise ConnectError(Code.INVALID_ARGUMENT, "The body is not gzip.") from error
        if len(result) > self._limit:
            raise too_large(self._limit)
        if not decoder.eof or decoder.unused_data:
            raise ConnectError(Code.INVALID_ARGUMENT, "The gzip body is cut off or followed by something.")
        return result


class Strict:
    """A codec that answers INVALID_ARGUMENT for bytes that are not the message."""

    def __init__(self, codec: Codec[Any, Any]) -> None:
        self._codec = codec

    def name(self) -> str:
        """As in the content type."""
        return str(self._codec.name())

    def encode(self, message: Any) -> bytes:
        """Serialise a message."""
        return bytes(self._codec.encode(message))

    def decode(self, data: bytes | bytearray, message: Any) -> Any:
        """Parse a message."""
        try:
            return self._codec.decode(data, message)
        except (DecodeError, ParseError, ValueError, RecursionError) as error:
            name = message.DESCRIPTOR.full_name
            raise ConnectError(Code.INVALID_ARGUMENT, f"The body is not a valid {name}.") from error


class StrictJson(Strict):
    """The same for JSON, which is slow: for some kilobytes of gzip everybody would wait for seconds (T45)."""

    def encode(self, message: Any) -> bytes:
        """Serialise a message."""
        if message.ByteSize() > LONGEST_ANSWER:
            raise ConnectError(
                Code.RESOURCE_EXHAUSTED,
                f"An answer as JSON has at most {LONGEST_ANSWER} bytes. Ask for application/proto.",
            )
        return super().encode(message)

    def decode(self, data: bytes | bytearray, message: Any) -> Any:
        """Parse a message."""
        if sum(map(data.count, (b"{", b"[", b","))) > MOST_PARTS:
            raise ConnectError(
                Code.RESOURCE_EXHAUSTED,
                f"A message as JSON has at most {MOST_PARTS} parts. Send it as application/proto.",
            )
        return super().decode(data, message)


class _StrictApplication(ConnectASGIApplication[Any]):
    """Stands behind the generated class in the order of bases, which offers no argument for codecs."""

    def __init__(
        self, *, service: Any, endpoints: Callable[[Any], Mapping[str, Any]], **options: Any
    ) -> None:
        codecs = [Strict(proto_binary_codec()), StrictJson(proto_json_codec())]
        super().__init__(service=service, endpoints=endpoints, **options, codecs=codecs)
        self.unary = {
            path: Unary(endpoint.method.input, endpoint.function, codecs[0])
            for path, endpoint in endpoints(service).items()
            if isinstance(endpoint, _ENDPOINT)
        }


class Unary:
    """A method with one request and one answer, called without the generated code's way through headers.

    What it does not know (other encodings, other versions) goes that way: see `plain`.
    """

    __slots__ = ("_codec", "_function", "_input")

    def __init__(
        self, input_: type[Any], function: Callable[[Any, Any], Awaitable[Any]], codec: Strict
    ) -> None:
        self._input = input_
        self._function = function
        self._codec = codec

    @staticmethod
    def plain(headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request is of the usual form: binary, version 1, not compressed."""
        timeout = headers.get(b"connect-timeout-ms", b"0")
        return (
            headers.get(b"content-type") == b"application/proto"
            and headers.get(b"content-encoding", b"identity") == b"identity"
            and headers.get(b"connect-protocol-version", b"1") == b"1"
            and timeout.isdigit()
            and len(timeout) <= 10
            and headers.get(b"accept-encoding", b"").isascii()
        )

    async def call(self, body: bytes) -> bytes:
        """The answer to a request, both as bytes. Raises ConnectError and whatever the method raises."""
        return self._codec.encode(await self._function(self._codec.decode(body, self._input()), None))


Application = _StrictApplication


def application(
    generated: type[Any], service: object, *, interceptors: Iterable[object], limit: int
) -> Application:
    """The generated ASGI application of a service, with strict codecs and messages up to `limit` bytes."""
    # the stub of a service need not load its descriptor, which the chain lists the methods from
    import_module(generated.__module__.removesuffix("_connect") + "_pb2")
    strict = type(generated.__name__, (generated, _StrictApplication), {"path": generated.path})
    made: Application = strict(
        service, interceptors=interceptors, read_max_bytes=limit, compressions=[Gzip(limit)]
    )
    return made


def too_large(limit: int) -> ConnectError:
    """The refusal of a body over the limit."""
    return ConnectError(Code.RESOURCE_EXHAUSTED, f"The message is larger than {limit} bytes.")


def answer(error: ConnectError, *, stream: bool, content_type: str) -> tuple[int, str, bytes]:
    """Status, content type and body of a refusal made before the generated application is reached.

    A stream's error travels in its last envelope under status 200, as the protocol has it.
    """
    content = {"code": error.code.value, "message": error.message}
    if not stream:
        return HTTP[error.code], "application/json", json.dumps(content).encode()
    body = json.dumps({"error": content}).encode()
    return 200, content_type, struct.pack(">BI", 0b10, len(body)) + body

"""A small client of the Connect protocol: calls and server streams over HTTP/1.1, to one endpoint.

It never follows a redirection, never retries a refused credential, and repeats a request only when the server
cannot have acted on it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpcore
from google.protobuf.message import Message

from flyte import _config
from flyte.errors import (
    DeadlineExceededError,
    FlyteError,
    ServerError,
    UnavailableError,
    UntrustedServerError,
    UploadError,
)
from flyte.transport import _envelope
from flyte.transport._pool import Answer, Pools

if TYPE_CHECKING:
    from flyte.transport.credentials import Header

M = TypeVar("M", bound=Message)
T = TypeVar("T")

UPLOAD_SECONDS = 300.0
_JSON_SECONDS = 60.0
MAX_ATTEMPTS = 4
_COMPRESS_FROM_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_USER_AGENT = b"flyte-tower/1 connect-python"


def backoff(attempt: int) -> float:
    """Seconds to wait after a failed attempt, the first being 0."""
    return float(min(0.2 * 2**attempt, 5.0) * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load, no secret


class _Failure(Exception):
    """A request that got no answer, and whether the server may have seen it."""

    def __init__(self, error: FlyteError, *, sent: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.sent = sent


class Connect:
    """Requests to one endpoint.

    :ivar server: what the server called itself in its last `x-tower` header; None for other servers, and
        before the first answer.
    :ivar answered: whether there was an answer.
    """

    def __init__(
        self,
        endpoint: _config.Endpoint,
        *,
        uds: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.server: str | None = None
        self.answered = False
        self._uds = uds
        # The agent's socket is on this machine and carries plain HTTP, also where the endpoint has TLS.
        self._base = endpoint.url if uds is None else f"http://{endpoint.authority}"
        self._ca_file = ca_file
        self._pools = Pools(uds=uds, ca_file=ca_file)
        self._outside: Pools | None = None

    async def unary(
        self,
        path: str,
        request: Message,
        response: type[M],
        *,
        headers: Iterable[Header],
        repeatable: bool,
        seconds: float | None,
    ) -> M:
        """One call. `repeatable` allows further attempts when no answer came. Raises FlyteError."""
        body = request.SerializeToString()
        sent = [
            (b"content-type", b"application/proto"),
            (b"accept", b"application/proto"),
            (b"accept-encoding", b"gzip"),
            *_common(headers),
        ]
        if seconds is not None:
            sent.append((b"connect-timeout-ms", str(int(seconds * 1000)).encode()))
        if len(body) >= _COMPRESS_FROM_BYTES:
            body = gzip.compress(body, 1)
            sent.append((b"content-encoding", b"gzip"))
        return await self._attempts(
            lambda: self._call(path, sent, body, response, seconds), repeatable=repeatable
        )

    async def json(
        self, method: str, path: str, body: Any, *, headers: Iterable[Header], repeatable: bool
    ) -> Any:
        """One request with JSON both ways. Raises FlyteError."""
        sent = [(b"accept", b"application/json"), (b"user-agent", _USER_AGENT), *headers]
        content = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            sent.append((b"content-type", b"application/json"))
        return await self._attempts(lambda: self._json(method, path, sent, content), repeatable=repeatable)

    async def _json(self, method: str, path: str, headers: Sequence[Header], content: bytes) -> Any:
        status, fields, raw = await self._exchange(
            self._pools, method, self._url(path), headers, content, _JSON_SECONDS
        )
        if 200 <= status < 300:
            return _envelope.document(raw)
        raise _envelope.error_from(status, fields.get(b"content-type", b"").decode("latin-1"), raw)

    async def _attempts(self, call: Callable[[], Awaitable[T]], *, repeatable: bool) -> T:
        """Call until there is an answer, as often as that is safe. What was refused is not asked again."""
        attempt = 0
        while True:
            try:
                return await call()
            except (_Failure, UnavailableError) as failure:
                error, seen = (
                    (failure.error, failure.sent) if isinstance(failure, _Failure) else (failure, True)
                )
                if attempt + 1 >= MAX_ATTEMPTS or not _passing(error) or (seen and not repeatable):
                    raise error from failure.__cause__
            await asyncio.sleep(backoff(attempt))
            attempt += 1

    async def _call(
        self, path: str, headers: Sequence[Header], body: bytes, response: type[M], seconds: float | None
    ) -> M:
        status, fields, raw = await self._exchange(
            self._pools, "POST", self._url(path), headers, body, seconds
        )
        content_type = fields.get(b"content-type", b"").decode("latin-1")
        if status != 200:
            raise _envelope.error_from(status, content_type, raw)
        if content_type.partition(";")[0].strip() != "application/proto":
            raise ServerError(
                f"{self.endpoint} did not answer as a Flyte control plane does.",
                hint="Check the endpoint: this looks like another web server.",
            )
        return _envelope.decode(response, raw)

    async def stream(
        self, path: str, request: Message, response: type[M], *, headers: Iterable[Header]
    ) -> AsyncGenerator[M, None]:
        """The messages of a server stream, as they come. Raises FlyteError.

        The start is tried again while the server cannot be reached; a stream that breaks later stays broken.
        """
        sent = [
            (b"content-type", b"application/connect+proto"),
            (b"connect-accept-encoding", b"gzip"),
            *_common(headers),
        ]
        body = _envelope.envelope(request.SerializeToString())
        attempt, begun = 0, False
        while True:
            try:
                async with contextlib.aclosing(self._frames(path, sent, body)) as frames:
                    async for data in frames:
                        begun = True
                        yield _envelope.decode(response, data)
                return
            except (UnavailableError, _Failure) as failure:
                error = failure.error if isinstance(failure, _Failure) else failure
                if begun or attempt + 1 >= MAX_ATTEMPTS or not _passing(error):
                    raise error from failure.__cause__
            await asyncio.sleep(backoff(attempt))
            attempt += 1

    async def _frames(self, path: str, headers: Sequence[Header], body: bytes) -> AsyncGenerator[bytes, None]:
        unwrapper = _envelope.Unwrapper()
        try:
            async with self._pools.request(
                "stream", "POST", self._url(path), headers=headers, content=body, read_seconds=None
            ) as answer:
                fields = self._fields(answer)
                content_type = fields.get(b"content-type", b"").decode("latin-1")
                if answer.status != 200 or not content_type.startswith("application/connect+proto"):
                    raw = await _read(answer, _envelope.MAX_ERROR_BYTES)
                    raise _envelope.error_from(answer.status, content_type, raw)
                async for chunk in answer.aiter_stream():
                    for data in unwrapper.feed(chunk):
                        yield data
                    if unwrapper.ended:
                        return
                unwrapper.close()
        except _HTTP_ERRORS as error:
            raise self._failure(error) from error

    async def put(
        self,
        url: str,
        body: bytes,
        *,
        headers: Sequence[Header] = (),
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Send `body` to a signed address, without any credential. Raises UploadError and UnavailableError.

        The address may be relative, on the endpoint itself, or anywhere over TLS.
        """
        pools, target = self._destination(url)
        own = pools is self._pools
        sent = [
            *(header for header in headers if header[0].lower() not in (b"content-length", b"host")),
            (b"content-length", str(len(body)).encode()),
            (b"user-agent", _USER_AGENT),
            *(_agent_header(self._uds) if own else ()),
        ]
        attempt = 0
        while True:
            try:
                status, _, raw = await self._exchange(
                    pools,
                    "PUT",
                    target,
                    sent,
                    _chunks(body, None if attempt else progress),
                    UPLOAD_SECONDS,
                )
            except _Failure as failure:
                if attempt + 1 >= MAX_ATTEMPTS:
                    raise failure.error from failure.__cause__
            else:
                if 200 <= status < 300:
                    return
                if status not in (429, 500, 502, 503, 504) or attempt + 1 >= MAX_ATTEMPTS:
                    reason = raw[:200].decode("utf-8", "replace")
                    raise UploadError(f"The store refused the upload with HTTP {status}: {reason}")
            await asyncio.sleep(backoff(attempt))
            attempt += 1

    async def aclose(self) -> None:
        """Close the connections that belong to the running loop."""
        await self._pools.aclose()
        if self._outside is not None:
            await self._outside.aclose()

    def _destination(self, url: str) -> tuple[Pools, str]:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        if not parts.scheme and not parts.netloc and path.startswith("/"):
            return self._pools, self._base + path
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise UploadError("The control plane named an address for the upload that is not one.")
        place = _config.Endpoint(parts.scheme, parts.hostname, parts.port)
        if place.same_place(self.endpoint):
            return self._pools, self._base + path
        if parts.scheme == "http" and self.endpoint.scheme == "https":
            raise UploadError(f"The upload would go to {place.url} in clear; it was not sent.")
        if self._outside is None:
            self._outside = Pools(ca_file=self._ca_file)
        return self._outside, url

    def _url(self, path: str) -> str:
        return self._base + path

    def _fields(self, answer: Answer) -> dict[bytes, bytes]:
        fields = {name.lower(): value for name, value in answer.headers}
        self.answered = True
        # Kept once seen: an answer of a proxy in front of the server does not have it.
        self.server = fields.get(b"x-tower", b"").decode("latin-1") or self.server
        return fields

    async def _exchange(  # noqa: PLR0917 - one request has this many parts
        self,
        pools: Pools,
        method: str,
        url: str,
        headers: Sequence[Header],
        body: bytes | AsyncIterator[bytes],
        seconds: float | None,
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """One request and its whole answer. Raises _Failure when there is none."""
        try:
            async with pools.request(
                "unary", method, url, headers=headers, content=body, read_seconds=seconds
            ) as answer:
                fields = self._fields(answer)
                limit = _envelope.MAX_MESSAGE_BYTES if answer.status == 200 else _envelope.MAX_ERROR_BYTES
                raw = await _read(answer, limit)
                if fields.get(b"content-encoding", b"identity") == b"gzip":
                    raw = _envelope.inflate(raw, limit=limit)
                return answer.status, fields, raw
        except _HTTP_ERRORS as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> _Failure:
        """What an error of the HTTP library means, and whether the request may have arrived."""
        place = self.endpoint.url
        match error:
            case httpcore.ReadTimeout():
                return _Failure(DeadlineExceededError(f"{place} did not answer in time."), sent=True)
            case httpcore.ConnectError() | httpcore.ConnectTimeout() | httpcore.PoolTimeout() | OSError():
                return _Failure(unreachable(place, error), sent=False)
            case httpcore.LocalProtocolError() | httpcore.UnsupportedProtocol():
                return _Failure(ServerError("The request cannot be sent over HTTP."), sent=False)
            case _:
                hint = "If the server speaks TLS, write https://." if place.startswith("http:") else ""
                return _Failure(UnavailableError(f"The connection to {place} broke.", hint=hint), sent=True)


def _passing(error: FlyteError) -> bool:
    """Whether the same request may fare better in a moment."""
    return isinstance(error, UnavailableError) and not isinstance(error, DeadlineExceededError)


_HTTP_ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    OSError,
)


def unreachable(place: str, error: Exception) -> FlyteError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UntrustedServerError(
            f"The certificate of {place} is not trusted: {cause.verify_message}.",
            hint="Name the file of its certificate authority by ca_file= or FLYTE_CA_FILE.",
        )
    if isinstance(cause, ssl.SSLError):
        return UntrustedServerError(
            f"{place} does not speak TLS.",
            hint="If plain HTTP is meant, say insecure=True, or http:// on this machine.",
        )
    return UnavailableError(
        f"{place} cannot be reached.", hint="Check the endpoint, and that the control plane is running."
    )


def _common(headers: Iterable[Header]) -> tuple[Header, ...]:
    return ((b"connect-protocol-version", b"1"), (b"user-agent", _USER_AGENT), *headers)


def _agent_header(uds: str | None) -> tuple[Header, ...]:
    return ((b"x-flyte-agent", b"1"),) if uds is not None else ()


async def _read(answer: Answer, limit: int) -> bytes:
    received = bytearray()
    async for chunk in answer.aiter_stream():
        received += chunk
        if len(received) > limit:
            raise _envelope.too_large(limit)
    return bytes(received)


async def _chunks(body: bytes, progress: Callable[[int], None] | None) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _CHUNK_BYTES):
        chunk = body[start : start + _CHUNK_BYTES]
        yield chunk
        if progress is not None:
            progress(len(chunk))

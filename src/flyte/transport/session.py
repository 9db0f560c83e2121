"""A session: one endpoint, one kind of credential, and the defaults that calls start from."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from flyte import _config, _context
from flyte.errors import InitializationError, UnauthenticatedError
from flyte.transport.credentials import Credentials, Header, Mode, Renewable

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from flyte.transport.connect import Connect

M = TypeVar("M", bound="Message")
T = TypeVar("T")

CALL_SECONDS = 120.0


class InsecureTransportWarning(UserWarning):
    """Credentials travel to another machine in clear, because `insecure=True` asked for it."""


class Session:
    """What every remote call goes through. Made by `flyte.init` and its relatives; safe to share.

    :ivar settings: where it points, and its defaults.
    :ivar credentials: who its calls are made as.
    """

    def __init__(
        self, settings: _config.Settings, credentials: Credentials, *, socket: str | None = None
    ) -> None:
        self.settings = settings
        self.credentials = credentials
        self._socket = socket
        self._connect: Connect | None = None
        self._warned = False

    @property
    def endpoint(self) -> _config.Endpoint:
        """The endpoint's public name."""
        return self.settings.endpoint

    @property
    def console_url(self) -> str:
        """Where people look, without a slash at the end."""
        return self.settings.endpoint.url

    @property
    def org(self) -> str:
        """The organisation, empty where there is none."""
        return self.settings.org

    @property
    def project(self) -> str | None:
        """The default project."""
        return self.settings.project

    @property
    def domain(self) -> str | None:
        """The default domain."""
        return self.settings.domain

    @property
    def mode(self) -> Mode:
        """What kind of credential its calls carry."""
        return self.credentials.mode

    @property
    def socket(self) -> str | None:
        """The path of the agent's socket that its requests go over, or None."""
        return self._socket

    @property
    def is_tower(self) -> bool:
        """Whether the server has called itself Tower in an answer to this session."""
        return self._connect is not None and self._connect.server is not None

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered this session at all."""
        return self._connect is not None and self._connect.answered

    def fingerprint(self) -> str:
        """Tells callers apart in cache keys. Raises UnauthenticatedError when there is no caller."""
        return self.credentials.fingerprint()

    def scope(self, project: str | None = None, domain: str | None = None) -> tuple[str, str]:
        """Project and domain of a call: what it names, else the defaults. Raises InitializationError."""
        chosen = project or self.settings.project, domain or self.settings.domain
        if chosen[0] is None or chosen[1] is None:
            missing = "project" if chosen[0] is None else "domain"
            raise InitializationError(
                f"No {missing} is named, and the session has no default.",
                hint=f"Pass {missing}=..., here or to flyte.init.",
            )
        return chosen[0], chosen[1]

    async def unary(
        self,
        path: str,
        request: Message,
        response: type[M],
        *,
        idempotent: bool = False,
        deduplicated: bool = False,
        request_id: str | None = None,
        seconds: float | None = CALL_SECONDS,
    ) -> M:
        """Make one call, as the caller of this moment. Raises FlyteError.

        :param path: `/<package>.<Service>/<Method>`.
        :param idempotent: the method may be repeated when no answer came.
        :param deduplicated: the server knows a repetition by its request id.
        :param seconds: how long to wait for the answer; None waits for ever.
        """
        repeatable = idempotent or deduplicated
        return await self._as_caller(
            lambda headers: self._client().unary(
                path, request, response, headers=headers, repeatable=repeatable, seconds=seconds
            ),
            request_id,
        )

    def stream(self, path: str, request: Message, response: type[M]) -> AsyncGenerator[M, None]:
        """The messages of a server stream, as the caller of this moment, however long it lasts."""
        if isinstance(self.credentials, Renewable):
            return self._stream_of_login(self.credentials, path, request, response)
        return self._client().stream(path, request, response, headers=self._headers(None))

    async def _stream_of_login(
        self, login: Renewable, path: str, request: Message, response: type[M]
    ) -> AsyncGenerator[M, None]:
        await login.ready()
        for again in (True, False):
            headers = self._headers(None)
            begun = False
            try:
                async with aclosing(self._client().stream(path, request, response, headers=headers)) as items:
                    async for item in items:
                        begun = True
                        yield item
                return
            except UnauthenticatedError:
                if begun or not again or not await login.renew():
                    raise

    async def json(self, method: str, path: str, body: Any = None, *, idempotent: bool = False) -> Any:
        """Make one request of the JSON interface, as the caller of this moment. Raises FlyteError.

        :param method: `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
        :param path: the path on the endpoint, with its query.
        :param body: what goes into the request as JSON; None sends no body.
        :return: the answer's document; None for an empty answer.
        """
        repeatable = idempotent or method == "GET"
        return await self._as_caller(
            lambda headers: self._client().json(method, path, body, headers=headers, repeatable=repeatable),
            None,
        )

    async def put(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Upload to a signed address, which needs no credential and gets none. Raises UploadError.

        :param progress: is told the number of bytes of each piece after it was sent.
        """
        pairs = tuple((name.encode(), value.encode()) for name, value in (headers or {}).items())
        await self._client().put(url, body, headers=pairs, progress=progress)

    async def aclose(self) -> None:
        """Close the connections that belong to the running loop. The session stays usable."""
        if self._connect is not None:
            await self._connect.aclose()

    async def _as_caller(
        self, call: Callable[[tuple[Header, ...]], Awaitable[T]], request_id: str | None
    ) -> T:
        """Call; where the credential is a login that the server refused, once more with a renewed one."""
        login = self.credentials if isinstance(self.credentials, Renewable) else None
        if login is None:
            return await call(self._headers(request_id))
        await login.ready()
        request_id = request_id or new_request_id()
        try:
            return await call(self._headers(request_id))
        except UnauthenticatedError:
            if not await login.renew():
                raise
        return await call(self._headers(request_id))

    def _headers(self, request_id: str | None) -> tuple[Header, ...]:
        named = self.credentials.headers()
        if named and not self._warned:
            self._warned = True
            self._warn()
        agent: tuple[Header, ...] = ((b"x-flyte-agent", b"1"),) if self._socket is not None else ()
        return ((b"x-request-id", (request_id or new_request_id()).encode()), *agent, *named)

    def _warn(self) -> None:
        if self._socket is None and self.endpoint.scheme == "http" and not self.endpoint.is_loopback:
            warnings.warn(
                f"Credentials are sent to {self.endpoint.url} in clear, because insecure=True asks for it.",
                InsecureTransportWarning,
                stacklevel=4,
            )

    def _client(self) -> Connect:
        if self._connect is None:
            from flyte.transport.connect import Connect

            self._connect = Connect(self.endpoint, uds=self._socket, ca_file=self.settings.ca_file)
        return self._connect

    def __repr__(self) -> str:
        return f"<Session {self.endpoint.url} {self.mode}>"


def new_request_id() -> str:
    """A name for one logical call; the same for all its attempts."""
    context = _context.task()
    unique = uuid.uuid4().hex
    if context is None:
        return unique
    return f"{context.run}-{context.action}-{unique}"[:128]

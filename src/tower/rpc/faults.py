"""Around every service method: faults become Connect errors, and a lost client ends its stream."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import structlog
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from tower.errors import Code as Class
from tower.errors import Fault, retry_after
from tower.rpc.codes import broken, connect_error

_log = structlog.get_logger("tower.rpc")

RENEW_SECONDS = 15.0
"""How long a silent stream may live on an authentication; before each message it is renewed anyway."""


@dataclass(slots=True)
class Exchange:
    """What the chain and the interceptor share about one RPC."""

    method: str
    request_id: str
    renew: Callable[[], Awaitable[None]] | None = None
    """Raises Unauthenticated when the caller is no longer who they were; only while a stream is open."""
    fault: str = ""
    left: bool = False
    wait: str = ""
    """The value of the header `retry-after` of a refusal."""
    _waiter: asyncio.Event | None = None

    def leave(self) -> None:
        """The client is gone."""
        self.left = True
        if self._waiter is not None:
            self._waiter.set()

    async def gone(self) -> None:
        """Wait until the client is gone."""
        self._waiter = asyncio.Event()
        if not self.left:
            await self._waiter.wait()


exchange: ContextVar[Exchange] = ContextVar("tower_rpc_exchange")


def public(error: Exception, *, method: str, request_id: str) -> ConnectError:
    """What the caller sees of an exception. The cause of a bug goes to the log under a reference id."""
    if isinstance(error, ConnectError):
        return error
    reference = secrets.token_hex(6)
    if isinstance(error, Fault) and error.code is not Class.INTERNAL:
        if error.cause:
            _log.info("fault", method=method, request_id=request_id, code=error.code, cause=error.cause)
        return connect_error(error, reference=reference)
    cause = error.cause if isinstance(error, Fault) else ""
    _log.error(
        "broken", method=method, request_id=request_id, reference=reference, cause=cause, exc_info=error
    )
    return broken(reference)


class Faults:
    """The interceptor that every service is wrapped in."""

    async def intercept_unary(
        self, call_next: Callable[[Any, Any], Awaitable[Any]], request: Any, ctx: Any
    ) -> Any:
        """One request, one answer."""
        try:
            return await call_next(request, ctx)
        except Exception as error:  # noqa: BLE001  (the boundary: nothing private may pass it)
            raise self._translate(error) from None

    async def intercept_server_stream(
        self, call_next: Callable[[Any, Any], AsyncIterator[Any]], request: Any, ctx: Any
    ) -> AsyncIterator[Any]:
        """One request, many answers; each only for a caller whose credential still holds."""
        state = exchange.get()
        assert state.renew is not None
        gone = asyncio.ensure_future(state.gone())
        stream: AsyncIterator[Any] | None = None
        step: asyncio.Future[Any] | None = None
        try:
            stream = call_next(request, ctx)
            while True:
                if step is None:
                    step = asyncio.ensure_future(anext(stream))
                await asyncio.wait({step, gone}, timeout=RENEW_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    if gone.done():
                        raise ConnectError(Code.CANCELED, "The client is gone.")
                    await state.renew()
                    continue
                try:
                    message = step.result()
                except StopAsyncIteration:
                    return
                step = None
                await state.renew()
                yield message
        except Exception as error:  # noqa: BLE001  (the boundary: nothing private may pass it)
            raise self._translate(error) from None
        finally:
            gone.cancel()
            if step is not None and not step.done():
                step.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                    await step
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()

    @staticmethod
    def _translate(error: Exception) -> ConnectError:
        state = exchange.get()
        translated = public(error, method=state.method, request_id=state.request_id)
        state.fault, state.wait = translated.code.value, retry_after(error)
        return translated

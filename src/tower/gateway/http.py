"""Forwarding of one HTTP request: both bodies stream, back-pressure holds, who hangs up cancels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from yarl import URL

from tower.errors import Fault, Unavailable
from tower.gateway.answers import BadAnswer, Receive, Send, TimedOut, TooLarge, Unreachable
from tower.gateway.headers import first
from tower.gateway.passage import Gone, HungUp, Passage
from tower.gateway.upstream import Upstreams


class Exchange:
    """One request and its answer."""

    def __init__(self, passage: Passage, *, receive: Receive, send: Send, limit: int, recheck: float) -> None:
        self._passage = passage
        self._receive = receive
        self._send = send
        self._limit = limit
        self._recheck = recheck
        self._uploaded = asyncio.Event()
        self._failed: Fault | None = None
        self.size = 0
        """Bytes of the request's body so far."""
        self._hung = False
        self.started = False

    async def run(self, upstreams: Upstreams, socket: Path, *, method: str) -> None:
        """Forward and answer. Raises a Fault while nothing was answered yet, Gone when nobody listens."""
        relay = asyncio.ensure_future(self._relay(upstreams, socket, method))
        gone = asyncio.ensure_future(self._hung_up())
        try:
            while not relay.done():
                await asyncio.wait({relay, gone}, timeout=self._recheck, return_when=asyncio.FIRST_COMPLETED)
                if relay.done():
                    break
                if gone.done():
                    raise self._left()
                if not await self._passage.holds():
                    raise Gone
            await relay
        finally:
            for task in (relay, gone):
                task.cancel()
            await asyncio.gather(relay, gone, return_exceptions=True)

    async def _relay(self, upstreams: Upstreams, socket: Path, method: str) -> None:
        passage = self._passage
        session = await upstreams.session(socket)
        url = URL(f"http://app{passage.target.line}", encoded=True)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in passage.request_headers()
        ]
        try:
            async with asyncio.timeout(passage.place.request_timeout) as patience:
                response = await session.request(
                    method, url, headers=headers, data=self._body(), allow_redirects=False
                )
                patience.reschedule(None)
                async with response:
                    await self._answer(response)
        except aiohttp.ClientConnectorError as error:
            await upstreams.forget(socket)
            raise Unreachable("The app is not answering at the moment.", cause=str(error)) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise Unavailable("The app has too many open requests.", hint="Try again in a moment.") from error
        except (aiohttp.ClientError, ValueError) as error:
            if self._hung:
                raise self._left() from error
            if self._failed is not None:
                raise self._failed from error
            raise BadAnswer("The app broke off or gave no proper answer.", cause=repr(error)) from error
        except TimeoutError as error:
            raise TimedOut("The app did not answer in time.") from error

    async def _answer(self, response: aiohttp.ClientResponse) -> None:
        if not 200 <= response.status <= 599:
            raise BadAnswer("The app gave no proper answer.", cause=f"status {response.status}")
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": self._passage.response_headers(response.raw_headers),
            }
        )
        content = response.content
        while True:
            chunk = await content.readany()
            # the last piece and the end go out together where the end is known already
            more = bool(chunk) and not content.at_eof()
            await self._send({"type": "http.response.body", "body": chunk, "more_body": more})
            if not more:
                return

    def _body(self) -> AsyncIterator[bytes] | None:
        """The request's body as it comes in, or None when the request has none."""
        inbound = self._passage.inbound
        length = first(inbound, b"content-length")
        if length is None and first(inbound, b"transfer-encoding") is None:
            self._uploaded.set()
            return None
        if length is not None and int(length) > self._limit:
            raise self._too_large()
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._hung = True
                raise aiohttp.ClientConnectionError("the client hung up")
            chunk: bytes = message.get("body", b"")
            self.size += len(chunk)
            if self.size > self._limit:
                self._failed = self._too_large()
                raise aiohttp.ClientPayloadError("too large")
            more = message.get("more_body", False)
            if chunk:
                yield chunk
        self._uploaded.set()

    async def _hung_up(self) -> None:
        await self._uploaded.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _left(self) -> Gone:
        return Gone() if self.started else HungUp(self.size)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body of the request is larger than {self._limit} bytes.")

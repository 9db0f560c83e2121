"""From a request that was let through to its app and back, and the record of whom nobody answers any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from tower.control.access import Access
from tower.control.apps import Processes
from tower.errors import Fault
from tower.gateway.answers import Receive, Scope, Send, Unreachable
from tower.gateway.metrics import REQUESTS
from tower.gateway.passage import Gone, HungUp, Passage
from tower.gateway.shares import Shares, caller
from tower.policy.actions import Action

if TYPE_CHECKING:
    from tower.gateway.forwarding import Forwarding

log = structlog.get_logger("tower.gateway")


class Carrier:
    """Carries requests to apps. One for a gateway."""

    def __init__(
        self, *, processes: Processes, access: Access, limit: int, wake_seconds: float, recheck_seconds: float
    ) -> None:
        """`limit`: bytes of a request; an app may take `wake_seconds` to start."""
        self._processes = processes
        self._access = access
        self._limit = limit
        self._wake_seconds = wake_seconds
        self._recheck_seconds = recheck_seconds
        self._forwarding: Forwarding | None = None
        self._shares = Shares()

    async def close(self) -> None:
        """Close the connections to the apps."""
        if self._forwarding is not None:
            await self._forwarding.close()

    async def carry(
        self, passage: Passage, scope: Scope, receive: Receive, send: Send, *, method: str
    ) -> None:
        """Forward it to its app, which is started if need be, and the answer back. Raises Fault, Gone."""
        place = passage.place
        key = (place.project, place.domain, place.name)
        forwarding = self._towards_apps()
        share = self._shares.taking(place.id, caller(passage), what="requests at this app")
        with share, self._processes.serving(*key):
            for again in (False, True):
                socket = await self._processes.wake(*key, self._wake_seconds)
                leg = forwarding.leg(passage, scope=scope, receive=receive, send=send)
                try:
                    await forwarding.run(leg, socket, method=method)
                    break
                except Unreachable:
                    if again:  # the process ended since it was asked for, and so did the next one
                        raise
                except HungUp as left:
                    await self._left(passage, method, left.size)
                    raise
                except Gone:
                    raise
                except asyncio.CancelledError:
                    if not leg.started:
                        await self._left(passage, method, leg.size)
                    raise
                except Fault as fault:
                    if not leg.started:
                        raise
                    log.info("gateway.cut", app=place.id, request_id=passage.request_id, cause=fault.cause)
                    raise Gone from fault
                except Exception as error:
                    if not leg.started:
                        raise
                    log.exception("gateway.broken", app=place.id, request_id=passage.request_id)
                    raise Gone from error
        REQUESTS["forwarded"].inc()

    async def _left(self, passage: Passage, method: str, size: int) -> None:
        """Whoever called went away before the app began to answer: put it on record."""
        if passage.principal is not None:
            await self._access.gave_up(
                passage.principal,
                Action.APP_USE,
                resource=passage.place.resource,
                request_id=passage.request_id,
                detail={"method": method, "bytes": str(size)},
            )

    def _towards_apps(self) -> Forwarding:
        if self._forwarding is None:
            # not at the top of this file: the HTTP client is megabytes that a Tower without apps never needs
            from tower.gateway.forwarding import Forwarding

            self._forwarding = Forwarding(limit=self._limit, recheck=self._recheck_seconds)
        return self._forwarding

"""The one token of an attempt: got for the ticket, renewed before it expires, dropped at the end."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from tower.agent.metrics import EXPIRES, RENEWALS
from tower.agent.upstream import BrokenOffError, Upstream
from tower.clock import Clock
from tower.possession import PROOF_HEADER, TOKEN_PATH, Half, public_key, text_of

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_RENEW_PART = 0.5
"""A token is renewed when so much of its life is over."""

_MARGIN = 5.0
_LARGEST = 65_536
_TARGET = TOKEN_PATH.encode()
log = structlog.get_logger("tower.agent")


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the agent is launched with; Tower's half of the agreement comes with the ticket."""

    attempt: str
    ticket: str = field(repr=False)
    tower_key: str


class RefusedError(Exception):
    """Tower gives no token, and says why; with `over` it never will again."""

    def __init__(self, message: str, *, over: bool) -> None:
        super().__init__(message)
        self.over = over


class Keeper:
    """Holds the token and the key that it is bound to; neither ever leaves this process but to Tower."""

    def __init__(self, assignment: Assignment, upstream: Upstream, *, clock: Clock) -> None:
        """Raises ValueError for a key that is none."""
        self._assignment = assignment
        self._upstream = upstream
        self._clock = clock
        self._half = Half.generate()
        self._secret = self._half.agree(self._half.public, public_key(assignment.tower_key))
        self._number = 0
        self._token = ""
        self._ends = self._fresh_until = 0.0
        self._over = ""
        self._renewing: asyncio.Task[None] | None = None
        EXPIRES.set_function(lambda: max(0.0, self._ends - self._clock.now()))

    @property
    def over(self) -> str:
        """Why there never will be a token again, or ""."""
        return self._over

    @property
    def left(self) -> float:
        """Seconds that the token in hand still holds."""
        return max(0.0, self._ends - self._clock.now()) if self._token else 0.0

    @property
    def fresh(self) -> str:
        """The token while it needs no renewal, else ""."""
        return self._token if self._clock.now() < self._fresh_until else ""

    async def begin(self, *, patience: float) -> None:
        """Exchange the ticket; Tower may need `patience` seconds. Raises RefusedError, OSError."""
        asked = {"ticket": self._assignment.ticket, "key": text_of(self._half.public)}
        deadline = asyncio.get_running_loop().time() + patience
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._ask(asked)
            except (OSError, BrokenOffError) as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise OSError("Tower cannot be reached") from error
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return

    async def token(self) -> str:
        """A token that holds. Raises RefusedError, and OSError or BrokenOffError when Tower is not there."""
        if self._over:
            raise RefusedError(self._over, over=True)
        if self.fresh:
            return self.fresh
        renewing = self._renew()
        if not self._token or self._clock.now() >= self._ends - _MARGIN:
            await asyncio.shield(renewing)
        return self._token

    def spoil(self, token: str) -> None:
        """Tower refused this token: get another one before the next call."""
        if token == self._token:
            self._ends = self._fresh_until = self._clock.now()

    def end(self) -> None:
        """The run is over: forget token and key."""
        self._over = self._over or "This attempt is over, and its identity with it."
        self._token, self._ends, self._fresh_until = "", 0.0, 0.0

    def prove(self, method: str, target: bytes, token: str, *, body: bytes = b"") -> bytes:
        """The header that goes with one call."""
        self._number += 1
        at = int(self._clock.now() * 1000)
        proof = self._secret.prove(
            method=method, target=target, token=token, at=at, number=self._number, body=body
        )
        return str(proof).encode()

    async def keep(self) -> None:
        """Renew in time, also while no task calls, until it is over."""
        pause = _FIRST_PAUSE
        while not self._over:
            wait = self._fresh_until - self._clock.now()
            if wait > 0:
                await asyncio.sleep(min(wait, 60.0))
                pause = _FIRST_PAUSE
                continue
            with suppress(RefusedError, OSError, BrokenOffError):
                await asyncio.shield(self._renew())
                continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _renew(self) -> asyncio.Task[None]:
        """One renewal at a time, however many calls wait for it."""
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(
                self._ask({"attempt": self._assignment.attempt})
            )
            self._renewing.add_done_callback(_seen)
        return self._renewing

    async def _ask(self, asked: dict[str, str]) -> None:
        body = json.dumps(asked).encode()
        try:
            status, answer = await self._post(body)
        except (OSError, BrokenOffError):
            RENEWALS["unreachable"].inc()
            raise
        if status != 200:
            RENEWALS["refused"].inc()
            message, over = _refusal(answer)
            if status >= 500:
                raise OSError(f"Tower answered {status}")
            log.warning("token refused", reason=message, final=over)
            if over:
                self._over = message
                self._token, self._ends, self._fresh_until = "", 0.0, 0.0
            raise RefusedError(message, over=over)
        given = json.loads(answer)
        if not self._over:
            self._token = str(given["token"])
            now, self._ends = self._clock.now(), float(given["expires_at"])
            self._fresh_until = now + (self._ends - now) * _RENEW_PART
        RENEWALS["renewed"].inc()

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        connection = await self._upstream.connection()
        try:
            headers = [
                (b"host", self._upstream.authority),
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (PROOF_HEADER, self.prove("POST", _TARGET, "", body=body)),
            ]
            connection.ask(b"POST", _TARGET, headers, body)
            await connection.head()
            answer = b""
            while chunk := await connection.chunk():
                answer += chunk
                if len(answer) > _LARGEST:
                    raise BrokenOffError
        except BaseException:
            connection.abort()
            raise
        connection.done()
        return connection.status, answer


def _refusal(answer: bytes) -> tuple[str, bool]:
    try:
        said = json.loads(answer)
        return str(said["message"]), bool(said.get("over"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "Tower gave no token.", False


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # who waited has it; a renewal in the background may have nobody waiting

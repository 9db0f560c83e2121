"""Ask the control plane who a credential belongs to, before a handler runs."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from flyte import errors
from flyte._context import caller_scope

from ._extract import Pair
from ._refusal import Refusal

MAX_REMEMBERED = 4096


class Verifier:
    """Remembers, for a few seconds, which credentials the control plane knew. Failures are not remembered.

    The memory holds digests, never a credential, and at most `MAX_REMEMBERED` of them.

    :param ttl: seconds for which an answer holds.
    :param clock: seconds that only grow.
    """

    def __init__(self, *, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._clock = clock
        self._known: OrderedDict[bytes, float] = OrderedDict()

    async def check(self, pairs: tuple[Pair, ...]) -> None:
        """Return when the control plane knows the caller.

        :raises Refusal: 401 unknown, 403 known but not allowed, 503 cannot be asked.
        :raises InitializationError: when `flyte.init_passthrough` was not called: an error of the app.
        """
        key = _digest(pairs)
        until = self._known.get(key)
        if until is not None and self._clock() < until:
            return
        await _ask(pairs)
        self._known[key] = self._clock() + self._ttl
        self._known.move_to_end(key)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


async def _ask(pairs: tuple[Pair, ...]) -> None:
    from flyte.remote import User

    try:
        with caller_scope(pairs):
            await User.get.aio()
    except errors.InitializationError:
        raise
    except errors.PermissionDeniedError:
        raise Refusal.forbidden() from None
    except (errors.UnavailableError, errors.ServerError, errors.ResourceExhaustedError):
        raise Refusal.unavailable() from None
    except errors.FlyteError:
        raise Refusal.invalid() from None


def _digest(pairs: tuple[Pair, ...]) -> bytes:
    """One digest per list of pairs: lengths first, so that no two lists run together."""
    digest = hashlib.sha256()
    for pair in pairs:
        for text in pair:
            data = text.encode()
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()

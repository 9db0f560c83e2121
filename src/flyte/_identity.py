"""Showing somebody outside whom a running task acts for."""

from __future__ import annotations

from flyte import _context
from flyte._init import ambient_session
from flyte._syncify import syncify
from flyte.errors import NotInTaskError

_PATH = "/api/v1/workload/identity-token"


@syncify
async def identity_token(audience: str) -> str:
    """An OpenID Connect token about this run, for one audience: who it acts for, which task, which code.

    ::

        token = flyte.identity_token("https://vault.example.com")

    It is a signed JWT that holds for ten minutes at most; the audience verifies it with the keys that the
    control plane publishes. Ask for one where it is needed and do not keep it: it can be asked for again as
    long as the task runs. In an event loop: `await flyte.identity_token.aio(...)`.

    :param audience: what the other side expects as `aud`, often its URL.
    :raises NotInTaskError: outside of a running task; an app acts for its callers and has no identity.
    :raises PermissionDeniedError: a policy forbids this audience.
    :raises RemoteUsageError: that is no audience, or it is the control plane itself.
    :raises ResourceExhaustedError: this run asks too often.
    """
    session = ambient_session()
    if session is None or _context.task() is None:
        raise NotInTaskError
    answer = await session.json("POST", _PATH, {"audience": audience})
    token: str = answer["token"]
    return token

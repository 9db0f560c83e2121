"""Caller metadata: the headers of whoever asked this process, to be passed on with each call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flyte import _context
from flyte.transport.credentials import check_pairs


def auth_metadata(*pairs: tuple[str, str]) -> contextlib.AbstractContextManager[None]:
    """Make every call inside the block as the caller that these headers name.

    ::

        with flyte.remote.auth_metadata(("authorization", request.headers.get("authorization"))):
            run = await flyte.run.aio(task, x=42)

    The block holds for its own asyncio task, and for the tasks and worker threads started inside. Nested
    blocks replace each other; the outer one is in force again afterwards. Needs `flyte.init_passthrough`:
    under another session a call in the block raises, because it would be made as somebody else.

    :param pairs: names and values of headers. Names are `authorization`, `cookie` or `x-…`, in any case.
    :raises ValueError: no pair, a name that is not allowed or given twice, a value no header may have.
    :raises MissingCallerError: a value is None or empty: there is no caller.
    """
    return _context.caller_scope(check_pairs(pairs))


def get_auth_metadata() -> tuple[tuple[str, str], ...]:
    """The headers in force, names in lower case; empty outside of every block."""
    return _context.caller() or ()


@contextlib.contextmanager
def without_auth_metadata() -> Iterator[None]:
    """No caller inside the block: calls in it are refused before anything is sent."""
    with _context.caller_scope(None):
        yield

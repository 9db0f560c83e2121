"""T31: what holds a credential in a program is neither printed nor pickled: nothing keeps it by accident."""

from __future__ import annotations

import copy
import pickle
import secrets
from collections.abc import Callable

import pytest

from flyte import _config
from flyte.transport.credentials import ApiKey, Static
from flyte.transport.login.cache import Entry
from flyte.transport.session import Session

CANARY = f"twr_aaaaaaaaaaaa_{secrets.token_urlsafe(32)}"


def _session() -> Session:
    settings = _config.resolve(endpoint="http://127.0.0.1:1", insecure=True)
    return Session(settings, Static(CANARY))


HOLDERS: dict[str, Callable[[], object]] = {
    "a key": lambda: ApiKey.parse(CANARY),
    "a credential": lambda: Static(CANARY),
    "a login": lambda: Entry("http://127.0.0.1:1", "alice", access_token=CANARY, key=CANARY),
    "a session": _session,
    "what has a session": lambda: {"kept": [_session()]},
}


@pytest.mark.parametrize("what", HOLDERS)
def test_t31_a_credential_is_not_written_down(what: str) -> None:
    held = HOLDERS[what]()
    assert CANARY not in f"{held!r} {held}"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(held, protocol)
    with pytest.raises(TypeError):
        copy.deepcopy(held)

"""`flyte.remote.Secret` against a server: as whom the call is made, in a webhook as its caller."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from tests.tower_process import Tower

from flyte import remote
from flyte._init import open_session, use_session
from flyte._syncify import syncify
from flyte.errors import (
    AlreadyExistsError,
    MissingCallerError,
    PermissionDeniedError,
    RemoteSecretNotFoundError,
    RemoteUsageError,
)

PLACE = {"project": "flytesnacks", "domain": "development"}


@pytest.fixture
def name() -> str:
    return f"secret-{secrets.token_hex(4)}"


@pytest.fixture
def passing(tower: Tower) -> Iterator[None]:
    """A process that acts for its callers, as a webhook does."""
    session = open_session(endpoint=tower.url, auth_type="Passthrough", **PLACE)
    with use_session(session):
        yield
    syncify(session.aclose)()


def key(tower: Tower, who: str) -> tuple[str, str]:
    text = (tower.home / "admin-key").read_text().strip() if who == "admin" else tower.keys[who]
    return "authorization", f"Bearer {text}"


def test_each_caller_has_what_they_may(tower: Tower, passing: None, name: str) -> None:
    with pytest.raises(MissingCallerError):
        remote.Secret.get(name)
    with remote.auth_metadata(key(tower, "admin")):
        remote.Secret.create(name, "a value that stays there")
        with pytest.raises(AlreadyExistsError):
            remote.Secret.create(name, b"another")
        remote.Secret.create(name, b"\x00\xff", project="flytesnacks")
        remote.Secret.create(name, "of everybody", project="")
    with remote.auth_metadata(key(tower, "alice")):
        found = remote.Secret.get(name)
        assert (found.name, found.project, found.domain) == (name, *PLACE.values())
        assert found.created_at is not None
        assert "a value" not in str(found.to_dict()) + str(found.pb2) + repr(found)
        assert name in {each.name for each in remote.Secret.listall()}
        assert len(list(remote.Secret.listall(limit=1))) == 1
        for change in (lambda: remote.Secret.create(f"{name}-2", "x"), lambda: remote.Secret.delete(name)):
            with pytest.raises(PermissionDeniedError):
                change()
        with pytest.raises(RemoteSecretNotFoundError):
            remote.Secret.get(name, project="")
    with remote.auth_metadata(key(tower, "carol")):
        assert list(remote.Secret.listall()) == []
        with pytest.raises(RemoteSecretNotFoundError):
            remote.Secret.get(name)
    with remote.auth_metadata(key(tower, "admin")):
        for place in ({}, {"project": "flytesnacks"}, {"project": ""}):
            remote.Secret.delete(name, **place)
        with pytest.raises(RemoteSecretNotFoundError):
            remote.Secret.delete(name)


async def test_in_a_loop(tower: Tower, passing: None, name: str) -> None:
    with remote.auth_metadata(key(tower, "admin")):
        await remote.Secret.create.aio(name, "value")
        listed = [each.name async for each in remote.Secret.listall.aio()]
        assert name in listed
        await remote.Secret.delete.aio(name)
        with pytest.raises(RemoteUsageError):
            await remote.Secret.create.aio("../x", "value")

"""A run that a delivery of a third party asked for: it ends with the webhook, behind the app's token too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select
from tests.grounds_world import Grounds
from tests.rpc_world import DOMAIN, PROJECT, RpcWorld

from tower.control import webhooks as use_case
from tower.control.webhooks import Webhooks
from tower.errors import NotFound
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Actor, ActorKind, Credential, CredentialKind, Kind, Principal
from tower.identity.signing import SigningKey
from tower.identity.webhooks import Scheme
from tower.store import webhooks as store
from tower.store.schema_audit import audit

PLACE = (PROJECT, DOMAIN, "hooks")
SENTENCE = "The webhook that this run was asked for by was deleted or replaced."


class Hooks:
    """Two webhooks of an app, and the runs of their deliveries."""

    def __init__(self, grounds: Grounds, monkeypatch: pytest.MonkeyPatch) -> None:
        self.grounds = grounds
        world = grounds.world
        monkeypatch.setattr(use_case, "_check_app", lambda *_: None)  # nobody deployed the app
        self.room = Webhooks(
            db=world.db, access=world.access, directory=world.directory, key=SigningKey.generate()
        )
        self.changes = 0
        world.directory.changed = self._changed

    def _changed(self) -> None:
        self.changes += 1

    async def put(self, path: str = "/one", subject: str = "alice") -> str:
        """Map a path; the public id of the webhook."""
        secret = "a secret that is long enough"
        row = await self.room.set(MACHINE, PLACE, path, scheme=Scheme.HMAC, secret=secret, subject=subject)
        return row.id

    async def delete(self) -> None:
        await self.room.delete(MACHINE, PLACE, "/one")

    def caller(self, webhook: str, subject: str = "alice") -> Principal:
        """Whom the app's token of a delivery stands for."""
        return Principal(
            subject=subject,
            kind=Kind.USER,
            name=subject,
            credential=Credential(CredentialKind.APP_TOKEN, "token", attested=True, parent=webhook),
            actors=(Actor(ActorKind.APP, "/".join(PLACE)),),
        )

    async def records(self, event: str) -> list[Any]:
        """What the audit says of an event, oldest first."""
        query = select(audit.c.detail).where(audit.c.event == event).order_by(audit.c.seq)
        return await self.grounds.world.db.read(lambda reader: list(reader.execute(query).scalars()))


@pytest.fixture
async def hooks(rpc: RpcWorld, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    return Hooks(await Grounds.opened(rpc), monkeypatch)


async def replace(hooks: Hooks) -> None:
    await hooks.put()


async def replace_by_another(hooks: Hooks) -> None:
    await hooks.put(subject="bob")


async def delete(hooks: Hooks) -> None:
    await hooks.delete()


ENDS = [replace, replace_by_another, delete]


@pytest.mark.parametrize("end", ENDS)
async def test_its_runs_and_what_they_asked_for_end_with_it(
    hooks: Hooks, end: Callable[[Hooks], Awaitable[None]]
) -> None:
    grounds, gone = hooks.grounds, hooks.grounds.world.standing.gone
    caller = hooks.caller(await hooks.put())
    task = await grounds.lease(await grounds.asked(caller))
    child = await grounds.child(task)
    below = await grounds.lease(await grounds.asked(await grounds.call(task)))
    waiting = await grounds.asked(caller)
    for each in (task, child, below):
        assert (await grounds.call(each)).subject == "alice"
        assert await gone(each.id) == ""
    changes = hooks.changes

    await end(hooks)

    for each in (task, child, below):
        await grounds.refusal(each)
        assert await gone(each.id) == SENTENCE
    assert "the webhook that was used for it does not hold any more" in await grounds.starts(waiting)
    assert hooks.changes > changes, "nobody was told to look again"


@pytest.mark.parametrize("end", ENDS)
async def test_others_go_on(hooks: Hooks, end: Callable[[Hooks], Awaitable[None]]) -> None:
    """Runs of another path of the app, and what the same person asked for by themselves."""
    grounds, gone = hooks.grounds, hooks.grounds.world.standing.gone
    await hooks.put()
    other = await grounds.lease(await grounds.asked(hooks.caller(await hooks.put("/two"))))
    own = await grounds.lease(await grounds.asked("alice"))

    await end(hooks)

    for each in (other, own):
        assert (await grounds.call(each)).subject == "alice"
        assert await gone(each.id) == ""


async def test_a_webhook_that_is_new_ends_nothing_and_needs_no_second_look(hooks: Hooks) -> None:
    changes = hooks.changes
    await hooks.put()
    assert hooks.changes == changes


async def test_the_sentence_is_about_the_webhook_only_where_that_is_what_ended(hooks: Hooks) -> None:
    grounds = hooks.grounds
    task = await grounds.lease(await grounds.asked(hooks.caller(await hooks.put())))
    await grounds.world.identities.set_disabled(MACHINE, "alice", disabled=True)
    assert "account or the key" in await grounds.world.standing.gone(task.id)


async def test_the_record_of_a_replacement_names_what_it_ended(hooks: Hooks) -> None:
    first = await hooks.put()
    second = await hooks.put()
    await hooks.delete()
    updates = await hooks.records("webhook.update")
    assert [first in each for each in updates] == [True, True]
    assert "replaces" not in updates[0]
    assert second in updates[1]
    (deleted,) = await hooks.records("webhook.delete")
    assert second in deleted


async def test_a_replacement_that_is_refused_ends_nothing(hooks: Hooks) -> None:
    grounds = hooks.grounds
    first = await hooks.put()
    task = await grounds.lease(await grounds.asked(hooks.caller(first)))
    changes = hooks.changes

    with pytest.raises(NotFound):
        await hooks.put(subject="nobody")

    assert (await grounds.call(task)).subject == "alice"
    row = await grounds.world.db.read(lambda reader: store.at(reader, *PLACE, "/one"))
    assert (row and row.id, hooks.changes) == (first, changes)

"""Webhooks of third parties: who may deliver to which path of which app, and as whom the app then acts.

The secret is kept sealed with a key that is not in the database, and is shown to nobody. A delivery works
once. Who may map a webhook to a service can act as that service through the app, so it takes the right to.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tower.audit import Event
from tower.clock import ALPHABET
from tower.control import appspecs, keysofwork
from tower.control.access import Access, not_found
from tower.control.directory import Directory
from tower.control.webhookspecs import check_path
from tower.errors import Broken, Denied, Invalid, Precondition
from tower.identity import webhooks as signing
from tower.identity.principal import Credential, CredentialKind, Kind, Principal
from tower.identity.signing import SigningKey
from tower.identity.webhooks import Scheme, Shown
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.store import apps, identities
from tower.store import webhooks as store
from tower.store.database import Database, Reader, Transaction
from tower.store.webhooks import WebhookRow

__all__ = ["Delivery", "WebhookRow", "Webhooks"]

MAX_SENDERS = 1000
_NONCE = 12


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery whose signature held: whom it runs as, and what it is remembered by."""

    principal: Principal
    webhook: WebhookRow
    digests: tuple[bytes, ...] = field(repr=False)
    remember_seconds: float


class Webhooks:
    """The use-cases of `/api/v1/webhooks`, and what the gateway asks about a delivery."""

    def __init__(self, *, db: Database, access: Access, directory: Directory, key: SigningKey) -> None:
        """Secrets are sealed with a key derived from `key`."""
        self._db = db
        self._access = access
        self._directory = directory
        self._seal = AESGCM(key.derive("webhook secrets"))

    async def set(
        self,
        principal: Principal,
        place: tuple[str, str, str],
        path: str,
        *,
        scheme: Scheme,
        secret: str,
        subject: str = "",
        senders: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> WebhookRow:
        """Let a third party deliver to a path that the app declares, in place of what held before.

        What held before ends with all that its deliveries asked for, as by `delete`. Nothing of what was
        delivered is let through again, here as after a `delete`.

        `place` is the app's project, domain and name. A delivery runs as the subject that `senders` has for
        its sender, else as `subject`, else as nobody. Needs `app:manage` on the app, and for each of them the
        right to act as that service or to manage users.
        """
        app = _resource(place)
        check_path(path)
        people = dict(senders or {})
        _check_mapping(subject, people)
        try:
            data = signing.check_secret(scheme, secret)
        except ValueError as error:
            raise Invalid(f"The secret has to be {error}.") from None
        decision = await self._access.require(
            principal, Action.APP_MANAGE, app, request_id=request_id, view=Action.APP_VIEW
        )
        for name in sorted({*people.values(), subject} - {""}):
            decision = decision.also(await self._may_act_as(principal, name, request_id=request_id))

        def write(tx: Transaction) -> WebhookRow:
            _check_app(tx, place, path, scheme)
            for name in {*people.values(), subject} - {""}:
                if identities.user(tx, name) is None:
                    raise not_found(Resource(ResourceType.USER, name=name[:127]))
            row = WebhookRow(
                *place,
                path=path,
                id=signing.ID_PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(16)),
                scheme=scheme.value,
                secret=self._sealed(data, place, path),
                subject=subject,
                senders=people,
                created_at=tx.now,
                created_by=principal.subject,
            )
            before = store.at(tx, *place, path)
            store.put(tx, row)
            if before is not None:
                tx.after_commit(self._access.forget)  # whoever acts for one of its deliveries looks again
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.WEBHOOK_UPDATE,
                request_id=request_id,
                detail={
                    "webhook": row.id,
                    "path": path,
                    "scheme": row.scheme,
                    "as": subject,
                    "senders": len(people),
                    **({"replaces": before.id} if before is not None else {}),
                },
            )
            return row

        return await self._db.write(write)

    async def listed(self, principal: Principal, *, request_id: str = "") -> list[WebhookRow]:
        """Those of every app that the caller may manage. The secrets in the rows are sealed."""
        rows = await self._db.read(store.everything)
        return [
            row
            for row in rows
            if (await self._access.check(principal, Action.APP_MANAGE, _resource(_place(row)))).allowed
        ]

    async def delete(
        self, principal: Principal, place: tuple[str, str, str], path: str, *, request_id: str = ""
    ) -> None:
        """End a webhook: nothing is let through by it, and what its deliveries handed out ends too.

        Their runs act for nobody from their next call on, and their processes are stopped.
        """
        app = _resource(place)
        decision = await self._access.require(
            principal, Action.APP_MANAGE, app, request_id=request_id, view=Action.APP_VIEW
        )

        def write(tx: Transaction) -> None:
            row = store.at(tx, *place, path)
            if row is None:
                raise not_found(app)
            store.remove(tx, *place, path)
            tx.after_commit(self._access.forget)
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.WEBHOOK_DELETE,
                request_id=request_id,
                detail={"webhook": row.id, "path": path},
            )

        await self._db.write(write)

    def verify(self, place: tuple[str, str, str], path: str, shown: Shown, body: bytes) -> Delivery:
        """Whom a delivery runs as. Raises Unauthenticated, and Denied for a sender that is nobody here."""
        row = self._db.read_now(lambda reader: store.at(reader, *place, path))
        if row is None or row.scheme != shown.scheme:
            # as much work as for one that exists, and the same answer
            signing.verify(shown, os.urandom(32), body)
            raise signing.refused("no such webhook")
        digests = signing.verify(shown, self._opened(row), body)
        subject = row.senders.get(signing.sender(shown.scheme, body), row.subject)
        person = self._db.read_now(lambda reader: identities.user(reader, subject)) if subject else None
        if person is None or person.disabled_at is not None:
            raise Denied(
                "The sender of the webhook is nobody here.", hint="Map the sender: tower webhooks set."
            )
        principal = Principal(
            subject=person.subject,
            kind=Kind(person.kind),
            name=person.name,
            email=person.email,
            credential=Credential(CredentialKind.WEBHOOK, row.id),
        )
        return Delivery(principal, row, digests, shown.remember_seconds)

    async def take(self, delivery: Delivery) -> None:
        """Note that a delivery is let through now. Raises Unauthenticated for one that was before."""

        def write(tx: Transaction) -> None:
            if store.by_id(tx, delivery.webhook.id) is None:
                raise signing.refused("replaced meanwhile")
            for digest in delivery.digests:
                if not store.add_delivery(tx, delivery.webhook, digest, tx.now + delivery.remember_seconds):
                    raise signing.refused("delivered before")

        await self._db.write(write)

    async def give_back(self, delivery: Delivery) -> None:
        """Undo `take`: the app could not be reached or failed, and the third party may deliver again."""

        def write(tx: Transaction) -> None:
            for digest in delivery.digests:
                store.forget_delivery(tx, delivery.webhook, digest)

        await self._db.write(write)

    async def holds(self, principal: Principal) -> bool:
        """Whether the webhook that a delivery came by still runs as this subject."""
        return await self._directory.alive(CredentialKind.WEBHOOK, principal.credential.id, principal.subject)

    async def _may_act_as(self, principal: Principal, subject: str, *, request_id: str) -> Decision:
        resource = Resource(ResourceType.USER, name=subject[:127])
        decision = await self._access.check(principal, Action.ACT_AS, resource)
        if decision.allowed:
            return decision
        decision = await self._access.require(principal, Action.USER_MANAGE, resource, request_id=request_id)
        await keysofwork.no_login(self._access, principal, decision, request_id=request_id)
        return decision

    def _sealed(self, secret: bytes, place: tuple[str, str, str], path: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._seal.encrypt(nonce, secret, _context(place, path))

    def _opened(self, row: WebhookRow) -> bytes:
        try:
            return self._seal.decrypt(
                row.secret[:_NONCE], row.secret[_NONCE:], _context(_place(row), row.path)
            )
        except InvalidTag as error:
            raise Broken("The secret of a webhook cannot be read.", cause=row.id) from error


def _context(place: tuple[str, str, str], path: str) -> bytes:
    """What a sealed secret is bound to: moved to another row it opens nothing."""
    return "\0".join((*place, path)).encode()


def _place(row: WebhookRow) -> tuple[str, str, str]:
    return row.project, row.domain, row.app


def _resource(place: tuple[str, str, str]) -> Resource:
    project, domain, name = place
    return Resource(ResourceType.APP, project=project, domain=domain, name=name)


def _check_mapping(subject: str, senders: Mapping[str, str]) -> None:
    if not subject and not senders:
        raise Invalid("A webhook runs as somebody.", hint="Name a service, or a user for each sender.")
    if len(senders) > MAX_SENDERS or not all(
        0 < len(name) <= 200 and name.isprintable() and user for name, user in senders.items()
    ):
        raise Invalid(f"A webhook has at most {MAX_SENDERS} senders, each with a user.")


def _check_app(reader: Reader, place: tuple[str, str, str], path: str, scheme: Scheme) -> None:
    row = apps.get(reader, *place)
    if row is None:
        raise not_found(_resource(place))
    if appspecs.webhooks(row).get(path) is not scheme:
        raise Precondition(
            f"The app {row.name} declares no webhook {path} with the scheme {scheme}.",
            hint="Deploy it with webhooks=[flyte.app.Webhook(path, scheme)].",
        )

"""Built-in accounts: setting a password, and signing in with it.

Every way of being wrong has one answer and costs the same: an unknown name, a wrong password, an account that
is disabled, has no password or is a program (T36). Who guesses too often waits, account or no account.
"""

from __future__ import annotations

import asyncio

from tower.audit import Event
from tower.clock import Clock
from tower.control import keysofwork
from tower.control.access import Access, not_found
from tower.control.directory import Directory
from tower.control.identities import user_resource
from tower.control.logins import Logins, SignedIn
from tower.errors import Denied, Exhausted, Precondition, Unauthenticated
from tower.identity import passwords
from tower.identity.attempts import Attempts
from tower.identity.principal import Credential, CredentialKind, Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.store import identities as store
from tower.store import oauth
from tower.store.database import Database, Transaction

_LONGEST_NAME = 127
_HASHES_AT_ONCE = 2
_HASHES_WAITING = 64
_ORG = Resource(ResourceType.ORG)


class Accounts:
    """The use-cases of the login page and of `/api/v1/users/{name}/password`."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        directory: Directory,
        logins: Logins,
        attempts: Attempts | None = None,
    ) -> None:
        self._db = db
        self._access = access
        self._directory = directory
        self._logins = logins
        self._attempts = Attempts(clock=clock) if attempts is None else attempts
        self._slots = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._waiting = 0

    async def set_password(
        self, principal: Principal, subject: str, password: str, *, request_id: str = ""
    ) -> None:
        """Give a person a password. Ends their sessions and logins. Needs `user:manage`."""
        decision = await self._manage(principal, subject, request_id)
        await keysofwork.no_login(self._access, principal, decision, request_id=request_id)
        passwords.check_strength(password, subject=subject)
        hashed = await self._hash(password)
        await self._db.write(
            lambda tx: self._store(tx, principal, decision, subject, hashed, request_id=request_id)
        )

    async def delete_password(self, principal: Principal, subject: str, *, request_id: str = "") -> None:
        """Take a person's password away, and end their sessions and logins. Needs `user:manage`."""
        decision = await self._manage(principal, subject, request_id)

        def write(tx: Transaction) -> None:
            if not oauth.delete_password(tx, subject):
                raise not_found(user_resource(subject))
            ended = oauth.end_everything(tx, subject, tx.now)
            detail = {"user": subject, "logins": len(ended)}
            self._access.record(
                tx, principal, decision, event=Event.PASSWORD_DELETE, request_id=request_id, detail=detail
            )
            tx.after_commit(self._directory.forget)

        await self._db.write(write)

    async def end_logins(self, principal: Principal, subject: str, *, request_id: str = "") -> int:
        """End the sessions and logins of a person, keys left alone; how many logins. Needs `user:manage`."""
        decision = await self._manage(principal, subject, request_id)

        def write(tx: Transaction) -> int:
            if store.user(tx, subject) is None:
                raise not_found(user_resource(subject))
            ended = oauth.end_everything(tx, subject, tx.now)
            detail = {"user": subject, "logins": len(ended)}
            self._access.record(
                tx, principal, decision, event=Event.LOGIN_REVOKE, request_id=request_id, detail=detail
            )
            tx.after_commit(self._directory.forget)
            return len(ended)

        return await self._db.write(write)

    async def change_password(
        self, principal: Principal, *, current: str, new: str, source: str, request_id: str = ""
    ) -> None:
        """Change the caller's own password. Their other sessions and all their logins end."""
        if principal.credential.kind is not CredentialKind.SESSION:
            raise Denied("A password is changed by its person, signed in.", hint="Use the console.")
        stored = await self._guess(principal.subject, current, source=source, request_id=request_id)
        assert stored is not None
        passwords.check_strength(new, subject=principal.subject)
        hashed = await self._hash(new)
        decision = self._known("everyone-knows-themselves")
        keep = principal.credential.id
        await self._db.write(
            lambda tx: self._store(
                tx, principal, decision, principal.subject, hashed, keep=keep, request_id=request_id
            )
        )

    async def sign_in(
        self, name: str, password: str, *, host: str, source: str, request_id: str = ""
    ) -> SignedIn:
        """Open a session for `host`. Raises Unauthenticated, and Exhausted for who guesses too often.

        `source` is the address of the caller's connection, never one that a header names (T11).
        """
        name = name if name.isprintable() and len(name) <= _LONGEST_NAME else ""  # the name of nobody
        stored = await self._guess(name, password, source=source, request_id=request_id)
        renewed = await self._hash(password) if passwords.outdated(stored) else None

        def write(tx: Transaction) -> SignedIn:
            person = store.user(tx, name)
            # looked at again: the account may have changed while the hash was computed
            if person is None or person.disabled_at is not None or oauth.password(tx, name) != stored:
                raise _wrong()
            if renewed is not None:
                oauth.rehash_password(tx, name, old=stored, new=renewed)
            return self._logins.begin(tx, person, host=host, how="password", request_id=request_id)

        return await self._db.write(write)

    async def _guess(self, name: str, password: str, *, source: str, request_id: str) -> str:
        """The stored hash, when the password is right and its person may sign in."""
        self._attempts.begin(account=name, source=source)
        stored, able = await self._db.read(
            lambda reader: (oauth.password(reader, name), store.user(reader, name))
        )
        usable = stored if able is not None and able.disabled_at is None and able.kind == Kind.USER else None
        if not await self._verify(password, usable) or usable is None:
            # the name of an account that does not exist may be a password in the wrong field
            detail = {"user": able.subject if able is not None else "", "source": source}
            anybody = Principal("anonymous", Kind.USER, "", Credential(CredentialKind.SESSION, ""))
            decision = Decision(
                False, ("password",), self._access.revision, Action.SELF_VIEW.value, str(_ORG)
            )
            await self._access.refuse(
                anybody, decision, event=Event.AUTH_REFUSE, request_id=request_id, detail=detail
            )
            raise _wrong()
        self._attempts.succeeded(account=name, source=source)
        return usable

    def _store(
        self,
        tx: Transaction,
        principal: Principal,
        decision: Decision,
        subject: str,
        hashed: str,
        *,
        keep: str = "",
        request_id: str,
    ) -> None:
        person = store.user(tx, subject)
        if person is None:
            raise not_found(user_resource(subject))
        if person.kind != Kind.USER:
            raise Precondition(f"{subject} is a program.", hint="Programs have API keys: tower keys create.")
        oauth.set_password(tx, subject, hashed, at=tx.now, by=principal.subject)
        ended = oauth.end_everything(tx, subject, tx.now, but_session=keep)
        detail = {"user": subject, "logins": len(ended)}
        self._access.record(
            tx, principal, decision, event=Event.PASSWORD_SET, request_id=request_id, detail=detail
        )
        tx.after_commit(self._directory.forget)

    async def _manage(self, principal: Principal, subject: str, request_id: str) -> Decision:
        return await self._access.require(
            principal, Action.USER_MANAGE, user_resource(subject), request_id=request_id
        )

    def _known(self, policy: str) -> Decision:
        return Decision(True, (policy,), self._access.revision, Action.SELF_VIEW.value, str(_ORG))

    async def _hash(self, password: str) -> str:
        async with self._slots:
            return await asyncio.to_thread(passwords.hash_password, password)

    async def _verify(self, password: str, stored: str | None) -> bool:
        """One at a time and few waiting: each takes 64 MiB and a core's twentieth of a second (T45)."""
        if self._waiting >= _HASHES_WAITING:
            raise Exhausted("Too many people sign in at once.", hint="Try again in a moment.", wait=2.0)
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(passwords.verify, password, stored)
        finally:
            self._waiting -= 1


def _wrong() -> Unauthenticated:
    return Unauthenticated("The name or the password is wrong.", hint="")

"""Users and their roles: made, listed, ended, and recorded in the same transaction."""

from __future__ import annotations

import re

from tower.audit import Event
from tower.control.access import Access, not_found
from tower.control.directory import Directory
from tower.errors import AlreadyExists, Invalid, Precondition
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.policy.rules import ANY, KINDS, LISTED, Role
from tower.settings import DOMAINS
from tower.store import identities as store
from tower.store import oauth, secrets
from tower.store import policies as rules
from tower.store.database import Database, Transaction
from tower.store.identities import BindingRow, UserRow

__all__ = ["BindingRow", "Identities", "UserRow", "check_scope", "user_resource"]

_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,126}")
_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,190}")
_RESERVED = frozenset({MACHINE.subject, "anonymous", "tower"})
_ORG = Resource(ResourceType.ORG)


class Identities:
    """The use-cases of `/api/v1/users` and `/api/v1/bindings`."""

    def __init__(self, *, db: Database, access: Access, directory: Directory) -> None:
        self._db = db
        self._access = access
        self._directory = directory

    async def add_user(
        self,
        principal: Principal,
        *,
        subject: str,
        kind: Kind = Kind.USER,
        name: str | None = None,
        email: str = "",
        role: str | None = None,
        project: str = ANY,
        domain: str = ANY,
        request_id: str = "",
    ) -> UserRow:
        """A new person or service identity, with a first role if one is named.

        Raises Invalid for a malformed name, AlreadyExists for a taken one.
        """
        decision = await self._manage_users(principal, subject, request_id)
        if not _SUBJECT.fullmatch(subject):
            raise Invalid("A user name has letters, digits and . _ @ + - and starts with a letter or digit.")
        if subject in _RESERVED:
            raise Invalid(f"The name {subject} is Tower's own.", hint="Take another.")
        if email and not _EMAIL.fullmatch(email):
            raise Invalid("The field email is not an address.")
        shown = (subject if kind is Kind.USER else "") if name is None else name
        if len(shown) > 200 or not shown.isprintable():
            raise Invalid("The field name is too long or holds control characters.")

        def write(tx: Transaction) -> UserRow:
            row = self.insert_user(
                tx,
                principal,
                decision,
                subject=subject,
                kind=kind,
                name=shown,
                email=email,
                request_id=request_id,
            )
            if role is not None:
                check_scope(tx, role, project, domain)
                binding = BindingRow(subject, role, project, domain, tx.now, principal.subject)
                self.insert_binding(tx, principal, decision, binding, request_id=request_id)
            return row

        return await self._db.write(write)

    async def users(self, principal: Principal, *, after: str = "", request_id: str = "") -> list[UserRow]:
        """Everyone, by name, at most 1000 behind `after`."""
        await self._access.require(principal, Action.USER_MANAGE, _ORG, request_id=request_id)
        return await self._db.read(lambda reader: store.everyone(reader, after=after))

    async def user(self, principal: Principal, subject: str, *, request_id: str = "") -> UserRow:
        """One subject."""
        await self._manage_users(principal, subject, request_id)
        row = await self._db.read(lambda reader: store.user(reader, subject))
        if row is None:
            raise not_found(user_resource(subject))
        return row

    async def change_user(
        self,
        principal: Principal,
        subject: str,
        *,
        name: str | None = None,
        email: str | None = None,
        request_id: str = "",
    ) -> UserRow:
        """Change what is shown of a subject; None leaves it."""
        decision = await self._manage_users(principal, subject, request_id)
        if email and not _EMAIL.fullmatch(email):
            raise Invalid("The field email is not an address.")
        if name is not None and (len(name) > 200 or not name.isprintable()):
            raise Invalid("The field name is too long or holds control characters.")

        def write(tx: Transaction) -> UserRow:
            if not store.change_user(tx, subject, name=name, email=email):
                raise not_found(user_resource(subject))
            changed = {key: value for key, value in (("name", name), ("email", email)) if value is not None}
            self._access.record(
                tx, principal, decision, event=Event.USER_UPDATE, request_id=request_id, detail=changed
            )
            tx.after_commit(self._directory.forget)
            row = store.user(tx, subject)
            assert row is not None
            return row

        return await self._db.write(write)

    async def delete_user(self, principal: Principal, subject: str, *, request_id: str = "") -> None:
        """End a subject for good: disabled, without roles, groups, logins, keys and secrets of their own.

        The name stays taken, since records keep naming the one they are about.
        """
        decision = await self._manage_users(principal, subject, request_id)
        if subject == principal.subject:
            raise Precondition("You cannot delete yourself.", hint="Ask another administrator.")

        def write(tx: Transaction) -> None:
            if not store.set_disabled(tx, subject, tx.now):
                raise not_found(user_resource(subject))
            rules.forget_subject(tx, subject)
            secrets.remove_owned(tx, subject)
            oauth.delete_password(tx, subject)
            oauth.end_everything(tx, subject, tx.now)  # else they would hold again, were it ever enabled
            store.void_links(tx, subject)
            keys = [row.id for row in store.live_keys(tx, subject=subject)]
            for key in keys:
                store.delete_key(tx, key, tx.now)
            self._access.record(
                tx,
                principal,
                decision,
                event=Event.USER_DELETE,
                request_id=request_id,
                detail={"keys": keys},
            )
            tx.after_commit(self._directory.forget)

        await self._db.write(write)

    async def set_disabled(
        self, principal: Principal, subject: str, *, disabled: bool, request_id: str = ""
    ) -> UserRow:
        """Disable or enable a subject. Disabling is seen at the very next call with anything of theirs."""
        decision = await self._manage_users(principal, subject, request_id)
        if disabled and subject == principal.subject:
            raise Precondition("You cannot disable yourself.", hint="Ask another administrator.")

        def write(tx: Transaction) -> UserRow:
            if not store.set_disabled(tx, subject, tx.now if disabled else None):
                raise not_found(user_resource(subject))
            event = Event.USER_DISABLE if disabled else Event.USER_ENABLE
            self._access.record(tx, principal, decision, event=event, request_id=request_id)
            tx.after_commit(self._directory.forget)
            row = store.user(tx, subject)
            assert row is not None
            return row

        return await self._db.write(write)

    async def add_binding(
        self,
        principal: Principal,
        *,
        subject: str,
        role: str,
        project: str = ANY,
        domain: str = ANY,
        kind: str = "",
        name: str = "",
        request_id: str = "",
    ) -> BindingRow:
        """Give a role in a scope, or for the one thing there that `kind` and `name` say.

        `subject` is a user, a service or `group:<name>`. Giving a role again changes nothing.
        """
        decision = await self._manage_users(principal, subject, request_id)

        def write(tx: Transaction) -> BindingRow:
            group = subject.removeprefix(rules.GROUP)
            known = store.user(tx, subject) if group == subject else rules.group(tx, group)
            if known is None:
                raise not_found(user_resource(subject))
            check_scope(tx, role, project, domain, kind=kind, name=name)
            row = BindingRow(subject, role, project, domain, tx.now, principal.subject, kind, name)
            self.insert_binding(tx, principal, decision, row, request_id=request_id)
            return row

        return await self._db.write(write)

    async def remove_binding(
        self,
        principal: Principal,
        *,
        subject: str,
        role: str,
        project: str,
        domain: str,
        kind: str = "",
        name: str = "",
        request_id: str = "",
    ) -> None:
        """Take a role in exactly this scope away. Raises NotFound when it was not given."""
        decision = await self._manage_users(principal, subject, request_id)

        def write(tx: Transaction) -> None:
            if not store.remove_binding(
                tx, subject=subject, role=role, project=project, domain=domain, kind=kind, name=name
            ):
                raise not_found(user_resource(subject))
            detail = _binding_detail(BindingRow(subject, role, project, domain, 0.0, "", kind, name))
            self._access.record(
                tx, principal, decision, event=Event.BINDING_DELETE, request_id=request_id, detail=detail
            )
            tx.after_commit(self._directory.forget)

        await self._db.write(write)

    async def bindings(
        self, principal: Principal, *, subject: str | None = None, request_id: str = ""
    ) -> list[BindingRow]:
        """Every role given, of everyone or of one subject."""
        await self._access.require(principal, Action.USER_MANAGE, _ORG, request_id=request_id)
        if subject is None:
            return await self._db.read(store.all_bindings)
        return await self._db.read(lambda reader: store.bindings_of(reader, subject))

    async def _manage_users(self, principal: Principal, subject: str, request_id: str) -> Decision:
        return await self._access.require(
            principal, Action.USER_MANAGE, user_resource(subject), request_id=request_id
        )

    def insert_user(
        self,
        tx: Transaction,
        principal: Principal,
        decision: Decision,
        *,
        subject: str,
        kind: Kind,
        name: str,
        email: str = "",
        request_id: str = "",
    ) -> UserRow:
        """Inside a transaction whose caller was authorised."""
        row = UserRow(subject, kind.value, name, email, tx.now, principal.subject, None)
        if not store.add_user(tx, row):
            raise AlreadyExists(
                f"There is already a user {subject}.", hint="Update that one, or take another name."
            )
        self._access.record(
            tx,
            principal,
            decision,
            event=Event.USER_CREATE,
            request_id=request_id,
            detail={"user": subject, "kind": kind.value},
        )
        tx.after_commit(self._directory.forget)
        return row

    def insert_binding(
        self,
        tx: Transaction,
        principal: Principal,
        decision: Decision,
        row: BindingRow,
        *,
        request_id: str = "",
    ) -> None:
        """Inside a transaction whose caller was authorised. Giving a role again does nothing."""
        if not store.add_binding(tx, row):
            return
        detail = _binding_detail(row)
        self._access.record(
            tx, principal, decision, event=Event.BINDING_CREATE, request_id=request_id, detail=detail
        )
        tx.after_commit(self._directory.forget)


def _binding_detail(row: BindingRow) -> dict[str, str]:
    detail = {"user": row.subject, "role": row.role, "project": row.project, "domain": row.domain}
    return {**detail, row.kind: row.name} if row.kind else detail


def user_resource(subject: str) -> Resource:
    """A user as policy sees them."""
    return Resource(ResourceType.USER, name=subject[:127])


def check_scope(
    tx: Transaction, role: str, project: str, domain: str, *, kind: str = "", name: str = ""
) -> None:
    """Raise Invalid unless the role, the project, the domain and the one thing named can be."""
    if role not in {*Role, *LISTED} and rules.role(tx, role) is None:
        known = [*Role, *LISTED, *(row.name for row in rules.all_roles(tx))]
        raise Invalid(f"There is no role {role[:40]}.", hint=f"Roles are {', '.join(known[:40])}.")
    check_place(tx, project, domain)
    if kind not in {"", *KINDS} or bool(kind) != bool(name):
        raise Invalid(f"A role is for a whole scope, or for one of {', '.join(KINDS)} by name.")
    if len(name) > 255 or not name.isprintable():
        raise Invalid("The name of the thing is too long or holds control characters.")
    if kind == "service":
        holder = store.user(tx, name)
        if (project, domain) != (ANY, ANY) or holder is None or holder.kind != Kind.SERVICE:
            raise Invalid(f"There is no service {name[:80]}.")
    elif role in LISTED:
        raise Invalid(f"The role {role} is given for one service.", hint="Name the service.")


def check_place(tx: Transaction, project: str, domain: str) -> None:
    """Raise Invalid unless the project and the domain exist; "*" is every one."""
    if domain not in {ANY, *DOMAINS}:
        raise Invalid(f"There is no domain {domain[:40]}.", hint=f"Domains are {', '.join(DOMAINS)} and *.")
    if project != ANY and not store.project_exists(tx, project):
        raise Invalid(f"There is no project {project[:80]}.")

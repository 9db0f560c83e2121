"""Policies and roles that administrators write; each change is a revision of the rule book.

The rule book in force is one immutable `Engine`. A change builds the next one, which reads and tries every
policy, and asks it whether the author could still undo the change; it holds from the commit on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import structlog

from tower.audit import Event
from tower.control.access import Access, not_found
from tower.control.identities import check_place
from tower.errors import AlreadyExists, Fault, Invalid, Precondition
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision, Engine
from tower.policy.rulebook import Rulebook, Written, check_role
from tower.policy.rules import ANY
from tower.settings import DOMAINS
from tower.store import identities
from tower.store import policies as store
from tower.store.database import Database, Reader, Transaction
from tower.store.policies import PolicyRow, RevisionRow, RoleRow

__all__ = ["Policies", "PolicyRow", "RevisionRow", "RoleRow"]

MOST_POLICIES = 1000
MOST_ROLES = 200

_ORG = Resource(ResourceType.ORG)
_CLOSED = "forbid (principal, action, resource);"
T = TypeVar("T")
_log = structlog.get_logger("tower.policies")


class Policies:
    """The use-cases of `/api/v1/policies` and `/api/v1/roles`."""

    def __init__(self, *, db: Database, access: Access) -> None:
        self._db = db
        self._access = access
        self._one_at_a_time = asyncio.Lock()

    async def open(self) -> None:
        """Put the stored rule book in place. Call it once, before the first decision for a person.

        A document that this Tower cannot read any more closes its scope to people until the operator of the
        machine has mended it: dropping it could open what it forbade.
        """
        rules = await self._db.read(_stored)
        engine = await asyncio.to_thread(_closing, rules)
        self._access.adopt(engine)

        def note(tx: Transaction) -> None:
            known = store.revisions(tx, limit=1)
            if not known or known[0].revision != engine.revision:
                store.add_revision(tx, revision=engine.revision, document=engine.document, by=MACHINE.subject)

        await self._db.write(note)

    async def policies(self, principal: Principal) -> list[PolicyRow]:
        """The documents that the caller may view, by name."""
        rows = await self._db.read(store.all_policies)
        return [
            row
            for row in rows
            if (await self._access.check(principal, Action.POLICY_VIEW, _place(row))).allowed
        ]

    async def policy(self, principal: Principal, name: str, *, request_id: str = "") -> PolicyRow:
        """One document. A hidden one looks like one that is not there."""
        row, _ = await self._viewable(principal, name, request_id)
        return row

    async def put_policy(
        self,
        principal: Principal,
        written: Written,
        *,
        description: str = "",
        create: bool,
        dry_run: bool = False,
        request_id: str = "",
    ) -> PolicyRow:
        """Add (`create`) or replace a document; with `dry_run` only say whether it would hold.

        Raises Invalid naming document and line, Precondition when its author would lock themselves out.
        """
        if not create:
            await self._viewable(principal, written.name, request_id)
        decision = await self._manage(principal, _resource(written), request_id)
        if len(description) > 1000:
            raise Invalid("The field description is longer than 1000 characters.")
        async with self._one_at_a_time:
            rows = await self._db.read(store.all_policies)
            before = next((row for row in rows if row.name == written.name), None)
            if create:
                await self._own_name(principal, written)
            if create and before is not None:
                raise AlreadyExists(f"There is already a policy {written.name}.", hint="Update it instead.")
            if before is not None:
                await self._manage(principal, _place(before), request_id)
            if len(rows) >= MOST_POLICIES and before is None:
                raise Precondition(f"There are {MOST_POLICIES} policies already.")
            event = Event.POLICY_CREATE if before is None else Event.POLICY_UPDATE

            def change(tx: Transaction) -> PolicyRow:
                check_place(tx, written.project, written.domain)
                if create:
                    _check_prefix(tx, written)
                row = PolicyRow(
                    **{name: getattr(written, name) for name in Written.__dataclass_fields__},
                    description=description,
                    updated_at=tx.now,
                    updated_by=principal.subject,
                )
                if not dry_run:
                    store.put_policy(tx, row)
                return row

            def next_rules(rules: Rulebook) -> Rulebook:
                others = tuple(each for each in rules.policies if each.name != written.name)
                return replace(rules, policies=(*others, written))

            return await self._change(
                principal,
                decision,
                next_rules,
                change,
                event=event,
                place=_resource(written),
                detail={"policy": written.name, "scope": str(_resource(written)), "text": written.text},
                dry_run=dry_run,
                request_id=request_id,
            )

    async def delete_policy(self, principal: Principal, name: str, *, request_id: str = "") -> None:
        """Remove a document."""
        row, _ = await self._viewable(principal, name, request_id)
        decision = await self._manage(principal, _place(row), request_id)
        async with self._one_at_a_time:

            def change(tx: Transaction) -> None:
                if not store.remove_policy(tx, name):
                    raise not_found(Resource(ResourceType.POLICY, name=name))

            def next_rules(rules: Rulebook) -> Rulebook:
                return replace(rules, policies=tuple(each for each in rules.policies if each.name != name))

            await self._change(
                principal,
                decision,
                next_rules,
                change,
                event=Event.POLICY_DELETE,
                place=_place(row),
                detail={"policy": name, "scope": str(_place(row))},
                request_id=request_id,
            )

    async def roles(self, principal: Principal, *, request_id: str = "") -> list[RoleRow]:
        """The roles that administrators made, by name."""
        await self._access.require(principal, Action.POLICY_VIEW, _ORG, request_id=request_id)
        return await self._db.read(store.all_roles)

    async def role(self, principal: Principal, name: str, *, request_id: str = "") -> RoleRow:
        """One of them."""
        found = [each for each in await self.roles(principal, request_id=request_id) if each.name == name]
        if not found:
            raise _no_role(name)
        return found[0]

    async def put_role(
        self,
        principal: Principal,
        name: str,
        actions: frozenset[str],
        *,
        description: str = "",
        create: bool,
        request_id: str = "",
    ) -> RoleRow:
        """Add (`create`) a role or change it; who has it, has the new one from the next call on."""
        decision = await self._manage(principal, _ORG, request_id)
        check_role(name, actions)
        if len(description) > 1000:
            raise Invalid("The field description is longer than 1000 characters.")
        async with self._one_at_a_time:

            def change(tx: Transaction) -> RoleRow:
                before = store.role(tx, name)
                if create and before is not None:
                    raise AlreadyExists(f"There is already a role {name}.", hint="Update it instead.")
                if not create and before is None:
                    raise _no_role(name)
                if before is None and len(store.all_roles(tx)) >= MOST_ROLES:
                    raise Precondition(f"There are {MOST_ROLES} roles already.")
                row = RoleRow(name, tuple(sorted(actions)), description, tx.now, principal.subject)
                store.put_role(tx, row)
                return row

            return await self._change(
                principal,
                decision,
                lambda rules: replace(rules, roles={**rules.roles, name: actions}),
                change,
                event=Event.ROLE_CREATE if create else Event.ROLE_UPDATE,
                detail={"role": name, "actions": sorted(actions)},
                request_id=request_id,
            )

    async def delete_role(self, principal: Principal, name: str, *, request_id: str = "") -> None:
        """Remove a role that nobody has. Raises Precondition naming somebody who has it."""
        decision = await self._manage(principal, _ORG, request_id)
        async with self._one_at_a_time:

            def change(tx: Transaction) -> None:
                holder = store.role_in_use(tx, name)
                if holder is not None:
                    raise Precondition(f"{holder} has the role {name}.", hint="Take it away first.")
                if not store.remove_role(tx, name):
                    raise _no_role(name)

            def next_rules(rules: Rulebook) -> Rulebook:
                return replace(
                    rules, roles={each: actions for each, actions in rules.roles.items() if each != name}
                )

            await self._change(
                principal,
                decision,
                next_rules,
                change,
                event=Event.ROLE_DELETE,
                detail={"role": name},
                request_id=request_id,
            )

    async def revisions(self, principal: Principal, *, request_id: str = "") -> list[RevisionRow]:
        """The rule books there were, newest first, at most a hundred."""
        await self._access.require(principal, Action.POLICY_VIEW, _ORG, request_id=request_id)
        return await self._db.read(store.revisions)

    async def _change(
        self,
        principal: Principal,
        decision: Decision,
        next_rules: Callable[[Rulebook], Rulebook],
        change: Callable[[Transaction], T],
        *,
        event: Event,
        detail: dict[str, object],
        place: Resource = _ORG,
        dry_run: bool = False,
        request_id: str,
    ) -> T:
        base = await self._db.read(_stored)
        engine = await asyncio.to_thread(Engine, next_rules(base))
        after = await self._access.check_under(engine, principal, Action.POLICY_MANAGE, place)
        if principal.kind is not Kind.MACHINE and not after.allowed:
            raise Precondition(
                "After this change you could not undo it.",
                hint="Nothing was changed. Let the operator of the machine make it, or narrow it.",
            )

        def write(tx: Transaction) -> T:
            if _stored(tx) != base:
                raise Precondition("The policies changed meanwhile.", hint="Try again.")
            done = change(tx)
            if dry_run:
                return done
            store.add_revision(tx, revision=engine.revision, document=engine.document, by=principal.subject)
            self._access.record(
                tx,
                principal,
                decision,
                event=event,
                request_id=request_id,
                detail={**detail, "revision": engine.revision},
            )
            tx.after_commit(lambda: self._access.adopt(engine))
            return done

        return await self._db.write(write)

    async def _manage(self, principal: Principal, place: Resource, request_id: str) -> Decision:
        return await self._access.require(principal, Action.POLICY_MANAGE, place, request_id=request_id)

    async def _own_name(self, principal: Principal, written: Written) -> None:
        """Raise Invalid for a name that could be one of a policy which its author may not view (T43).

        Names are for all of the installation. Who administers a part of it writes the part's name before
        each, so that no answer about a name tells of a policy elsewhere.
        """
        for begins, place in _parts(written):
            if written.name.startswith(begins):
                if (await self._access.check(principal, Action.POLICY_VIEW, place)).allowed:
                    return
                break
        begins = _parts(written)[0][0]
        for each, place in _parts(written):
            if (await self._access.check(principal, Action.POLICY_VIEW, place)).allowed:
                begins = each
        raise Invalid(
            f"The name of a policy there begins with {begins}", hint=f"As in {begins}{written.name}"
        )

    async def _viewable(self, principal: Principal, name: str, request_id: str) -> tuple[PolicyRow, Decision]:
        row = await self._db.read(lambda reader: store.policy(reader, name))
        place = Resource(ResourceType.POLICY, name=name[:64]) if row is None else _place(row)
        decision = await self._access.check(principal, Action.POLICY_VIEW, place)
        if not decision.allowed:
            # the record must not tell either: it is about the name that was asked for
            asked = replace(decision, resource=str(Resource(ResourceType.POLICY, name=name[:64])))
            await self._access.refuse(principal, asked, request_id=request_id)
        if row is None or not decision.allowed:
            raise not_found(Resource(ResourceType.POLICY, name=name[:64]))
        return row, decision


def _parts(written: Written) -> list[tuple[str, Resource]]:
    """What names begin with where this document holds, narrowest part first, and whose names those are."""
    parts = []
    if ANY not in {written.project, written.domain}:
        place = Resource(ResourceType.POLICY, written.project, written.domain)
        parts.append((f"{written.project}.{written.domain}.", place))
    if written.project != ANY:
        parts.append((f"{written.project}.", Resource(ResourceType.POLICY, written.project)))
    return [*parts, ("", Resource(ResourceType.POLICY))]


def _check_prefix(tx: Transaction, written: Written) -> None:
    """Raise Invalid where a name begins as those of a part that the document is not for."""
    project, _, rest = written.name.partition(".")
    if not rest or not identities.project_exists(tx, project):
        return
    domain = rest.partition(".")[0] if "." in rest else ""
    fits = written.project == project and (domain not in DOMAINS or written.domain == domain)
    if not fits:
        part = f"{project}.{domain}." if domain in DOMAINS else f"{project}."
        raise Invalid(f"Names that begin with {part} are for policies of that part.")


def _stored(reader: Reader) -> Rulebook:
    documents = tuple(_written(row) for row in store.all_policies(reader))
    return Rulebook(documents, {row.name: frozenset(row.actions) for row in store.all_roles(reader)})


def _written(row: PolicyRow) -> Written:
    return Written(**{name: getattr(row, name) for name in Written.__dataclass_fields__})


def _closing(rules: Rulebook) -> Engine:
    """The engine of these rules, with every document that cannot be read any more closing its scope."""
    try:
        return Engine(rules)
    except Invalid:
        pass
    kept = []
    for document in rules.policies:
        try:
            Engine(Rulebook((document,), {}))
            kept.append(document)
        except Fault as fault:
            _log.error("policies.closed", policy=document.name, problem=fault.message)
            kept.append(replace(document, text=_CLOSED))
    known = {action.value for action in Action}
    roles = {name: actions & known for name, actions in rules.roles.items() if actions & known}
    return Engine(Rulebook(tuple(kept), roles))


def _place(row: PolicyRow) -> Resource:
    return _resource(_written(row))


def _resource(written: Written) -> Resource:
    project = "" if written.project == ANY else written.project
    domain = "" if written.domain == ANY or not project else written.domain
    return Resource(ResourceType.POLICY, project, domain, written.name[:64])


def _no_role(name: str) -> Fault:
    return not_found(Resource(ResourceType.POLICY, name=f"role {name[:64]}"))

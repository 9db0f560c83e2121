"""Rows of what administrators wrote: roles, groups with members, policies, revisions, ceilings of apps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, func, select, union_all, update
from sqlalchemy import insert as insert_into

from tower.store.schema import (
    app_ceilings,
    bindings,
    external_groups,
    group_members,
    groups,
    policies,
    policy_revisions,
    roles,
)
from tower.store.transaction import Reader, Transaction

GROUP = "group:"
"""Before the name of a group where `bindings.subject` is one. No subject has a colon."""


@dataclass(frozen=True, slots=True)
class RoleRow:
    """A role that administrators made."""

    name: str
    actions: tuple[str, ...]
    description: str
    updated_at: float
    updated_by: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group. `external` is the name that identity providers give it in their claim, "" for none."""

    name: str
    external: str
    description: str
    created_at: float
    created_by: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A document of policies and its scope."""

    name: str
    text: str
    project: str
    domain: str
    kind: str
    target: str
    description: str
    updated_at: float
    updated_by: str


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """A rule book that was in force from `created_at` on; `document` is its JSON."""

    number: int
    revision: str
    document: str
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class CeilingRow:
    """The limits of one app, as deployed ("deploy") or as set by an administrator ("admin"); JSON text."""

    project: str
    domain: str
    name: str
    source: str
    limits: str
    updated_at: float
    updated_by: str


def all_roles(reader: Reader) -> list[RoleRow]:
    """The roles by name."""
    return [_role(row) for row in reader.execute(select(roles).order_by(roles.c.name))]


def role(reader: Reader, name: str) -> RoleRow | None:
    """One role, or None."""
    row = reader.execute(select(roles).where(roles.c.name == name)).first()
    return None if row is None else _role(row)


def put_role(tx: Transaction, row: RoleRow) -> None:
    """Add a role or replace it."""
    tx.execute(roles.delete().where(roles.c.name == row.name))
    values = {**_values(row), "actions": json.dumps(sorted(row.actions))}
    tx.execute(insert_into(roles).values(**values))


def remove_role(tx: Transaction, name: str) -> bool:
    """Remove a role; False when there is none."""
    return tx.execute(roles.delete().where(roles.c.name == name)).rowcount > 0


def role_in_use(reader: Reader, name: str) -> str | None:
    """Somebody who has the role, or None."""
    query = select(bindings.c.subject).where(bindings.c.role == name).limit(1)
    row = reader.execute(query).first()
    return None if row is None else row.subject


def all_groups(reader: Reader) -> list[GroupRow]:
    """The groups by name, with their members."""
    members: dict[str, list[str]] = {}
    query = select(group_members).order_by(group_members.c.group, group_members.c.subject)
    for row in reader.execute(query):
        members.setdefault(row.group, []).append(row.subject)
    found = reader.execute(select(groups).order_by(groups.c.name))
    return [_group(row, members.get(row.name, ())) for row in found]


def group(reader: Reader, name: str) -> GroupRow | None:
    """One group with its members, or None."""
    row = reader.execute(select(groups).where(groups.c.name == name)).first()
    if row is None:
        return None
    members = reader.execute(
        select(group_members.c.subject).where(group_members.c.group == name).order_by(group_members.c.subject)
    )
    return _group(row, [each.subject for each in members])


def add_group(tx: Transaction, row: GroupRow) -> bool:
    """Add a group with its members; False when there is one of this name."""
    if group(tx, row.name) is not None:
        return False
    values = {name: value for name, value in _values(row).items() if name != "members"}
    tx.execute(insert_into(groups).values(**values))
    add_members(tx, row.name, row.members)
    return True


def change_group(tx: Transaction, name: str, *, external: str, description: str) -> None:
    """Change what a group says of itself."""
    tx.execute(update(groups).where(groups.c.name == name).values(external=external, description=description))


def add_members(tx: Transaction, name: str, subjects: Iterable[str]) -> None:
    """Add members; those that are in it already stay."""
    found = group(tx, name)
    for subject in sorted(set(subjects) - set(() if found is None else found.members)):
        tx.execute(insert_into(group_members).values(group=name, subject=subject))


def remove_members(tx: Transaction, name: str, subjects: Iterable[str]) -> None:
    """Remove members; others are no error."""
    gone = and_(group_members.c.group == name, group_members.c.subject.in_(list(subjects)))
    tx.execute(group_members.delete().where(gone))


def remove_group(tx: Transaction, name: str) -> bool:
    """Remove a group, its members and what was given to it; False when there is none."""
    tx.execute(group_members.delete().where(group_members.c.group == name))
    tx.execute(bindings.delete().where(bindings.c.subject == GROUP + name))
    return tx.execute(groups.delete().where(groups.c.name == name)).rowcount > 0


def set_external_groups(tx: Transaction, subject: str, source: str, names: Iterable[str]) -> bool:
    """Keep what an identity provider says about a person's groups; whether it differs from before."""
    same = and_(external_groups.c.subject == subject, external_groups.c.source == source)
    before = {row.name for row in tx.execute(select(external_groups.c.name).where(same))}
    wanted = set(names)
    if before == wanted:
        return False
    tx.execute(external_groups.delete().where(same))
    for name in sorted(wanted):
        tx.execute(insert_into(external_groups).values(subject=subject, source=source, name=name))
    return True


def groups_of(reader: Reader, subject: str, external: Iterable[str] = ()) -> list[str]:
    """The groups that a subject is in: as a member, by what a provider said, or by names in `external`."""
    found = {row[0] for row in reader.execute(_GROUPS_OF, {"subject": subject})}
    named = list(external)
    if named:
        query = select(groups.c.name).where(groups.c.external.in_(named), groups.c.external != "")
        found |= {row.name for row in reader.execute(query)}
    return sorted(found)


def forget_subject(tx: Transaction, subject: str) -> None:
    """Remove a subject from every group, and all that was given to them."""
    tx.execute(group_members.delete().where(group_members.c.subject == subject))
    tx.execute(external_groups.delete().where(external_groups.c.subject == subject))
    tx.execute(bindings.delete().where(bindings.c.subject == subject))


def all_policies(reader: Reader) -> list[PolicyRow]:
    """Every document by name."""
    return [PolicyRow(*row) for row in reader.execute(select(policies).order_by(policies.c.name))]


def policy(reader: Reader, name: str) -> PolicyRow | None:
    """One document, or None."""
    row = reader.execute(select(policies).where(policies.c.name == name)).first()
    return None if row is None else PolicyRow(*row)


def put_policy(tx: Transaction, row: PolicyRow) -> None:
    """Add a document or replace it."""
    tx.execute(policies.delete().where(policies.c.name == row.name))
    tx.execute(insert_into(policies).values(**_values(row)))


def remove_policy(tx: Transaction, name: str) -> bool:
    """Remove a document; False when there is none."""
    return tx.execute(policies.delete().where(policies.c.name == name)).rowcount > 0


def add_revision(tx: Transaction, *, revision: str, document: str, by: str) -> int:
    """Keep a rule book that comes into force now; its number."""
    last = tx.execute(select(func.max(policy_revisions.c.number))).scalar() or 0
    row = RevisionRow(last + 1, revision, document, tx.now, by)
    tx.execute(insert_into(policy_revisions).values(**_values(row)))
    return row.number


def revisions(reader: Reader, *, limit: int = 100) -> list[RevisionRow]:
    """The rule books there were, newest first."""
    query = select(policy_revisions).order_by(policy_revisions.c.number.desc()).limit(limit)
    return [RevisionRow(*row) for row in reader.execute(query)]


def ceilings_of(reader: Reader, project: str, domain: str, name: str) -> list[CeilingRow]:
    """The limits of one app: none, one or both."""
    place = {"project": project, "domain": domain, "name": name}
    return [CeilingRow(*row) for row in reader.execute(_CEILINGS, place)]


def put_ceiling(tx: Transaction, row: CeilingRow) -> None:
    """Set a limit of an app."""
    remove_ceiling(tx, row.project, row.domain, row.name, source=row.source)
    tx.execute(insert_into(app_ceilings).values(**_values(row)))


def remove_ceiling(tx: Transaction, project: str, domain: str, name: str, *, source: str) -> bool:
    """Remove a limit of an app; False when it has none from there."""
    same = and_(
        app_ceilings.c.project == project,
        app_ceilings.c.domain == domain,
        app_ceilings.c.name == name,
        app_ceilings.c.source == source,
    )
    return tx.execute(app_ceilings.delete().where(same)).rowcount > 0


def _group(row: object, members: Iterable[str]) -> GroupRow:
    return GroupRow(**row._mapping, members=tuple(members))  # type: ignore[attr-defined]


def _role(row: object) -> RoleRow:
    values = dict(row._mapping)  # type: ignore[attr-defined]
    return RoleRow(**{**values, "actions": tuple(json.loads(values["actions"]))})


def _values(row: object) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}  # type: ignore[attr-defined]


# prepared once: these stand on the way of calls whose facts are not in memory
_GROUPS_OF = union_all(
    select(group_members.c.group).where(group_members.c.subject == bindparam("subject")),
    select(groups.c.name)
    .join_from(groups, external_groups, groups.c.external == external_groups.c.name)
    .where(external_groups.c.subject == bindparam("subject"), groups.c.external != ""),
)
_CEILINGS = select(app_ceilings).where(
    app_ceilings.c.project == bindparam("project"),
    app_ceilings.c.domain == bindparam("domain"),
    app_ceilings.c.name == bindparam("name"),
)

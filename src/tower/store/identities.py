"""Rows of users, bindings, API keys, sessions and sign-in links, and whom a running attempt acts for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, select, update
from sqlalchemy import insert as insert_into

from tower.states import Phase
from tower.store.prepared import prepared
from tower.store.schema import actions, api_keys, attempts, bindings, links, projects, sessions, tasks, users
from tower.store.transaction import Reader, Transaction


@dataclass(frozen=True, slots=True)
class UserRow:
    """A person or service identity; `disabled_at` None means active."""

    subject: str
    kind: str
    name: str
    email: str
    created_at: float
    created_by: str
    disabled_at: float | None


@dataclass(frozen=True, slots=True)
class BindingRow:
    """One role of one subject, or of a group ("group:<name>"), in a scope or for one thing there."""

    subject: str
    role: str
    project: str
    domain: str
    created_at: float
    created_by: str
    kind: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key without its digest: everything of it that may be shown.

    `replaced_by` is the id of the key that it was rotated to; `actions` is a JSON list or None.
    """

    id: str
    name: str
    subject: str
    role: str | None
    project: str
    domain: str
    created_at: float
    created_by: str
    expires_at: float | None
    last_used_at: float | None
    deleted_at: float | None
    disabled_at: float | None = None
    replaced_by: str = ""
    actions: str | None = None
    maker: str = ""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A browser session without its digest."""

    id: str
    subject: str
    host: str
    parent: str
    created_at: float
    expires_at: float
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A one-time code: for the console when `host` is "", else for the app at that host."""

    subject: str
    host: str
    session: str
    created_at: float
    expires_at: float
    used_at: float | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """Whom an attempt that is not over acts for, and under which limits; JSON columns as text."""

    project: str
    domain: str
    run: str
    action: str
    attempt: int
    executed_by: str
    credential_kind: str
    credential_id: str
    actors: str
    ceilings: str
    privileges: str = ""


_BINDING_COLUMNS = tuple(bindings.c[name] for name in BindingRow.__dataclass_fields__)
_KEY_COLUMNS = tuple(api_keys.c[name] for name in KeyRow.__dataclass_fields__)
_SESSION_COLUMNS = tuple(sessions.c[name] for name in SessionRow.__dataclass_fields__)
_LINK_COLUMNS = tuple(links.c[name] for name in LinkRow.__dataclass_fields__)


def user(reader: Reader, subject: str) -> UserRow | None:
    """One subject, or None."""
    row = reader.execute(_USER, {"subject": subject}).first()
    return None if row is None else UserRow(*row)


def everyone(reader: Reader, *, after: str = "", limit: int = 1000) -> list[UserRow]:
    """Subjects in the order of their name, behind `after`."""
    query = select(users).where(users.c.subject > after).order_by(users.c.subject).limit(limit)
    return [UserRow(*row) for row in reader.execute(query)]


def add_user(tx: Transaction, row: UserRow) -> bool:
    """Add a subject; False when there is one of this name."""
    if user(tx, row.subject) is not None:
        return False
    tx.execute(insert_into(users).values(**_values(row)))
    return True


def change_user(tx: Transaction, subject: str, *, name: str | None, email: str | None) -> bool:
    """Change what is shown of a subject, None for no change; False when there is none."""
    values = {key: value for key, value in (("name", name), ("email", email)) if value is not None}
    if not values:
        return user(tx, subject) is not None
    return tx.execute(update(users).where(users.c.subject == subject).values(**values)).rowcount > 0


def set_disabled(tx: Transaction, subject: str, at: float | None) -> bool:
    """Disable (a time) or enable (None) a subject; False when there is none."""
    return tx.execute(update(users).where(users.c.subject == subject).values(disabled_at=at)).rowcount > 0


def project_exists(reader: Reader, project: str) -> bool:
    """Whether there is such a project."""
    return reader.execute(select(projects.c.name).where(projects.c.name == project)).first() is not None


def bindings_of(reader: Reader, subject: str) -> list[BindingRow]:
    """The roles of one subject."""
    return [BindingRow(*row) for row in reader.execute(_BINDINGS, {"subject": subject})]


def all_bindings(reader: Reader) -> list[BindingRow]:
    """Every binding, by subject."""
    query = select(*_BINDING_COLUMNS).order_by(
        bindings.c.subject, bindings.c.role, bindings.c.project, bindings.c.domain, bindings.c.name
    )
    return [BindingRow(*row) for row in reader.execute(query)]


def add_binding(tx: Transaction, row: BindingRow) -> bool:
    """Give a role; False when the subject has it already."""
    scope = (row.role, row.project, row.domain, row.kind, row.name)
    if any(
        (known.role, known.project, known.domain, known.kind, known.name) == scope
        for known in bindings_of(tx, row.subject)
    ):
        return False
    tx.execute(insert_into(bindings).values(**_values(row)))
    return True


def remove_binding(
    tx: Transaction,
    *,
    subject: str,
    role: str,
    project: str,
    domain: str,
    kind: str = "",
    name: str = "",
) -> bool:
    """Take a role away; False when the subject does not have it."""
    same = and_(
        bindings.c.subject == subject,
        bindings.c.role == role,
        bindings.c.project == project,
        bindings.c.domain == domain,
        bindings.c.kind == kind,
        bindings.c.name == name,
    )
    return tx.execute(bindings.delete().where(same)).rowcount > 0


def key(reader: Reader, key_id: str) -> tuple[KeyRow, bytes] | None:
    """A key by its public id, deleted ones included, with the digest of its secret."""
    row = reader.execute(_KEY, {"id": key_id}).first()
    return None if row is None else (KeyRow(*row[:-1]), row[-1])


def live_key(reader: Reader, name: str, subject: str) -> KeyRow | None:
    """The key of a subject that has this name now, or None: no deleted one and none that was rotated."""
    return next((row for row in live_keys_named(reader, name) if row.subject == subject), None)


def live_keys_named(reader: Reader, name: str) -> list[KeyRow]:
    """The keys that have this name now, of everybody: each is somebody else's."""
    current = and_(api_keys.c.deleted_at.is_(None), api_keys.c.replaced_by == "")
    query = select(*_KEY_COLUMNS).where(api_keys.c.name == name, current).order_by(api_keys.c.subject)
    return [KeyRow(*row) for row in reader.execute(query)]


def live_keys(reader: Reader, *, subject: str | None = None) -> list[KeyRow]:
    """The keys that are not deleted, of everyone or of one subject, by name; rotated ones behind theirs."""
    order = (api_keys.c.name, api_keys.c.replaced_by != "", api_keys.c.created_at.desc())
    query = select(*_KEY_COLUMNS).where(api_keys.c.deleted_at.is_(None)).order_by(*order)
    if subject is not None:
        query = query.where(api_keys.c.subject == subject)
    return [KeyRow(*row) for row in reader.execute(query)]


def add_key(tx: Transaction, row: KeyRow, *, digest: bytes) -> bool:
    """Add a key; False when a live one of the same subject has this name."""
    if live_key(tx, row.name, row.subject) is not None:
        return False
    tx.execute(insert_into(api_keys).values(**_values(row), hash=digest))
    return True


def delete_key(tx: Transaction, key_id: str, at: float) -> bool:
    """Mark a key deleted; False when it is already."""
    live = and_(api_keys.c.id == key_id, api_keys.c.deleted_at.is_(None))
    return tx.execute(update(api_keys).where(live).values(deleted_at=at)).rowcount > 0


def keys_of_name(reader: Reader, name: str, subject: str) -> list[KeyRow]:
    """The key of a subject that has this name and those it was rotated from, none of them deleted."""
    of_subject = and_(api_keys.c.name == name, api_keys.c.subject == subject)
    query = select(*_KEY_COLUMNS).where(of_subject, api_keys.c.deleted_at.is_(None))
    return [KeyRow(*row) for row in reader.execute(query)]


def replace_key(tx: Transaction, key_id: str, *, by: str, ends: float) -> None:
    """Give a key's name to the key `by`; the old one ends then."""
    values = {"replaced_by": by, "expires_at": ends}
    tx.execute(update(api_keys).where(api_keys.c.id == key_id).values(**values))


def set_key_disabled(tx: Transaction, key_id: str, at: float | None) -> None:
    """Disable (a time) or enable (None) a key."""
    tx.execute(update(api_keys).where(api_keys.c.id == key_id).values(disabled_at=at))


def touch_keys(tx: Transaction, times: Mapping[str, float]) -> None:
    """Note when keys were last used."""
    if times:
        statement = (
            update(api_keys).where(api_keys.c.id == bindparam("key")).values(last_used_at=bindparam("at"))
        )
        tx.execute(statement, [{"key": key_id, "at": at} for key_id, at in times.items()])


def session(reader: Reader, digest: bytes) -> SessionRow | None:
    """The session whose text has this SHA-256."""
    row = reader.execute(_SESSION, {"hash": digest}).first()
    return None if row is None else SessionRow(*row)


def session_by_id(reader: Reader, session_id: str) -> SessionRow | None:
    """The session of this public id."""
    row = reader.execute(_SESSION_BY_ID, {"id": session_id}).first()
    return None if row is None else SessionRow(*row)


def add_session(tx: Transaction, row: SessionRow, *, digest: bytes) -> None:
    """Add a session."""
    tx.execute(insert_into(sessions).values(**_values(row), hash=digest))


def revoke_session(tx: Transaction, session_id: str, at: float) -> bool:
    """Revoke a session and those that came from it; False when it is already revoked or absent."""
    live = sessions.c.revoked_at.is_(None)
    own = tx.execute(update(sessions).where(sessions.c.id == session_id, live).values(revoked_at=at))
    tx.execute(update(sessions).where(sessions.c.parent == session_id, live).values(revoked_at=at))
    return own.rowcount > 0


def add_link(tx: Transaction, row: LinkRow, *, digest: bytes, created_by: str) -> None:
    """Add a one-time code."""
    tx.execute(insert_into(links).values(**_values(row), hash=digest, created_by=created_by))


def take_link(tx: Transaction, digest: bytes, at: float) -> LinkRow | None:
    """Use up a code: its row when this call was the first to do so and it had not ended, else None."""
    usable = and_(links.c.hash == digest, links.c.used_at.is_(None), links.c.expires_at > at)
    if tx.execute(update(links).where(usable).values(used_at=at)).rowcount == 0:
        return None
    row = tx.execute(select(*_LINK_COLUMNS).where(links.c.hash == digest)).one()
    return LinkRow(*row)


def void_links(tx: Transaction, subject: str) -> None:
    """Let no code that a subject has not used be used any more."""
    tx.execute(links.delete().where(links.c.subject == subject, links.c.used_at.is_(None)))


def forget_old_logins(tx: Transaction, before: float) -> None:
    """Remove sessions and codes that ended before this time."""
    tx.execute(sessions.delete().where(sessions.c.expires_at < before))
    tx.execute(links.delete().where(links.c.expires_at < before))


def nobody(reader: Reader) -> bool:
    """Whether there is no user yet: the first start."""
    return reader.execute(select(users.c.subject).limit(1)).first() is None


def attempt(
    reader: Reader, *, project: str, domain: str, run: str, action: str, attempt: int
) -> AttemptRow | None:
    """Whom this attempt acts for; None when it, or the action it belongs to, is over or never was."""
    place = {"project": project, "domain": domain, "run": run, "action": action, "attempt": attempt}
    row = reader.execute(_ATTEMPT, place).first()
    if row is None or Phase(row.phase).terminal or Phase(row.attempt_phase).terminal:
        return None
    return AttemptRow(
        project=project,
        domain=domain,
        run=run,
        action=action,
        attempt=attempt,
        executed_by=row.executed_by,
        credential_kind=row.credential_kind,
        credential_id=row.credential_id,
        actors=row.actors,
        ceilings=row.ceilings,
        privileges=row.privileges or "",
    )


def _values(row: object) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}  # type: ignore[attr-defined]


# prepared once: these stand on the way of every authenticated call whose facts are not in memory
_USER = prepared(
    select(*(users.c[name] for name in UserRow.__dataclass_fields__)).where(
        users.c.subject == bindparam("subject")
    )
)
_BINDINGS = prepared(select(*_BINDING_COLUMNS).where(bindings.c.subject == bindparam("subject")))
_KEY = prepared(select(*_KEY_COLUMNS, api_keys.c.hash).where(api_keys.c.id == bindparam("id")))
_SESSION = prepared(select(*_SESSION_COLUMNS).where(sessions.c.hash == bindparam("hash")))
_SESSION_BY_ID = prepared(select(*_SESSION_COLUMNS).where(sessions.c.id == bindparam("id")))
_ATTEMPT = prepared(
    select(
        actions.c.executed_by,
        actions.c.credential_kind,
        actions.c.credential_id,
        actions.c.actors,
        actions.c.ceilings,
        tasks.c.privileges,
        actions.c.phase,
        attempts.c.phase.label("attempt_phase"),
    )
    .join_from(
        actions,
        attempts,
        and_(
            actions.c.project == attempts.c.project,
            actions.c.domain == attempts.c.domain,
            actions.c.run == attempts.c.run,
            actions.c.action == attempts.c.action,
        ),
    )
    .outerjoin(
        tasks,
        and_(
            actions.c.spec.is_(None),  # code that came along with the call has no privileges
            tasks.c.project == actions.c.task_project,
            tasks.c.domain == actions.c.task_domain,
            tasks.c.name == actions.c.task_name,
            tasks.c.version == actions.c.task_version,
        ),
    )
    .where(
        attempts.c.project == bindparam("project"),
        attempts.c.domain == bindparam("domain"),
        attempts.c.run == bindparam("run"),
        attempts.c.action == bindparam("action"),
        attempts.c.attempt == bindparam("attempt"),
    )
)

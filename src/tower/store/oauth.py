"""Rows of passwords, and of what the OAuth server remembers: logins, codes, devices and refresh tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Column, Table, and_, bindparam, select, update
from sqlalchemy import insert as insert_into

from tower.store.schema import sessions
from tower.store.schema_oauth import (
    oauth_codes,
    oauth_devices,
    oauth_logins,
    oauth_refresh_tokens,
    oauth_revoked_tokens,
    passwords,
)
from tower.store.transaction import Reader, Transaction


@dataclass(frozen=True, slots=True)
class LoginRow:
    """A command line that acts for a person until it logs out."""

    id: str
    subject: str
    client: str
    scope: str
    device: str
    place: str
    authenticated_at: float
    created_at: float
    expires_at: float
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class CodeRow:
    """An authorisation code without its digest; `login` is what its first use opened."""

    subject: str
    client: str
    redirect_uri: str
    challenge: str
    scope: str
    nonce: str
    session: str
    place: str
    authenticated_at: float
    created_at: float
    expires_at: float
    used_at: float | None
    login: str


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device that waits for a person's answer, without the digest of its code."""

    user_code: str
    client: str
    scope: str
    device: str
    place: str
    pace: float
    polled_at: float | None
    created_at: float
    expires_at: float
    state: str
    subject: str
    authenticated_at: float | None


@dataclass(frozen=True, slots=True)
class RefreshRow:
    """A refresh token without its digest."""

    login: str
    created_at: float
    expires_at: float
    used_at: float | None


def password(reader: Reader, subject: str) -> str | None:
    """The hash of a subject's password, or None."""
    row = reader.execute(select(passwords.c.hash).where(passwords.c.subject == subject)).first()
    return None if row is None else str(row[0])


def set_password(tx: Transaction, subject: str, hashed: str, *, at: float, by: str) -> None:
    """Keep a password's hash in place of an earlier one."""
    values = {"hash": hashed, "changed_at": at, "changed_by": by}
    own = passwords.c.subject == subject
    if tx.execute(update(passwords).where(own).values(**values)).rowcount == 0:
        tx.execute(insert_into(passwords).values(subject=subject, **values))


def rehash_password(tx: Transaction, subject: str, *, old: str, new: str) -> None:
    """Replace a hash by one of the same password, unless the password was changed meanwhile."""
    same = and_(passwords.c.subject == subject, passwords.c.hash == old)
    tx.execute(update(passwords).where(same).values(hash=new))


def delete_password(tx: Transaction, subject: str) -> bool:
    """Forget a password; False when there is none."""
    return tx.execute(passwords.delete().where(passwords.c.subject == subject)).rowcount > 0


def end_everything(tx: Transaction, subject: str, at: float, *, but_session: str = "") -> list[str]:
    """Revoke the sessions (save one and what came from it), logins and codes of a subject; the logins."""
    live = and_(
        sessions.c.subject == subject,
        sessions.c.revoked_at.is_(None),
        sessions.c.id != but_session,
        sessions.c.parent != (but_session or "-"),
    )
    tx.execute(update(sessions).where(live).values(revoked_at=at))
    tx.execute(oauth_codes.delete().where(oauth_codes.c.subject == subject))
    tx.execute(oauth_devices.delete().where(oauth_devices.c.subject == subject))
    query = select(oauth_logins.c.id).where(
        oauth_logins.c.subject == subject, oauth_logins.c.revoked_at.is_(None)
    )
    ended = [str(row[0]) for row in tx.execute(query).all()]
    for login_id in ended:
        revoke_login(tx, login_id, at)
    return ended


def login(reader: Reader, login_id: str) -> LoginRow | None:
    """The login of this public id."""
    row = reader.execute(_LOGIN, {"id": login_id}).first()
    return None if row is None else LoginRow(*row)


def add_login(tx: Transaction, row: LoginRow) -> None:
    """Add a login."""
    tx.insert(oauth_logins, **_values(row))


def revoke_login(tx: Transaction, login_id: str, at: float) -> bool:
    """Revoke a login, and with it all of its tokens; False when it is revoked already or absent."""
    live = and_(oauth_logins.c.id == login_id, oauth_logins.c.revoked_at.is_(None))
    return tx.execute(update(oauth_logins).where(live).values(revoked_at=at)).rowcount > 0


def code(reader: Reader, digest: bytes) -> CodeRow | None:
    """The code of this digest, used ones included."""
    row = reader.execute(_CODE, {"hash": digest}).first()
    return None if row is None else CodeRow(*row)


def add_code(tx: Transaction, row: CodeRow, *, digest: bytes) -> None:
    """Add a code."""
    tx.insert(oauth_codes, **_values(row), hash=digest)


def use_code(tx: Transaction, digest: bytes, *, at: float, login_id: str) -> bool:
    """Mark a code used; False when it is already."""
    unused = and_(oauth_codes.c.hash == digest, oauth_codes.c.used_at.is_(None))
    return tx.execute(update(oauth_codes).where(unused).values(used_at=at, login=login_id)).rowcount > 0


def device(reader: Reader, digest: bytes) -> DeviceRow | None:
    """The waiting device of this digest."""
    row = reader.execute(_DEVICE, {"hash": digest}).first()
    return None if row is None else DeviceRow(*row)


def device_by_user_code(reader: Reader, user_code: str) -> DeviceRow | None:
    """The waiting device that shows this code."""
    row = reader.execute(_DEVICE_BY_CODE, {"user_code": user_code}).first()
    return None if row is None else DeviceRow(*row)


def waiting_devices(reader: Reader, now: float) -> int:
    """How many devices wait for an answer."""
    query = select(oauth_devices.c.user_code).where(oauth_devices.c.expires_at > now)
    return len(reader.execute(query).all())


def add_device(tx: Transaction, row: DeviceRow, *, digest: bytes) -> None:
    """Add a waiting device."""
    tx.insert(oauth_devices, **_values(row), hash=digest)


def poll_device(tx: Transaction, digest: bytes, *, at: float, pace: float) -> None:
    """Note when a device asked, and how long it must wait before it asks again."""
    own = oauth_devices.c.hash == digest
    tx.execute(update(oauth_devices).where(own).values(polled_at=at, pace=pace))


def use_device(tx: Transaction, digest: bytes) -> bool:
    """Mark an allowed device as served; False when it is not in that state."""
    allowed = and_(oauth_devices.c.hash == digest, oauth_devices.c.state == "allowed")
    return tx.execute(update(oauth_devices).where(allowed).values(state="used")).rowcount > 0


def answer_device(
    tx: Transaction, user_code: str, *, state: str, subject: str, authenticated_at: float
) -> bool:
    """Note a person's answer; False when the device does not wait for one."""
    waiting = and_(oauth_devices.c.user_code == user_code, oauth_devices.c.state == "pending")
    values = {"state": state, "subject": subject, "authenticated_at": authenticated_at}
    return tx.execute(update(oauth_devices).where(waiting).values(**values)).rowcount > 0


def refresh_token(reader: Reader, digest: bytes) -> RefreshRow | None:
    """The refresh token of this digest, used ones included."""
    row = reader.execute(_REFRESH, {"hash": digest}).first()
    return None if row is None else RefreshRow(*row)


def add_refresh_token(tx: Transaction, row: RefreshRow, *, digest: bytes) -> None:
    """Add a refresh token."""
    tx.insert(oauth_refresh_tokens, **_values(row), hash=digest)


def use_refresh_token(tx: Transaction, digest: bytes, at: float) -> bool:
    """Mark a refresh token used; False when it is already."""
    unused = and_(oauth_refresh_tokens.c.hash == digest, oauth_refresh_tokens.c.used_at.is_(None))
    return tx.execute(update(oauth_refresh_tokens).where(unused).values(used_at=at)).rowcount > 0


def token_revoked(reader: Reader, jti: str) -> bool:
    """Whether this access token was revoked by itself."""
    return reader.execute(_REVOKED, {"jti": jti}).first() is not None


def revoke_token(tx: Transaction, jti: str, *, at: float, expires_at: float) -> bool:
    """Revoke one access token; False when it is already."""
    if token_revoked(tx, jti):
        return False
    tx.insert(oauth_revoked_tokens, jti=jti, revoked_at=at, expires_at=expires_at)
    return True


def forget_old(tx: Transaction, before: float) -> None:
    """Remove what ended before this time."""
    for table in (oauth_codes, oauth_devices, oauth_refresh_tokens, oauth_revoked_tokens, oauth_logins):
        tx.execute(table.delete().where(table.c.expires_at < before))


def _columns(table: Table, row: type[Any]) -> tuple[Column[Any], ...]:
    return tuple(table.c[field.name] for field in fields(row))


def _values(row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row)}


# prepared once: these stand on the way of every token that is given out or looked at
_LOGIN = select(*_columns(oauth_logins, LoginRow)).where(oauth_logins.c.id == bindparam("id"))
_CODE = select(*_columns(oauth_codes, CodeRow)).where(oauth_codes.c.hash == bindparam("hash"))
_DEVICE = select(*_columns(oauth_devices, DeviceRow)).where(oauth_devices.c.hash == bindparam("hash"))
_DEVICE_BY_CODE = select(*_columns(oauth_devices, DeviceRow)).where(
    oauth_devices.c.user_code == bindparam("user_code")
)
_REFRESH = select(*_columns(oauth_refresh_tokens, RefreshRow)).where(
    oauth_refresh_tokens.c.hash == bindparam("hash")
)
_REVOKED = select(oauth_revoked_tokens.c.jti).where(oauth_revoked_tokens.c.jti == bindparam("jti"))

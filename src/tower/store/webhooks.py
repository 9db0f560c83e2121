"""Rows of signed webhooks of third parties, and of the deliveries that were let through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, and_, bindparam, select
from sqlalchemy import insert as insert_into

from tower.store.schema_apps import webhook_deliveries, webhooks
from tower.store.transaction import Reader, Transaction


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """One path of one app. `secret` is sealed; `subject` "" runs nobody that `senders` does not name."""

    project: str
    domain: str
    app: str
    path: str
    id: str
    scheme: str
    secret: bytes = field(repr=False)
    subject: str
    senders: Mapping[str, str]
    created_at: float
    created_by: str

    def maps_to(self, subject: str) -> bool:
        """Whether a delivery can run as this subject."""
        return bool(subject) and (subject == self.subject or subject in self.senders.values())

    @property
    def address(self) -> str:
        """What its deliveries are remembered under: the same for all that ever hold for this path."""
        return f"{self.project}/{self.domain}/{self.app}{self.path}"


def put(tx: Transaction, row: WebhookRow) -> None:
    """Set what holds for a path."""
    remove(tx, row.project, row.domain, row.app, row.path)
    values = {name: getattr(row, name) for name in WebhookRow.__dataclass_fields__}
    tx.execute(insert_into(webhooks).values(**{**values, "senders": json.dumps(dict(row.senders))}))


def remove(tx: Transaction, project: str, domain: str, app: str, path: str) -> bool:
    """Forget a path, and nothing of what was delivered there; False when there was nothing."""
    row = at(tx, project, domain, app, path)
    if row is None:
        return False
    earlier = webhook_deliveries.update().where(webhook_deliveries.c.webhook == row.id)
    tx.execute(earlier.values(webhook=row.address))  # those of versions that remembered them by the id
    return tx.execute(webhooks.delete().where(webhooks.c.id == row.id)).rowcount > 0


def remove_all(tx: Transaction, project: str, domain: str, app: str) -> None:
    """Forget those of an app that is gone: another one of its name starts with none."""
    for row in everything(tx, project, domain, app):
        remove(tx, project, domain, app, row.path)


def at(reader: Reader, project: str, domain: str, app: str, path: str) -> WebhookRow | None:
    """What holds for this path, or None."""
    place = {"project": project, "domain": domain, "app": app, "path": path}
    return _row(reader.execute(_AT, place).first())


def by_id(reader: Reader, webhook_id: str) -> WebhookRow | None:
    """The one of this public id, or None."""
    return _row(reader.execute(_BY_ID, {"id": webhook_id}).first())


def everything(reader: Reader, project: str = "", domain: str = "", app: str = "") -> list[WebhookRow]:
    """All of them, or those of one app, by their place."""
    query = select(*_COLUMNS).order_by(webhooks.c.project, webhooks.c.domain, webhooks.c.app, webhooks.c.path)
    if app:
        query = query.where(webhooks.c.project == project, webhooks.c.domain == domain, webhooks.c.app == app)
    return [row for found in reader.execute(query) if (row := _row(found)) is not None]


def add_delivery(tx: Transaction, row: WebhookRow, digest: bytes, ends_at: float) -> bool:
    """Remember a delivery until then; False when it is known already."""
    tx.execute(webhook_deliveries.delete().where(webhook_deliveries.c.ends_at <= tx.now))
    known = tx.execute(select(webhook_deliveries.c.ends_at).where(_delivery(row, digest))).first()
    if known is not None:
        return False
    tx.execute(insert_into(webhook_deliveries).values(webhook=row.address, digest=digest, ends_at=ends_at))
    return True


def forget_delivery(tx: Transaction, row: WebhookRow, digest: bytes) -> None:
    """Take it back: it did not reach the app. The webhook may be another one meanwhile, or none."""
    tx.execute(webhook_deliveries.delete().where(_delivery(row, digest)))


def _delivery(row: WebhookRow, digest: bytes) -> ColumnElement[bool]:
    mine = webhook_deliveries.c.webhook.in_((row.address, row.id))
    return and_(mine, webhook_deliveries.c.digest == digest)


def _row(found: object) -> WebhookRow | None:
    if found is None:
        return None
    values = dict(found._mapping)  # type: ignore[attr-defined]
    return WebhookRow(**{**values, "senders": json.loads(values["senders"])})


_COLUMNS = tuple(webhooks.c[name] for name in WebhookRow.__dataclass_fields__)
_AT = select(*_COLUMNS).where(
    webhooks.c.project == bindparam("project"),
    webhooks.c.domain == bindparam("domain"),
    webhooks.c.app == bindparam("app"),
    webhooks.c.path == bindparam("path"),
)
_BY_ID = select(*_COLUMNS).where(webhooks.c.id == bindparam("id"))

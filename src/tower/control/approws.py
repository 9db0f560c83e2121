"""The row of an app after a deployment or a wish, inside the transaction that writes it."""

from __future__ import annotations

from dataclasses import replace

from tower.control import appspecs
from tower.control.appspecs import Declared
from tower.identity.principal import Principal
from tower.states import AppStatus, Desired
from tower.store import apps as store
from tower.store import policies as limits
from tower.store.apps import AppRow
from tower.store.database import Transaction


def row(
    tx: Transaction,
    declared: Declared,
    *,
    code: str,
    principal: Principal,
    revision: int,
    before: AppRow | None,
) -> AppRow:
    """An app as it was declared; `before` is the revision that it takes the place of."""
    desired = declared.desired if before is None else before.desired
    return AppRow(
        project=declared.project,
        domain=declared.domain,
        name=declared.name,
        host=_host(tx, declared) if before is None else before.host,
        revision=revision,
        spec=declared.stored(revision=revision, creator=principal.subject),
        digest=declared.digest,
        code_digest=code,
        description=declared.description,
        requires_auth=declared.requires_auth,
        desired=desired,
        status=AppStatus.STOPPED if desired is Desired.STOPPED else AppStatus.PENDING,
        message="",
        deployed_by=principal.subject,
        created_at=tx.now if before is None else before.created_at,
        updated_at=tx.now,
        started_at=None if before is None else before.started_at,
    )


def move(tx: Transaction, row: AppRow, desired: Desired, *, written: bool) -> AppRow:
    """Want something else of the app: it winds down or starts, as the running side then reports."""
    if desired is Desired.STOPPED:
        status = AppStatus.SCALING_DOWN
    elif row.desired is Desired.STOPPED or written:
        status = AppStatus.PENDING
    else:
        status = row.status
    moved = replace(
        row,
        desired=desired,
        status=status,
        message="",
        updated_at=tx.now,
        spec=appspecs.with_desired(row, desired),
    )
    store.set_desired(tx, moved)
    return moved


def limit(tx: Transaction, declared: Declared, *, by: str) -> None:
    """What the app declares that it may do for people at most; what administrators say is besides it."""
    place = (declared.project, declared.domain, declared.name)
    if declared.ceiling:
        limits.put_ceiling(tx, limits.CeilingRow(*place, "deploy", declared.ceiling, tx.now, by))
    else:
        limits.remove_ceiling(tx, *place, source="deploy")


def _host(tx: Transaction, declared: Declared) -> str:
    plain = appspecs.label(declared.project, declared.domain, declared.name)
    if not store.host_taken(tx, plain):
        return plain
    return appspecs.label(declared.project, declared.domain, declared.name, distinct=True)

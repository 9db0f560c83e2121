"""The first start: an administrator, and their key in a file that only the machine's operator can read."""

from __future__ import annotations

from pathlib import Path

from tower.control.access import Access
from tower.control.apikeys import ApiKeys
from tower.control.identities import Identities
from tower.control.keyrows import key_row
from tower.identity import keys
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Kind
from tower.identity.signing import write_private
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.rules import ANY, Role
from tower.store import identities as store
from tower.store.database import Database, Transaction
from tower.store.identities import BindingRow

FIRST_ADMIN = "admin"
FILE = "admin-key"


async def bootstrap(
    *, db: Database, access: Access, identities: Identities, api_keys: ApiKeys, home: Path
) -> Path | None:
    """Make the administrator when there is no user yet; where the key lies (mode 0600), else None.

    Nothing is shared between two fresh starts: the key comes from the random source (T14).
    """
    if not await db.read(store.nobody):
        return None
    made = keys.generate()
    decision = await access.check(MACHINE, Action.USER_MANAGE, Resource(ResourceType.ORG))

    def write(tx: Transaction) -> None:
        identities.insert_user(tx, MACHINE, decision, subject=FIRST_ADMIN, kind=Kind.USER, name=FIRST_ADMIN)
        binding = BindingRow(FIRST_ADMIN, Role.ADMIN, ANY, ANY, tx.now, MACHINE.subject)
        identities.insert_binding(tx, MACHINE, decision, binding)
        row = key_row(made, name=FIRST_ADMIN, subject=FIRST_ADMIN, now=tx.now, by=MACHINE.subject)
        api_keys.insert(tx, MACHINE, decision, row, made)

    path = home / FILE
    path.unlink(missing_ok=True)  # of an earlier database in this home
    write_private(path, f"{made.text}\n".encode())
    await db.write(write)
    return path

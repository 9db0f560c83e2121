"""The rooms of policy and audit, put together."""

from __future__ import annotations

from tower.clock import Clock
from tower.control.access import Access
from tower.control.asking import Asking
from tower.control.auditing import Auditing
from tower.control.ceilings import Ceilings
from tower.control.definitions import Definitions
from tower.control.directory import Directory
from tower.control.groups import Groups
from tower.control.policies import Policies
from tower.control.vouching import Vouching
from tower.identity.signing import Signing, SigningKey
from tower.rest.routes import Governance
from tower.settings import Settings
from tower.store.database import Database


def governance(
    *,
    settings: Settings,
    db: Database,
    clock: Clock,
    access: Access,
    directory: Directory,
    definitions: Definitions,
    key: SigningKey,
    ring: Signing,
) -> Governance:
    """The keys of `ring` sign the checkpoints of the audit chain; `key` vouches for each of them."""
    return Governance(
        policies=Policies(db=db, access=access),
        groups=Groups(db=db, access=access, directory=directory),
        ceilings=Ceilings(db=db, access=access, directory=directory),
        asking=Asking(db=db, access=access, directory=directory, definitions=definitions),
        auditing=Auditing(
            db=db,
            clock=clock,
            access=access,
            vouching=Vouching(root=key, ring=ring, clock=clock, home=settings.home),
            home=settings.home,
            retention=settings.audit_retention,
        ),
    )

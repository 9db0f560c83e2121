"""The rooms of policy and audit, put together."""

from __future__ import annotations

from tower.control.asking import Asking
from tower.control.auditing import Auditing
from tower.control.ceilings import Ceilings
from tower.control.definitions import Definitions
from tower.control.groups import Groups
from tower.control.policies import Policies
from tower.control.vouching import Vouching
from tower.identity.signing import Signing
from tower.main.foundations import Foundations
from tower.rest.routes import Governance


def governance(base: Foundations, *, definitions: Definitions, ring: Signing) -> Governance:
    """The keys of `ring` sign the checkpoints of the audit chain; that of `base` vouches for each of them."""
    db, access, directory = base.db, base.access, base.directory
    return Governance(
        policies=Policies(db=db, access=access),
        groups=Groups(db=db, access=access, directory=directory),
        ceilings=Ceilings(db=db, access=access, directory=directory),
        asking=Asking(db=db, access=access, directory=directory, definitions=definitions),
        auditing=Auditing(
            db=db,
            clock=base.clock,
            access=access,
            vouching=Vouching(root=base.key, ring=ring, clock=base.clock, home=base.settings.home),
            home=base.settings.home,
            retention=base.settings.audit_retention,
        ),
    )

"""The rooms of secrets and of what a running task says of itself outside, put together."""

from __future__ import annotations

from collections.abc import Callable

from tower.control.definitions import Definitions
from tower.control.outside import Outside
from tower.control.projects import Projects
from tower.control.redaction import Redaction
from tower.control.secrets import Secrets
from tower.control.secretuse import SecretUse
from tower.control.starting import Starting
from tower.identity.outside import OutsideRing
from tower.identity.sealing import SealingKeys
from tower.main.foundations import Foundations
from tower.rest.routes import Confidences

KEY_FILE = "secrets.key"
"""In the home, never in the database: what secrets are sealed with."""


def confidences(
    base: Foundations,
    *,
    projects: Projects,
    definitions: Definitions,
    redaction: Redaction,
    ring: OutsideRing,
    ours: Callable[[str], bool],
) -> Confidences:
    """`ring` signs identity tokens, `ours` knows Tower's own base URLs.

    Makes the key of secrets on a first start. Raises Broken for one that others can read.
    """
    db, access, clock = base.db, base.access, base.clock
    keys = SealingKeys.load_or_create(base.settings.home / KEY_FILE)
    starting = Starting()
    return Confidences(
        secrets=Secrets(db=db, access=access, projects=projects, keys=keys),
        use=SecretUse(
            db=db,
            access=access,
            definitions=definitions,
            keys=keys,
            redaction=redaction,
            starting=starting,
            clock=clock,
        ),
        starting=starting,
        outside=Outside(
            db=db,
            clock=clock,
            access=access,
            definitions=definitions,
            ring=ring,
            redaction=redaction,
            settings=base.settings,
            ours=ours,
        ),
        redaction=redaction,
    )

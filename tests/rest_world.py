"""The administration door over the identity rooms, as main builds it."""

from __future__ import annotations

from tests.identity_world import HOST, World

from tower.control.definitions import Definitions
from tower.control.events import Events
from tower.control.inputs import Inputs
from tower.control.projects import Projects
from tower.control.redaction import Redaction
from tower.control.schedules import Schedules
from tower.control.standinggrants import StandingGrants
from tower.control.webhooks import Webhooks
from tower.identity.outside import OutsideRing
from tower.identity.signing import SigningKey
from tower.main.confidences import confidences
from tower.main.foundations import Foundations
from tower.rest.door import Door, build
from tower.store.blobs import Blobs


def rest_door(world: World) -> Door:
    """The door; whatever Host header comes, it knows itself as that one or as HOST."""
    db, access, clock = world.db, world.access, world.clock
    key = SigningKey.generate()
    return build(
        chain=world.chain,
        access=access,
        identities=world.identities,
        api_keys=world.api_keys,
        logins=world.logins,
        accounts=world.oauth.accounts,
        signing_keys=world.oauth.signing_keys,
        standing_grants=StandingGrants(
            db=db, clock=clock, access=access, events=Events(), settings=world.settings
        ),
        schedules=Schedules(
            db=db,
            clock=clock,
            access=access,
            events=Events(),
            definitions=Definitions(db=db),
            inputs=Inputs(blobs=Blobs(world.home / "blobs", db=db), limit=world.settings.max_inputs),
            projects=Projects(db=db, access=access),
            settings=world.settings,
        ),
        governance=world.governance,
        webhooks=Webhooks(db=db, access=access, directory=world.directory, key=key),
        confidences=confidences(
            Foundations(
                settings=world.settings,
                clock=clock,
                db=db,
                directory=world.directory,
                access=access,
                key=key,
            ),
            projects=Projects(db=db, access=access),
            definitions=Definitions(db=db),
            redaction=Redaction(),
            ring=OutsideRing(world.home / "identity-keys", clock=clock),
            ours=lambda url: url == f"http://{HOST}",
        ),
        base_url=lambda host: f"http://{host or HOST}",
        org="tower",
    )

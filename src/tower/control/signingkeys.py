"""Rotating the key that signs tokens, on the machine itself."""

from __future__ import annotations

from dataclasses import replace

from tower.audit import Event
from tower.control.access import Access
from tower.errors import Denied
from tower.identity.keyring import KeyRing
from tower.identity.outside import OutsideRing
from tower.identity.principal import Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.store.database import Database


class SigningKeys:
    """The use-case of `/api/v1/signing-keys`."""

    def __init__(
        self, *, db: Database, access: Access, ring: KeyRing, outside: OutsideRing | None = None
    ) -> None:
        """`outside` has the keys of identity tokens, which are changed along."""
        self._outside = outside
        self._db = db
        self._access = access
        self._ring = ring

    async def rotate(self, principal: Principal, *, request_id: str = "") -> str:
        """The id of the new key. What the older ones signed goes on to hold until it expires."""
        decision = await self._access.require(
            principal, Action.USER_MANAGE, Resource(ResourceType.ORG), request_id=request_id
        )
        if principal.kind is not Kind.MACHINE:
            refused = replace(decision, allowed=False, policies=("on-the-machine-alone",))
            await self._access.refuse(principal, refused, request_id=request_id)
            raise Denied("Signing keys are rotated on the machine itself.", hint="tower keys rotate-signing")
        made = self._ring.rotate()
        if self._outside is not None:
            self._outside.rotate()
        await self._db.write(
            lambda tx: self._access.record(
                tx,
                principal,
                decision,
                event=Event.SIGNING_KEY_ROTATE,
                request_id=request_id,
                detail={"kid": made.kid},
            )
        )
        return made.kid

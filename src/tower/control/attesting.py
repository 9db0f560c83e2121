"""What a running attempt may take along from its socket: a token, for clients that cannot use a socket."""

from __future__ import annotations

from collections import OrderedDict

from tower.audit import Event
from tower.clock import Clock
from tower.control.access import Access
from tower.control.redaction import Redaction
from tower.errors import Denied
from tower.identity.principal import CredentialKind, Principal
from tower.identity.runtokens import RunTokens
from tower.policy.actions import Action, Resource, ResourceType
from tower.settings import Settings
from tower.store.database import Database

_REMEMBERED = 4096
_FRESH_PART = 0.5  # a token is handed out again while at least this part of its life is left


class Attesting:
    """The use-cases behind the routes that sockets of attempts alone have."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        tokens: RunTokens,
        redaction: Redaction,
        settings: Settings,
    ) -> None:
        self._db = db
        self._clock = clock
        self._access = access
        self._tokens = tokens
        self._redaction = redaction
        self._life = settings.run_token_life
        self._issued: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def run_token(self, principal: Principal, *, request_id: str) -> str:
        """A run token of minutes for the attempt that calls over its own socket. Raises Denied for others.

        An attempt gets the same token until half of its life is over.
        """
        credential = principal.credential
        if credential.kind is not CredentialKind.WORKLOAD or not credential.attested:
            raise Denied("Only a running task gets a run token, over its own socket.")
        now = self._clock.now()
        known = self._issued.get(credential.id)
        if known is not None and known[1] > now:
            return known[0]
        decision = await self._access.require(
            principal, Action.SELF_VIEW, Resource(ResourceType.ORG), request_id=request_id
        )
        token, claims = self._tokens.mint(subject=principal.subject, attempt=credential.id, life=self._life)
        await self._db.write(
            lambda tx: self._access.record(
                tx,
                principal,
                decision,
                event=Event.TOKEN_CREATE,
                request_id=request_id,
                detail={"kind": "run", "token": claims.id, "expires_at": claims.expires_at},
            )
        )
        self._redaction.add(credential.id, [token.encode()])
        self._issued[credential.id] = token, now + self._life * _FRESH_PART
        while len(self._issued) > _REMEMBERED:
            self._issued.popitem(last=False)
        return token

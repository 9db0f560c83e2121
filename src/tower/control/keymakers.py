"""Who may make a key, and whom it is not above: it is never more than its maker (T35)."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace

from tower.control import keysofwork
from tower.control.access import Access
from tower.control.directory import Directory
from tower.errors import Denied
from tower.identity.authenticators import MACHINE
from tower.identity.principal import CredentialKind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.store.identities import KeyRow


class KeyMakers:
    """What is asked about the caller before a key is made. Every refusal is recorded."""

    def __init__(self, *, access: Access, directory: Directory) -> None:
        self._access = access
        self._directory = directory

    async def admit(self, principal: Principal, *, request_id: str) -> None:
        """Raise Denied for a caller who acts for somebody, or below a limit that a new key would lack."""
        if keysofwork.works(principal):
            return  # its privileges say so
        hosted = principal.credential.kind in {CredentialKind.APP_TOKEN, CredentialKind.WORKLOAD}
        if not hosted and not any(not ceiling.person for ceiling in principal.ceilings):
            return
        decision = await self._access.check(principal, Action.KEY_MANAGE_OWN, Resource(ResourceType.KEY))
        await self._access.refuse(principal, decision, request_id=request_id)
        if hosted:
            raise Denied("Tasks and apps make no keys.", hint="Make it with your own credential.")
        raise Denied("A limited credential makes no keys.", hint="Use one without a limit.")

    async def bounds(
        self,
        principal: Principal,
        decision: Decision,
        actions: Collection[str] | None,
        *,
        owner: str,
        request_id: str,
    ) -> tuple[Collection[str] | None, str]:
        """The actions of a new key of `owner`, None for all, and whom it is not above, "" for nobody."""
        maker = _maker(principal, owner)
        await self._one_maker(principal, decision, owner, request_id)
        if not keysofwork.works(principal):
            return actions, maker
        mine = await self._of_work(principal, decision, actions, owner=owner, request_id=request_id)
        return mine.actions, _together(principal, owner, mine.maker, maker)

    async def renewing(
        self, principal: Principal, decision: Decision, row: KeyRow, *, request_id: str
    ) -> str:
        """Whom the key is not above that takes the place of this one, "" for nobody."""
        maker = _maker(principal, row.subject)
        await self._one_maker(principal, decision, row.subject, request_id)
        if not keysofwork.works(principal):
            return maker
        asked = None if row.actions is None else json.loads(row.actions)
        mine = await self._of_work(principal, decision, asked, owner=row.subject, request_id=request_id)
        if row.actions is None or row.maker not in {"", mine.maker}:
            await self._refused(principal, decision, request_id)
            raise Denied("This key is above the work that would rotate it.", hint="Rotate it yourself.")
        return _together(principal, row.subject, mine.maker, maker)

    async def end(self, principal: Principal) -> float | None:
        """When the key ends that the caller showed, or that the caller's access token lives from (T35)."""
        credential = principal.credential
        if credential.kind is CredentialKind.ACCESS_TOKEN:
            key = await self._directory.key(credential.parent)
            return None if key is None else key.expires_at
        return credential.expires_at if credential.kind is CredentialKind.API_KEY else None

    async def _one_maker(self, principal: Principal, decision: Decision, owner: str, request_id: str) -> None:
        """Raise Denied where a key would need two makers: such a key makes none for third persons."""
        if keysofwork.works(principal) or owner == principal.subject:
            return
        if any(ceiling.person for ceiling in principal.ceilings):
            await self._refused(principal, decision, request_id)
            raise Denied(
                "A key that somebody else made for you makes keys for you alone.",
                hint="Use one that you made yourself.",
            )

    async def _of_work(
        self,
        principal: Principal,
        decision: Decision,
        actions: Collection[str] | None,
        *,
        owner: str,
        request_id: str,
    ) -> keysofwork.Limits:
        try:
            return keysofwork.limits(principal, actions, owner=owner)
        except Denied:
            await self._refused(principal, decision, request_id)
            raise

    async def _refused(self, principal: Principal, decision: Decision, request_id: str) -> None:
        refused = replace(decision, allowed=False, policies=("above-the-work",))
        await self._access.refuse(principal, refused, request_id=request_id)


def _maker(principal: Principal, owner: str) -> str:
    """Whom a new key of `owner` is not above: its maker, or the maker of the key that it is made with."""
    if principal.subject not in {owner, MACHINE.subject}:
        return principal.subject
    return next((ceiling.person for ceiling in principal.ceilings if ceiling.person), "")


def _together(principal: Principal, owner: str, above: str, maker: str) -> str:
    """Who let the work make keys, or for somebody else's key the one whom the work runs as."""
    return above or (owner != principal.subject and maker) or ""

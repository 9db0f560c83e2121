"""The rooms of accounts and of the OAuth server, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tower.clock import Clock
from tower.control.access import Access
from tower.control.accounts import Accounts
from tower.control.directory import Directory
from tower.control.grants import Grants
from tower.control.logins import Logins
from tower.control.oauth import Authorisations, Devices, Issuing, Tokens
from tower.control.signingkeys import SigningKeys
from tower.identity.accesstokens import AccessTokens
from tower.identity.chain import Chain
from tower.identity.keyring import KeyRing
from tower.identity.outside import OutsideRing
from tower.identity.signing import SigningKey
from tower.oauth import door
from tower.settings import Settings
from tower.store.database import Database

FOLDER = "signing-keys"
"""In the home: the keys that sign tokens, one file each."""


@dataclass(frozen=True, slots=True)
class OAuth:
    """Built-in accounts, the OAuth server's use-cases and its door."""

    accounts: Accounts
    devices: Devices
    signing_keys: SigningKeys
    door: door.Door


def oauth(
    *,
    settings: Settings,
    db: Database,
    clock: Clock,
    access: Access,
    directory: Directory,
    logins: Logins,
    chain: Chain,
    grants: Grants,
    secret: SigningKey,
    ring: KeyRing,
    outside: OutsideRing | None = None,
    tokens: AccessTokens,
    issuer: Callable[[str], str],
) -> OAuth:
    """`issuer` gives Tower's public base URL for a Host header; of `secret` other secrets are derived."""
    issuing = Issuing(
        access=access, directory=directory, tokens=tokens, secret=secret, clock=clock, settings=settings
    )
    devices = Devices(db=db, clock=clock, access=access, issuing=issuing, settings=settings)
    return OAuth(
        accounts=Accounts(db=db, clock=clock, access=access, directory=directory, logins=logins),
        devices=devices,
        signing_keys=SigningKeys(db=db, access=access, ring=ring, outside=outside),
        door=door.build(
            door.Parts(
                chain=chain,
                access=access,
                authorisations=Authorisations(db=db, access=access, issuing=issuing),
                devices=devices,
                tokens=Tokens(
                    db=db,
                    clock=clock,
                    access=access,
                    directory=directory,
                    chain=chain,
                    grants=grants,
                    issuing=issuing,
                    tokens=tokens,
                    settings=settings,
                ),
                keys=(ring,) if outside is None else (ring, outside),
                issuer=issuer,
            )
        ),
    )

"""The rooms of accounts and of the OAuth server, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tower.control.accounts import Accounts
from tower.control.grants import Grants
from tower.control.logins import Logins
from tower.control.oauth import Authorisations, Devices, Issuing, Tokens
from tower.control.signingkeys import SigningKeys
from tower.identity.accesstokens import AccessTokens
from tower.identity.chain import Chain
from tower.identity.keyring import KeyRing
from tower.identity.outside import OutsideRing
from tower.main.foundations import Foundations
from tower.oauth import door

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
    base: Foundations,
    *,
    logins: Logins,
    chain: Chain,
    grants: Grants,
    ring: KeyRing,
    outside: OutsideRing | None = None,
    tokens: AccessTokens,
    issuer: Callable[[str], str],
) -> OAuth:
    """`issuer` gives Tower's public base URL for a Host header."""
    db, clock, access, directory, settings = base.db, base.clock, base.access, base.directory, base.settings
    issuing = Issuing(
        access=access, directory=directory, tokens=tokens, secret=base.key, clock=clock, settings=settings
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

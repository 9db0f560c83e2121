"""The rooms of identity providers, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tower.clock import Clock
from tower.control.access import Access
from tower.control.directory import Directory
from tower.control.externals import Externals
from tower.control.federation import Federation
from tower.control.logins import Logins
from tower.errors import Invalid
from tower.identity.oidc.bearers import ForeignTokens
from tower.identity.oidc.codeflow import CodeFlow
from tower.identity.oidc.provider import Provider
from tower.identity.signing import SigningKey
from tower.settings import Settings
from tower.store.database import Database


@dataclass(frozen=True, slots=True)
class Oidc:
    """Who reads the tokens of other issuers, and the sign-in with them."""

    tokens: ForeignTokens
    admission: Externals
    federation: Federation


def oidc(
    *,
    settings: Settings,
    db: Database,
    clock: Clock,
    access: Access,
    directory: Directory,
    logins: Logins,
    secret: SigningKey,
    ours: Callable[[str], bool],
) -> Oidc:
    """Raises Invalid for an issuer that is Tower itself: `ours` tells by its address."""
    for each in settings.issuers:
        if ours(each.issuer.rstrip("/")) and (urlsplit(each.issuer).port or 443) == settings.port:
            raise Invalid(f"The issuer of oidc.{each.alias} is this Tower itself.")
    providers = [Provider(each, clock=clock) for each in settings.issuers]
    externals = Externals(db=db, access=access, directory=directory, logins=logins, issuers=settings.issuers)
    return Oidc(
        tokens=ForeignTokens(
            providers=[each for each in providers if each.settings.audiences],
            admission=externals,
            directory=directory,
            clock=clock,
        ),
        admission=externals,
        federation=Federation(
            providers=providers,
            flow=CodeFlow(secret=secret.derive("oidc code flow"), clock=clock),
            externals=externals,
        ),
    )

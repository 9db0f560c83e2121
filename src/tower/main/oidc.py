"""The rooms of identity providers, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tower.control.externals import Externals
from tower.control.federation import Federation
from tower.control.logins import Logins
from tower.errors import Invalid
from tower.identity.oidc.bearers import ForeignTokens
from tower.identity.oidc.codeflow import CodeFlow
from tower.identity.oidc.provider import Provider
from tower.main.foundations import Foundations


@dataclass(frozen=True, slots=True)
class Oidc:
    """Who reads the tokens of other issuers, and the sign-in with them."""

    tokens: ForeignTokens
    admission: Externals
    federation: Federation


def oidc(base: Foundations, *, logins: Logins, ours: Callable[[str], bool]) -> Oidc:
    """Raises Invalid for an issuer that is Tower itself: `ours` tells by its address."""
    issuers, clock = base.settings.issuers, base.clock
    for each in issuers:
        if ours(each.issuer.rstrip("/")) and (urlsplit(each.issuer).port or 443) == base.settings.port:
            raise Invalid(f"The issuer of oidc.{each.alias} is this Tower itself.")
    providers = [Provider(each, clock=clock) for each in issuers]
    externals = Externals(
        db=base.db, access=base.access, directory=base.directory, logins=logins, issuers=issuers
    )
    return Oidc(
        tokens=ForeignTokens(
            providers=[each for each in providers if each.settings.audiences],
            admission=externals,
            directory=base.directory,
            clock=clock,
        ),
        admission=externals,
        federation=Federation(
            providers=providers,
            flow=CodeFlow(secret=base.key.derive("oidc code flow"), clock=clock),
            externals=externals,
        ),
    )

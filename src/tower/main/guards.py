"""What names callers, decides for them and records it, in the composition."""

from __future__ import annotations

from dataclasses import dataclass

from tower.control.access import Access
from tower.control.standing import Standing
from tower.identity.chain import Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """The makers of a house's guards. `tower up` has these and no other, and no setting changes them."""

    chain: type[Chain] = Chain
    access: type[Access] = Access
    standing: type[Standing] = Standing


GUARDS = Guards()

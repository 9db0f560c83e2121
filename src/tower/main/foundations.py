"""What nearly every room stands on, handed on as one thing by whoever puts rooms together."""

from __future__ import annotations

from dataclasses import dataclass

from tower.clock import Clock
from tower.control.access import Access
from tower.control.directory import Directory
from tower.identity.signing import SigningKey
from tower.settings import Settings
from tower.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundations:
    """Of `key`, the installation's own, other secrets are derived; it vouches for the audit."""

    settings: Settings
    clock: Clock
    db: Database
    directory: Directory
    access: Access
    key: SigningKey

"""A Tower that lets everybody do everything, to measure what identity and policy cost (`bench.identity`).

The composition is that of `tower up` with other guards: whoever calls is one and the same person, whatever
they show; every question is answered with yes before it is looked at; every attempt may start and go on. With
`--unrecorded` nothing is written to the audit chain either. All the rest is as shipped: rows with who asked,
the socket of each attempt and its checks by the kernel, isolation, logs.

    TOWER_HOME=DIR python -m bench.permissive [--unrecorded]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tower.audit import Record
from tower.control.access import Access
from tower.control.standing import Standing
from tower.identity.chain import Chain, Presented
from tower.identity.principal import Credential, CredentialKind, Kind, Principal
from tower.identity.workload import WorkloadKind
from tower.main import Guards, up
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.settings import Settings
from tower.store.database import Transaction

ANYBODY = Principal(
    subject="bench",
    kind=Kind.USER,
    name="bench",
    credential=Credential(CredentialKind.API_KEY, "permissive"),
)
YES = Decision(True, ("permissive",), "permissive")


class AnyoneIn(Chain):
    """Looks at no credential. The operator's own socket stays what it is: it adds the person at the start."""

    async def authenticate(self, presented: Presented) -> Principal:
        """The one person there is."""
        workload = presented.workload
        if workload is not None and workload.kind is WorkloadKind.ADMIN:
            return await super().authenticate(presented)
        return ANYBODY


class Unguarded(Access):
    """Says yes."""

    async def check(self, principal: Principal, action: Action, resource: Resource, **_: Any) -> Decision:
        """Yes."""
        return YES

    async def check_under(
        self, engine: object, principal: Principal, action: Action, resource: Resource, **_: Any
    ) -> Decision:
        """Yes."""
        return YES

    async def require(self, principal: Principal, action: Action, resource: Resource, **_: Any) -> Decision:
        """Yes."""
        return YES

    async def warning(self, principal: Principal, author: str) -> str:
        """None."""
        return ""

    async def looks_at_names(self, principal: Principal, type_: ResourceType) -> bool:
        """No."""
        return False


class Unrecorded(Unguarded):
    """Says yes, and keeps no record of it."""

    def record(
        self, tx: Transaction, principal: Principal, decision: Decision, *, event: str, **_: Any
    ) -> None:
        """Nothing."""

    def append(self, tx: Transaction, record: Record) -> None:
        """Nothing."""


class Unending(Standing):
    """Every attempt acts for the one person, for ever."""

    async def attempt(self, attempt_id: str) -> Principal | None:
        """The one person there is."""
        return ANYBODY


def main(environment: Mapping[str, str], *, recorded: bool) -> None:
    """Serve until SIGTERM."""
    access = Unguarded if recorded else Unrecorded
    home = Path(environment["TOWER_HOME"])
    up(Settings(home=home, port=0), Guards(chain=AnyoneIn, access=access, standing=Unending))


if __name__ == "__main__":
    main(os.environ, recorded="--unrecorded" not in sys.argv[1:])

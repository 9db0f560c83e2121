"""The policy cases of tests/cases/policy, through access and a database, with the record each leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.identity_world import World

from tower import errors
from tower.audit import verify
from tower.identity.principal import Ceiling, Credential, CredentialKind, Kind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.store import audit
from tower.store.schema import bindings, users

FOLDER = Path(__file__).parents[2] / "cases" / "policy"
CASES = [
    pytest.param(case, id=f"{file.stem}: {case['name']}")
    for file in sorted(FOLDER.glob("*.json"))
    for case in json.loads(file.read_text())
]


@pytest.mark.parametrize("case", CASES)
async def test_policy_case(world: World, case: dict[str, Any]) -> None:
    def give(tx: Any) -> None:
        tx.insert(
            users, subject="alice", kind="user", name="", email="", created_at=0.0, created_by="machine"
        )
        for role, project, domain in case["bindings"]:
            tx.insert(
                bindings,
                subject="alice",
                role=role,
                project=project,
                domain=domain,
                created_at=0.0,
                created_by="machine",
            )

    await world.db.write(give)
    alice = Principal(
        subject="alice",
        kind=Kind.USER,
        name="",
        credential=Credential(CredentialKind.API_KEY, "k1"),
        ceilings=tuple(
            Ceiling(**{**ceiling, "forbidden": frozenset(ceiling.get("forbidden", ()))})
            for ceiling in case.get("ceilings", ())
        ),
    )
    place = case["resource"]
    resource = Resource(
        **{
            **{name: value for name, value in place.items() if name != "type"},
            "type": ResourceType(place["type"]),
        }
    )
    action, view = Action(case["action"]), Action(case["view"]) if "view" in case else None
    if case["allowed"]:
        decision = await world.access.require(alice, action, resource, request_id="q1", view=view)
        await world.db.write(
            lambda tx: world.access.record(tx, alice, decision, event="run.create", request_id="q1")
        )
    else:
        with pytest.raises(errors.Fault) as refused:
            await world.access.require(alice, action, resource, request_id="q1", view=view)
        assert type(refused.value).__name__ == case["raises"]
    (record,) = await world.records(subject="alice")
    written = {name: getattr(record, name) for name in case["audit"]}
    assert written == case["audit"]
    assert (record.request_id, record.credential_id) == ("q1", "k1")
    assert record.policy_revision == world.access.revision
    assert await world.db.read(lambda reader: verify(audit.chain(reader))) is None

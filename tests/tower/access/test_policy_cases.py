"""The policy cases of tests/cases/policy, through access and a database, with the record each leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.identity_world import World

from tower import errors
from tower.audit import verify
from tower.control.ceilings import Limits
from tower.identity.authenticators import MACHINE
from tower.identity.principal import (
    Actor,
    ActorKind,
    Ceiling,
    Credential,
    CredentialKind,
    Kind,
    Principal,
)
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.rulebook import Written
from tower.store import audit
from tower.store.schema import bindings, group_members, groups, users

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
        given = [("alice", each) for each in case["bindings"]]
        for group, theirs in case.get("groups", {}).items():
            tx.insert(groups, name=group, created_at=0.0, created_by="machine")
            tx.insert(group_members, group=group, subject="alice")
            given += [(f"group:{group}", each) for each in theirs]
        for subject, each in given:
            role, project, domain, kind, name = (*each, "", "")[:5]
            tx.insert(
                bindings,
                subject=subject,
                role=role,
                project=project,
                domain=domain,
                kind=kind,
                name=name,
                created_at=0.0,
                created_by="machine",
            )

    await world.db.write(give)
    for name, actions in case.get("roles", {}).items():
        await world.governance.policies.put_role(MACHINE, name, frozenset(actions), create=True)
    for name, policy in case.get("policies", {}).items():
        text = policy if isinstance(policy, str) else policy.pop("text")
        scope = {} if isinstance(policy, str) else policy
        await world.governance.policies.put_policy(MACHINE, Written(name, text, **scope), create=True)
    for app, limits in case.get("apps", {}).items():
        lists = {name: frozenset(each) for name, each in limits.items()}
        await world.governance.ceilings.set(MACHINE, *app.split("/"), Limits(**lists))
    alice = Principal(
        subject="alice",
        kind=Kind.USER,
        name="",
        credential=Credential(CredentialKind.API_KEY, "k1"),
        ceilings=tuple(
            Ceiling(
                **{key: frozenset(each) if isinstance(each, list) else each for key, each in ceiling.items()}
            )
            for ceiling in case.get("ceilings", ())
        ),
        actors=tuple(Actor(ActorKind.APP, app) for app in case.get("through", ())),
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
        decision = await world.access.require(
            alice, action, resource, request_id="q1", view=view, author=case.get("author", "")
        )
        await world.db.write(
            lambda tx: world.access.record(tx, alice, decision, event="run.create", request_id="q1")
        )
    else:
        with pytest.raises(errors.Fault) as refused:
            await world.access.require(
                alice, action, resource, request_id="q1", view=view, author=case.get("author", "")
            )
        assert type(refused.value).__name__ == case["raises"]
    (record,) = await world.records(subject="alice")
    written = {name: getattr(record, name) for name in case["audit"]}
    assert written == case["audit"]
    assert (record.request_id, record.credential_id) == ("q1", "k1")
    assert record.policy_revision == world.access.revision
    assert await world.db.read(lambda reader: verify(audit.chain(reader))) is None

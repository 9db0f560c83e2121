"""What a running task may ask for: its own children and nothing else (T38), within limits, each once."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flyteidl2.task import task_service_pb2
from tests.rpc_world import DOMAIN, PROJECT, RpcWorld, named, task_id, task_spec

from tower.control.handovers import Handovers
from tower.control.lineage import MAX_DEPTH
from tower.control.rawdata import RawData
from tower.control.subactions import DATA, Ask, SubActions
from tower.control.waiting import Waiting
from tower.errors import AlreadyExists, Denied, Exhausted, Invalid, NotFound, Precondition
from tower.identity.authenticators import MACHINE
from tower.identity.principal import Principal
from tower.identity.workload import Workload, WorkloadKind
from tower.states import Phase
from tower.store import runs as store
from tower.store.runs import ActionKey, ActionRow


def packed(**inputs: Any) -> str:
    """Inputs as they travel in the message."""
    data = named(inputs).SerializeToString(deterministic=True)
    return DATA + base64.b64encode(data).decode()


@dataclass
class Family:
    """A running task of alice's that may ask for others."""

    rpc: RpcWorld
    subactions: SubActions
    waiting: Waiting
    key: ActionKey
    principal: Principal
    handovers: Handovers

    def ask(self, action: str = "c1", *, task: str = "env.main", version: str = "", **inputs: Any) -> Ask:
        return Ask(
            key=self.key._replace(action=action),
            parent=self.key.action,
            task=(PROJECT, DOMAIN, task),
            version=version,
            spec=None,
            inputs_uri=packed(**(inputs or {"x": 1})),
        )

    async def enqueue(self, asked: Ask, principal: Principal | None = None) -> ActionKey:
        return await self.subactions.enqueue(principal or self.principal, asked, request_id="q")

    def row(self, key: ActionKey) -> ActionRow:
        row = self.rpc.world.db.read_now(lambda reader: store.get(reader, key))
        assert row is not None
        return row

    async def attempt_of(self, key: ActionKey) -> Principal:
        """Have the action run, and name whom its attempt acts for."""
        from sqlalchemy import insert, update

        from tower.store.schema import actions, attempts

        place = key._asdict()

        def write(tx: Any) -> None:
            where = [actions.c[name] == value for name, value in place.items()]
            tx.execute(update(actions).where(*where).values(phase=int(Phase.RUNNING), attempts=1))
            tx.execute(insert(attempts).values(**place, attempt=1, phase=4, created_at=0.0, has_logs=False))

        await self.rpc.world.db.write(write)
        return await self.rpc.world.who(workload=Workload(WorkloadKind.ATTEMPT, "/".join((*key, "1")), 1))


async def family_of(
    rpc: RpcWorld, person: str = "alice", role: str = "contributor", *, deploy: bool = True
) -> Family:
    caller = rpc.caller(await rpc.world.person(person, role))
    waiting, handovers = Waiting(events=rpc.events), Handovers(blobs=rpc.blobs)
    subactions = SubActions(
        db=rpc.world.db,
        access=rpc.world.access,
        events=rpc.events,
        definitions=rpc.definitions,
        inputs=rpc.inputs,
        runs=rpc.runs,
        waiting=waiting,
        handovers=handovers,
        rawdata=RawData(
            db=rpc.world.db,
            blobs=rpc.blobs,
            access=rpc.world.access,
            attempts=rpc.world.directory,
            limit=1 << 20,
        ),
        settings=rpc.world.settings,
    )
    if deploy:
        await rpc.deploy(caller)
    run = await rpc.run(caller, x=100)
    key = ActionKey(PROJECT, DOMAIN, run.action.id.run.name)
    made = Family(rpc, subactions, waiting, key, None, handovers)  # type: ignore[arg-type]
    made.principal = await made.attempt_of(key)
    return made


async def test_a_child_belongs_to_the_attempt_that_asks(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    key = await family.enqueue(family.ask())
    row = family.row(key)
    assert (row.run, row.parent, row.executed_by) == (family.key.run, "a0", "alice")
    assert (row.phase, row.turn, row.task_name) == (Phase.QUEUED, -1, "env.main")
    assert row.actors == f'["run:{"/".join(family.key)}/1"]'
    (record,) = await rpc.world.records(event="run.create", limit=1)
    assert '"action":"c1"' in record.detail.replace(" ", "")


@pytest.mark.parametrize(
    "forged",
    [{"run": "r-of-somebody"}, {"project": "other"}, {"domain": "production"}],
)
async def test_t38_a_run_of_somebody_else_is_refused_and_recorded(
    rpc: RpcWorld, forged: dict[str, str]
) -> None:
    family = await family_of(rpc)
    asked = family.ask()
    with pytest.raises(Denied):
        await family.enqueue(replace(asked, key=asked.key._replace(**forged)))
    records = await rpc.world.records(outcome="refused", limit=5)
    assert any("not-its-own-run" in record.decision for record in records)


async def test_t38_another_parent_is_refused(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    with pytest.raises(Denied):
        await family.enqueue(replace(family.ask(), parent="c9"))
    stream = family.subactions.follow(family.principal, family.key._replace(action="c9"), request_id="q")
    with pytest.raises(Denied):
        await anext(stream)


async def test_only_running_tasks_ask(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    key = await rpc.world.key("second", "alice")
    person = await rpc.world.who(bearer=key)
    with pytest.raises(Denied, match="running task"):
        await family.enqueue(family.ask(), person)
    await rpc.move(family.key.run, Phase.SUCCEEDED)
    with pytest.raises(Precondition):
        await family.enqueue(family.ask())


async def test_the_same_child_is_there_once(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    first = await family.enqueue(family.ask())
    assert await family.enqueue(family.ask()) == first
    results = await asyncio.gather(*(family.enqueue(family.ask("c2", x=2)) for _ in range(5)))
    assert set(results) == {first._replace(action="c2")}
    with pytest.raises(AlreadyExists):
        await family.enqueue(family.ask(x=7))


async def test_wrong_inputs_and_names_are_refused(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    with pytest.raises(Invalid, match="'x'"):
        await family.enqueue(family.ask(x="no number"))
    for uri in (DATA + "§", DATA + "////"):
        with pytest.raises(Invalid):
            await family.enqueue(replace(family.ask(), inputs_uri=uri))
    for name in ("a0", "", "A", "x" * 31, "../a"):
        with pytest.raises(Invalid):
            await family.enqueue(family.ask(name) if name else replace(family.ask(), key=family.key))


async def test_a_hidden_or_absent_task_is_not_there(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    with pytest.raises(NotFound):
        await family.enqueue(family.ask(task="env.absent"))


async def test_limits_on_children_and_on_actions(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    family.subactions._settings = replace(rpc.world.settings, max_children=3, max_actions=5)
    for number in range(3):
        await family.enqueue(family.ask(f"c{number}", x=number))
    with pytest.raises(Exhausted, match="3 other tasks"):
        await family.enqueue(family.ask("c9", x=9))
    child = await family.attempt_of(family.key._replace(action="c0"))
    below = replace(family.ask("d0", x=50), parent="c0")
    await family.enqueue(below, child)
    with pytest.raises(Exhausted, match="5 actions"):
        await family.enqueue(replace(below, key=below.key._replace(action="d1")), child)


async def test_depth_has_a_limit_and_circles_are_refused(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    with pytest.raises(Precondition, match="same inputs"):
        await family.enqueue(family.ask(x=100))
    principal, parent = family.principal, "a0"
    for number in range(MAX_DEPTH - 1):
        key = await family.enqueue(replace(family.ask(f"d{number}", x=number), parent=parent), principal)
        assert family.row(key).turn == -(number + 1)
        principal, parent = await family.attempt_of(key), key.action
    with pytest.raises(Exhausted, match="At most 8"):
        await family.enqueue(replace(family.ask("last", x=99), parent=parent), principal)


async def test_a_task_of_its_own_needs_the_right_to_register(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    asked = replace(family.ask(task="env.new"), spec=task_spec())
    row = family.row(await family.enqueue(asked))
    assert row.spec is not None
    assert row.task_name == "env.new"
    await rpc.world.governance.policies.put_role(
        MACHINE, "runner", frozenset({"task:run", "task:view", "run:view"}), create=True
    )
    other = await family_of(rpc, "bob", "runner", deploy=False)
    await other.enqueue(other.ask())
    with pytest.raises(Denied, match="task:register"):
        await other.enqueue(replace(asked, key=other.key._replace(action="c2")))


async def test_what_is_below_ends_with_it(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    child = await family.enqueue(family.ask("c1", x=1))
    below = await family.enqueue(replace(family.ask("d1", x=2), parent="c1"), await family.attempt_of(child))
    other = await family.enqueue(family.ask("c2", x=3))
    await family.subactions.abort(family.principal, child, reason="enough", request_id="q")
    assert family.row(child).phase is family.row(below).phase is Phase.ABORTED
    assert family.row(other).phase is Phase.QUEUED


async def test_a_task_ends_no_more_than_its_own_children(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    child = await family.enqueue(family.ask())
    principal = await family.attempt_of(child)
    with pytest.raises(Denied):
        await family.subactions.abort(principal, family.key, reason="", request_id="q")
    await family.subactions.abort(
        family.principal, child._replace(action="nobody"), reason="", request_id="q"
    )


async def test_following_tells_what_is_there_then_each_change_and_counts_as_waiting(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    await family.enqueue(family.ask("c1", x=1))
    stream = family.subactions.follow(family.principal, family.key, request_id="q")
    first, second = await anext(stream), await anext(stream)
    assert first is not None
    assert first.row.action == "c1"
    assert second is None
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert family.waiting.among({family.key}) == 1
    await family.enqueue(family.ask("c2", x=2))
    update = await waiting
    assert update is not None
    assert (update.row.action, update.row.phase) == ("c2", Phase.QUEUED)
    ended = asyncio.ensure_future(anext(stream))
    await family.subactions.abort(
        family.principal, family.key._replace(action="c1"), reason="", request_id="q"
    )
    update = await ended
    assert update is not None
    assert (update.row.action, update.row.phase) == ("c1", Phase.ABORTED)
    await stream.aclose()
    assert family.waiting.among({family.key}) == 0


async def test_a_task_beside_the_parent_has_its_version(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    caller = rpc.caller(await rpc.world.key("deploying", "alice"))
    await caller.tasks.deploy_task(
        task_service_pb2.DeployTaskRequest(task_id=task_id(version="v2"), spec=task_spec()),
        headers=caller.headers,
    )
    beside = replace(family.ask("c1", x=1), task=("", "", "env.main"))
    assert family.row(await family.enqueue(beside)).task_version == "v1"
    latest = family.ask("c2", x=2)
    assert family.row(await family.enqueue(latest)).task_version == "v2"


class Places:
    """Room for one action, and what became of it."""

    def __init__(self) -> None:
        self.begun: list[ActionRow] = []
        self.given_back = 0
        self.taken = asyncio.Event()

    def take(self, key: ActionKey) -> Places:
        self.taken.set()
        return self

    def begin(self, row: ActionRow) -> None:
        self.begun.append(row)

    def give_back(self) -> None:
        self.given_back += 1


async def test_a_child_for_which_there_is_room_is_stored_with_its_first_attempt(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    family.waiting.places = places = Places()
    key = await family.enqueue(family.ask())
    row = family.row(key)
    assert (row.phase, row.attempts) == (Phase.INITIALIZING, 1)
    assert (places.begun, places.given_back) == ([row], 0)
    (attempt,) = rpc.world.db.read_now(lambda reader: store.attempts_of(reader, key))
    assert (attempt.attempt, attempt.phase) == (1, Phase.INITIALIZING)


async def test_a_child_that_is_not_stored_gives_its_place_back(
    rpc: RpcWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = await family_of(rpc)
    family.waiting.places = places = Places()

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broke:
        broke.setattr(rpc.world.access, "record", broken)
        with pytest.raises(ZeroDivisionError):
            await family.enqueue(family.ask())
    assert (places.begun, places.given_back) == ([], 1)
    assert family.row(await family.enqueue(family.ask())).attempts == 1


async def test_a_child_whose_caller_hangs_up_starts_if_it_was_stored(rpc: RpcWorld) -> None:
    family = await family_of(rpc)
    family.waiting.places = places = Places()
    asking = asyncio.create_task(family.enqueue(family.ask()))
    await places.taken.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await rpc.world.db.write(lambda _: None)  # behind it in the queue of the writer
    (row,) = places.begun
    assert (family.row(row.key), places.given_back) == (row, 0)

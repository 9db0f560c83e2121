"""What an agent on another node holds, and what it is worth to others: T4, T5, T6, T7, T38."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flyteidl2.common import run_pb2 as relations
from flyteidl2.task import run_pb2
from tests.agent_world import WHO, Agent, Node
from tests.grounds_world import Grounds
from tests.rpc_world import DOMAIN, PROJECT, RpcWorld, create_run

from tower.agent.keeper import RefusedError
from tower.agent.metrics import RENEWALS
from tower.control.launches import Launch
from tower.control.waiting import attempt_of
from tower.identity.authenticators import MACHINE
from tower.identity.chain import Presented
from tower.identity.workload import Workload, WorkloadKind
from tower.possession import Half, text_of
from tower.store.runs import ActionKey

HOUR = 3600.0


class Site:
    """A Tower with people and tasks, and a node."""

    def __init__(self, rpc: RpcWorld, grounds: Grounds, node: Node) -> None:
        self.rpc, self.grounds, self.node, self.world = rpc, grounds, node, rpc.world

    async def running(self, who: str = "alice") -> tuple[ActionKey, Workload, Agent]:
        """A running attempt with its agent."""
        key = await self.grounds.asked(who)
        workload = await self.grounds.lease(key)
        return key, workload, await self.node.agent(workload)

    async def abort(self, key: ActionKey, who: str = "alice") -> None:
        principal = await self.grounds.principal(who)
        await self.rpc.runs.abort(principal, key, reason="", whole_run=True, request_id="q")

    async def again(self, key: ActionKey, workload: Workload) -> Workload:
        """The attempt failed, the next one runs."""
        from tower.states import Phase
        from tower.store import attempts
        from tower.store.attempts import End

        number = int(workload.id.rpartition("/")[2])
        await self.world.db.write(lambda tx: attempts.requeue(tx, key, number, End(Phase.FAILED)))
        return await self.grounds.lease(key)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with RpcWorld.opened(tmp_path) as rpc, Node.opened(rpc) as node:
        yield Site(rpc, await Grounds.opened(rpc), node)


def proof(agent: Agent, token: str, *, path: str = WHO, method: str = "POST") -> str:
    return agent.keeper.prove(method, path.encode(), token).decode()


async def test_t04_a_copied_token_is_worth_nothing(site: Site) -> None:
    """Out of a log or a dump: without the agent's key it opens nothing, wherever it is shown."""
    _, workload, agent = await site.running()
    _, _, other = await site.running("bob")
    token = await agent.keeper.token()
    node = site.node
    assert (await node.ask(token, proof(agent, token))).status_code == 200
    assert (await node.ask(token)).status_code == 401
    assert (await node.ask(token, proof(other, token))).status_code == 401
    own = await other.keeper.token()
    assert (await node.ask(token, proof(other, own))).status_code == 401
    for header in ("authorization", "x-api-key", "x-flyte-token"):
        value = f"Bearer {token}" if header == "authorization" else token
        answer = await node.http.post(WHO, headers={header: value, "content-type": "application/proto"})
        assert answer.status_code == 401, header
    doors = ("gateway", "console", "rest", "rpc")
    for door in doors:
        with pytest.raises(Exception, match=r"credential|token|signature"):
            await site.world.who(bearer=token, audience=door, secure=True)
    # nor does what a task shows at an agent's door pass for its token
    for text in (site.grounds.keys["alice"], "x" * 20, "", f"{token}x", workload.id):
        assert (await node.ask(text, proof(agent, text))).status_code == 401, text


async def test_t04_a_recorded_call_cannot_be_made_again(site: Site) -> None:
    """The proof is of one method, one target and one moment, and counts once."""
    _, _, agent = await site.running()
    node = site.node
    token = await agent.keeper.token()
    once = proof(agent, token)
    assert (await node.ask(token, once)).status_code == 200
    assert (await node.ask(token, once)).status_code == 401
    other = "/flyteidl2.project.ProjectService/ListProjects"
    assert (await node.ask(token, proof(agent, token, path=other), path=other)).status_code == 200
    assert (await node.ask(token, proof(agent, token, path=other))).status_code == 401
    assert (await node.ask(token, proof(agent, token), path=f"{WHO}?a=b")).status_code == 401
    assert (await node.ask(token, proof(agent, token, method="GET"))).status_code == 401
    early = proof(agent, token)
    site.world.clock.time += 61
    assert (await node.ask(token, early)).status_code == 401
    at, number, seal = proof(agent, token).split(".")
    for forged in (
        f"{at}.{number}",
        f"{int(at) + 1}.{number}.{seal}",
        f"{at}.{number}.{seal[:-2]}AA",
        "..",
        "a.b.c",
    ):
        assert (await node.ask(token, forged)).status_code == 401, forged
    assert await agent.subject() == "alice"
    # what came before a restart does not come again after it
    before = proof(agent, token)
    site.world.clock.time += 1
    async with Node.opened(site.rpc) as later:
        assert (await later.ask(token, before)).status_code == 401
        assert (await later.ask(token, proof(agent, token))).status_code == 200


async def test_t04_the_token_ends_with_the_attempt(site: Site) -> None:
    key, _, agent = await site.running()
    token = await agent.keeper.token()
    from tower.states import Phase

    await site.rpc.move(key.run, Phase.SUCCEEDED)
    assert (await site.node.ask(token, proof(agent, token))).status_code == 401
    site.world.clock.time += 299
    with pytest.raises(RefusedError):
        await agent.keeper.token()  # due for renewal: never again
    assert (await agent.call()).status_code == 401
    assert agent.keeper.over
    assert agent.keeper.left == 0


async def test_t04_a_ticket_works_once_and_a_second_use_ends_the_first(site: Site) -> None:
    """Either of the two may be the thief: both have nothing then, and it is on record."""
    _, workload, _ = await site.running("bob")
    fresh = await site.grounds.lease(await site.grounds.asked("alice"))
    ticket = site.node.agents.ticket(fresh.id)
    first, upstream = site.node.launched(fresh, ticket=ticket)
    await first.begin(patience=5.0)
    agent = Agent(first, upstream)
    assert await agent.subject() == "alice"
    await first.begin(patience=5.0)  # the same agent, whose answer was lost
    assert await agent.subject() == "alice"
    token = await first.token()
    thief, _ = site.node.launched(fresh, ticket=ticket)
    with pytest.raises(RefusedError, match="used before") as refused:
        await thief.begin(patience=5.0)
    assert refused.value.over
    assert (await site.node.ask(token, proof(agent, token))).status_code == 401
    assert (await agent.call()).status_code == 401
    site.world.clock.time += 299
    with pytest.raises(RefusedError):
        await first.token()
    for _ in range(2):
        with pytest.raises(RefusedError):
            await first.begin(patience=5.0)
    record = (await site.world.records(event="agent.end"))[-1]
    assert (record.outcome, record.subject) == ("refused", "alice")
    assert "ticket-used-twice" in record.detail
    assert len(await site.world.records(event="agent.start")) == 2
    assert workload.id not in record.detail


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "{upload}", "{token}", "{late}", "{other}"])
async def test_t04_only_a_ticket_is_a_ticket(site: Site, text: str) -> None:
    """A forged one, one of another purpose, a token, one that ended, and one of an attempt that is over."""
    from tower.control.grants import Upload

    key, workload, agent = await site.running()
    upload, _ = site.world.grants.allow_upload(Upload("p", "d", "k", "", 1), life=100)
    late = site.node.agents.ticket(workload.id)
    site.world.clock.time += 121
    other = site.node.agents.ticket(workload.id)
    await site.abort(key)
    token = agent.keeper._token
    given = text.format(upload=upload, token=token, late=late, other=other)
    keeper, _ = site.node.launched(workload, ticket=given or " ")
    with pytest.raises(RefusedError):
        await keeper.begin(patience=5.0)


async def test_t05_abort_then_call(site: Site) -> None:
    key, _, agent = await site.running()
    assert await agent.subject() == "alice"
    token = await agent.keeper.token()
    await site.abort(key)
    assert (await site.node.ask(token, proof(agent, token))).status_code == 401
    assert await agent.subject() == "401"


async def test_t05_the_token_of_an_old_attempt_after_a_retry(site: Site) -> None:
    key, workload, old = await site.running()
    token = await old.keeper.token()
    following = await site.again(key, workload)
    new = await site.node.agent(following)
    assert await new.subject() == "alice"
    assert (await site.node.ask(token, proof(old, token))).status_code == 401
    assert await old.subject() == "401"
    site.world.clock.time += 299
    with pytest.raises(RefusedError) as refused:
        await old.keeper.token()
    assert refused.value.over
    assert await new.subject() == "alice"


async def test_t06_six_hours_queued_and_two_days_running_on_tokens_of_minutes(site: Site) -> None:
    """The ticket waits for nothing: it is made at the start. A token that was captured is dead in minutes."""
    clock = site.world.clock
    key = await site.grounds.asked("alice")
    clock.time += 6 * HOUR
    agent = await site.node.agent(await site.grounds.lease(key))
    captured = await agent.keeper.token()
    tokens = {captured}
    begun = clock.time
    while clock.time < begun + 48 * HOUR:
        assert await agent.subject() == "alice"
        tokens.add(await agent.keeper.token())
        clock.time += 97.0 if len(tokens) < 40 else HOUR  # often, then with long silences
    assert len(tokens) > 60
    for token in list(tokens)[:3]:
        assert (await site.node.ask(token, proof(agent, token))).status_code == 401
    assert _payload(captured)["exp"] - _payload(captured)["iat"] <= 300


async def test_t06_a_captured_token_dies_in_minutes_even_in_the_hands_of_its_agent(site: Site) -> None:
    _, _, agent = await site.running()
    token = await agent.keeper.token()
    site.world.clock.time += 299
    assert (await site.node.ask(token, proof(agent, token))).status_code == 200
    site.world.clock.time += 1
    assert (await site.node.ask(token, proof(agent, token))).status_code == 401
    assert await agent.subject() == "alice"


async def test_t06_the_token_outlives_no_grant(site: Site) -> None:
    key = await site.grounds.asked("alice", grant=100.0)
    agent = await site.node.agent(await site.grounds.lease(key))
    assert agent.keeper.left == 100
    site.world.clock.time += 100
    assert (await agent.call()).status_code == 401
    with pytest.raises(RefusedError, match="The grant of the run"):
        await agent.keeper.token()


async def test_t07_disabled_while_it_runs(site: Site) -> None:
    """The next call and the next renewal are refused; enabled again, the agent goes on where it was."""
    _, _, agent = await site.running()
    token = await agent.keeper.token()
    await site.world.identities.set_disabled(MACHINE, "alice", disabled=True)
    assert (await site.node.ask(token, proof(agent, token))).status_code == 401
    assert await agent.subject() == "401"
    site.world.clock.time += 290
    for _ in range(2):
        assert await agent.subject() == "401"
    await site.world.identities.set_disabled(MACHINE, "alice", disabled=False)
    site.world.clock.time += 290
    assert await agent.subject() in {"alice", "401"}


@pytest.mark.parametrize("end", ["revoke", "key", "role"])
async def test_t07_no_call_is_let_in_after_an_acknowledged_revocation(site: Site, end: str) -> None:
    """Not through this Tower, nor through another one that starts over the same home."""
    key, _, agent = await site.running()
    assert await agent.subject() == "alice"
    if end == "revoke":
        await site.grounds.revoke("alice", key)
    elif end == "key":
        await site.world.api_keys.delete(MACHINE, "alice-key")
    else:
        await site.world.identities.remove_binding(
            MACHINE, subject="alice", role="contributor", project="*", domain="*"
        )
    assert await agent.subject() == "401"
    async with Node.opened(site.rpc) as later:
        token = agent.keeper._token
        assert (await later.ask(token, proof(agent, token))).status_code == 401


async def test_t38_the_parent_is_whose_token_it_is(site: Site) -> None:
    """With the token of run A nothing is asked for under run B, whatever the message and the headers say."""
    victim, _, _ = await site.running("bob")
    _, workload, agent = await site.running("alice")
    token = await agent.keeper.token()
    claims = _payload(token)
    assert (claims["attempt"], claims["sub"], claims["aud"]) == (workload.id, "alice", "tower")
    admitted = site.node.agents.admit(token, proof(agent, token), method="POST", target=WHO.encode(), pid=7)
    assert (admitted.kind, admitted.id) == (WorkloadKind.ATTEMPT, workload.id)
    principal = await site.world.chain.authenticate(Presented(headers=(), workload=admitted))
    assert attempt_of(principal) == (ActionKey(*workload.id.split("/")[:4]), workload.id)
    below = await site.rpc.runs.launch(
        principal,
        Launch(
            PROJECT,
            DOMAIN,
            _related_to(victim),
            task=(PROJECT, DOMAIN, "env.main"),
            inputs=create_run(inputs={"x": 99}).inputs,
        ),
        request_id="q",
    )
    assert below.row.executed_by == "alice"
    assert workload.id in below.row.actors
    assert victim.run not in below.row.actors + str(below.row.run_spec)


def _related_to(run: ActionKey) -> run_pb2.RunSpec:
    asked = run_pb2.RunSpec()
    asked.relation.relation_type = relations.RELATION_TYPE_SPAWN
    asked.relation.related_to.project, asked.relation.related_to.domain = run.project, run.domain
    asked.relation.related_to.name = run.run
    return asked


async def test_t38_no_header_of_the_task_makes_it_another(site: Site) -> None:
    """The agent takes out what a task adds in its name; at Tower's door two tokens in one call are none."""
    _, _, agent = await site.running("alice")
    _, _, other = await site.running("bob")
    theirs = await other.keeper.token()
    added = {"x-tower-agent": theirs, "x-tower-proof": proof(other, theirs), "x-tower-peer": "1"}
    answer = await agent.call(**added)
    assert b"alice" in answer.content
    assert b"bob" not in answer.content
    own = await agent.keeper.token()
    both = [
        ("content-type", "application/proto"),
        ("x-tower-agent", own),
        ("x-tower-agent", theirs),
        ("x-tower-proof", proof(agent, own)),
    ]
    assert (await site.node.http.post(WHO, headers=both)).status_code == 401


async def test_the_renewals_of_many_calls_are_one(site: Site) -> None:
    """A hundred calls at the moment when a renewal is due ask Tower for one token."""
    _, _, agent = await site.running()
    site.world.clock.time += 299
    before = RENEWALS["renewed"].value
    assert set(await asyncio.gather(*(agent.subject() for _ in range(100)))) == {"alice"}
    assert RENEWALS["renewed"].value - before == 1
    tokens = {await agent.keeper.token() for _ in range(10)}
    assert len(tokens) == 1


async def test_t45_guessing_at_the_door_of_agents_is_slowed(site: Site) -> None:
    """After many failures nothing unknown from there is looked at; who has waited is served again."""
    _, _, agent = await site.running()
    token = await agent.keeper.token()
    guesses = [await site.node.ask(f"{token}{number}", "1.1.AAAA") for number in range(30)]
    assert [answer.status_code for answer in guesses] == [401] * 20 + [429] * 10
    # agents at the same address go on, and new ones begin
    assert (await site.node.ask(token, proof(agent, token))).status_code == 200
    site.world.clock.time += 4
    await site.running("bob")
    assert (await site.node.ask(f"{token}x", "1.1.AAAA")).status_code == 401


async def test_a_key_of_small_order_agrees_on_nothing(site: Site) -> None:
    workload = await site.grounds.lease(await site.grounds.asked("alice"))
    half = Half.generate()
    secret = half.agree(half.public, site.node.tokens.public)
    for weak in (bytes(32), b"\1" + bytes(31)):
        body = json.dumps({"ticket": site.node.agents.ticket(workload.id), "key": text_of(weak)}).encode()
        sent = secret.prove(
            method="POST",
            target=b"/nodes/token",
            token="",
            at=int(site.world.clock.now() * 1000),
            number=1,
            body=body,
        )
        answer = await site.node.http.post("/nodes/token", content=body, headers={"x-tower-proof": str(sent)})
        assert answer.status_code == 401


NO_REQUESTS = (
    b"",
    b"[]",
    b"{",
    b"null",
    b'{"ticket": 1, "key": ""}',
    b'{"attempt": "a/b"}',
    b'{"attempt": "../../../../1"}',
    b'{"ticket": "x", "key": "AA"}',
    b'{"attempt": "p/d/r/a0/1", "more": 1}',
    b"[" * 5000,
    b"x" * 9000,
)


@pytest.mark.parametrize("body", NO_REQUESTS)
async def test_what_is_no_request_for_a_token_is_refused(site: Site, body: bytes) -> None:
    answer = await site.node.http.post("/nodes/token", content=body, headers={"x-tower-proof": "1.1.AAAA"})
    assert answer.status_code in {400, 401}
    assert (await site.node.http.get("/nodes/token")).status_code == 400


def _payload(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found

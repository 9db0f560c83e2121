"""The agents of other nodes: a ticket that works once, then tokens of minutes for one attempt and one key."""

from __future__ import annotations

from dataclasses import dataclass

from tower.audit import Event, Outcome
from tower.clock import Clock
from tower.control.access import Access
from tower.control.standing import Standing
from tower.errors import Counterfeit, Denied, Unauthenticated
from tower.identity.agenttokens import AgentClaims, AgentTokens
from tower.identity.principal import Principal
from tower.identity.signing import SigningKey
from tower.identity.tickets import Tickets
from tower.identity.workload import Workload, WorkloadKind
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Decision
from tower.possession import TOKEN_PATH, text_of
from tower.settings import Settings
from tower.store import agents as store
from tower.store.agents import Place
from tower.store.database import Database, Transaction

_TARGET = TOKEN_PATH.encode()
_GONE = "agent-gone"


@dataclass(frozen=True, slots=True)
class Held:
    """What an agent is given: a token, and when it ends (seconds since the epoch)."""

    token: str
    expires_at: float


class Agents:
    """Gives tokens to agents and lets their calls in."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        access: Access,
        standing: Standing,
        tokens: AgentTokens,
        key: SigningKey,
        settings: Settings,
    ) -> None:
        """`key` seals the tickets."""
        self._db = db
        self._clock = clock
        self._access = access
        self._standing = standing
        self._tokens = tokens
        self._tickets = Tickets(key=key, clock=clock, purpose="agent")
        self._ticket_life = settings.agent_ticket_life
        self._life = settings.agent_token_life

    @property
    def public(self) -> str:
        """Tower's half of what agents agree on, for the launcher."""
        return text_of(self._tokens.public)

    def ticket(self, attempt_id: str) -> str:
        """What the agent of an attempt is launched with: good for one exchange, within minutes."""
        issued = int(self._clock.now() * 1000)
        return self._tickets.seal({"attempt": attempt_id, "issued": issued}, life=self._ticket_life)[0]

    async def replace(self, attempt_id: str) -> str:
        """A ticket for another agent of an attempt whose agent died; what that one held is refused."""
        place = _place(attempt_id)
        await self._db.write(lambda tx: store.end(tx, place, why=_GONE))
        return self.ticket(attempt_id)

    async def exchange(
        self, ticket: str, key: bytes, proof: str, body: bytes, *, request_id: str = ""
    ) -> Held:
        """A token for the holder of `key`, for a ticket that nobody has exchanged yet.

        A second one who comes with the ticket gets nothing and ends what the first got, since either may be
        the thief. The same key may ask again: an answer may be lost. Raises Counterfeit for a ticket that is
        none, Over, Unauthenticated.
        """
        self._tokens.possessed(key, proof, method="POST", target=_TARGET, token="", body=body)
        try:
            fields = self._tickets.open(ticket)
        except Denied as fault:
            raise Counterfeit("The ticket does not hold, or has ended.", cause=fault.cause) from fault
        attempt_id, issued = str(fields["attempt"]), int(fields["issued"]) / 1000
        principal = await self._principal(attempt_id)
        place = _place(attempt_id)
        decision = self._decision(attempt_id, "ticket")

        def write(tx: Transaction) -> bool:
            known = store.get(tx, place)
            if known is None:
                store.add(tx, place, key)
                self._record(tx, principal, decision, Event.AGENT_START, key, request_id=request_id)
                return True
            if known.key == key and known.ended_at is None:
                return True
            if known.ended_at is not None and known.why == _GONE and issued >= known.ended_at:
                store.replace(tx, place, key)
                self._record(tx, principal, decision, Event.AGENT_START, key, request_id=request_id)
                return True
            store.end(tx, place, why="ticket-used-twice")
            self._record(
                tx,
                principal,
                decision,
                Event.AGENT_END,
                key,
                request_id=request_id,
                outcome=Outcome.REFUSED,
                why="ticket-used-twice",
            )
            return False

        if not await self._db.write(write):
            raise Over(
                "The ticket was used before; what was given for it holds no more.",
                hint="The attempt is over without an agent.",
            )
        return self._issue(principal, attempt_id, key)

    async def renew(self, attempt_id: str, proof: str, body: bytes) -> Held:
        """Another token for the agent that exchanged the ticket, as long as the attempt acts for somebody.

        Not the former token counts here but the key: so a token that was copied renews nothing, and an agent
        goes on after a time without Tower. Raises Unauthenticated.
        """
        known = self._db.read_now(lambda reader: store.get(reader, _place(attempt_id)))
        if known is None:
            raise _over()
        self._tokens.possessed(known.key, proof, method="POST", target=_TARGET, token="", body=body)
        if known.ended_at is not None:
            raise _over()
        return self._issue(await self._principal(attempt_id), attempt_id, known.key)

    def admit(self, token: str, proof: str, *, method: str, target: bytes, pid: int) -> Workload:
        """The workload that a call of an agent is for. Raises Unauthenticated.

        Whom it acts for, and that the agent still holds, is asked by the chain, at this call and again while
        a stream goes on.
        """
        claims: AgentClaims = self._tokens.admit(token, proof, method=method, target=target)
        return Workload(WorkloadKind.ATTEMPT, claims.attempt, pid, agent=claims.key)

    async def forget(self, attempt_id: str) -> None:
        """The attempt is over."""
        place = _place(attempt_id)
        await self._db.write(lambda tx: store.remove(tx, place), durable=False)

    def _issue(self, principal: Principal, attempt_id: str, key: bytes) -> Held:
        ends = principal.credential.expires_at
        life = self._life if ends is None else min(self._life, ends - self._clock.now())
        token, claims = self._tokens.mint(attempt=attempt_id, subject=principal.subject, key=key, life=life)
        return Held(token, claims.expires_at)

    async def _principal(self, attempt_id: str) -> Principal:
        principal = await self._standing.attempt(attempt_id)
        if principal is None:
            raise _over()
        return principal

    def _decision(self, attempt_id: str, policy: str) -> Decision:
        project, domain, run, *_ = attempt_id.split("/")
        thing = Resource(ResourceType.RUN, project, domain, run)
        return Decision(True, (policy,), self._access.revision, Action.SELF_VIEW.value, str(thing))

    def _record(
        self,
        tx: Transaction,
        principal: Principal,
        decision: Decision,
        event: Event,
        key: bytes,
        *,
        request_id: str,
        outcome: Outcome = Outcome.ALLOWED,
        why: str = "",
    ) -> None:
        detail = {"attempt": principal.credential.id, "agent": text_of(key)[:16]}
        if why:
            detail["why"] = why
        self._access.record(
            tx, principal, decision, event=event, outcome=outcome, request_id=request_id, detail=detail
        )


def _place(attempt_id: str) -> Place:
    parts = attempt_id.split("/")
    if len(parts) != 5 or not parts[4].isdecimal() or len(parts[4]) > 6:
        raise _over()
    project, domain, run, action, number = parts
    return project, domain, run, action, int(number)


class Over(Unauthenticated):
    """There will be no token for this attempt any more."""


def _over() -> Over:
    return Over("This attempt is over, and its identity with it.", hint="Nothing can be done from here.")

"""May I, or may they, and why: a decision explained, without doing anything."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tower.control.access import Access, not_found
from tower.control.definitions import Definitions
from tower.control.directory import Directory
from tower.control.identities import user_resource
from tower.control.runs import run_resource
from tower.errors import Invalid
from tower.identity.principal import Credential, CredentialKind, Principal
from tower.policy.actions import Action, Resource, ResourceType
from tower.policy.engine import Explanation
from tower.store import identities, runs
from tower.store.database import Database
from tower.store.runs import ActionKey

__all__ = ["Answer", "Asking", "Explanation"]

_VIEWS = {
    ResourceType.PROJECT: Action.PROJECT_VIEW,
    ResourceType.DOMAIN: Action.TASK_VIEW,
    ResourceType.TASK: Action.TASK_VIEW,
    ResourceType.RUN: Action.RUN_VIEW,
    ResourceType.APP: Action.APP_VIEW,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision about `subject`, what led to it, and one sentence for people."""

    subject: str
    explanation: Explanation
    reason: str


class Asking:
    """The use-case of `/api/v1/authorize`."""

    def __init__(
        self, *, db: Database, access: Access, directory: Directory, definitions: Definitions
    ) -> None:
        self._db = db
        self._access = access
        self._directory = directory
        self._definitions = definitions

    async def ask(
        self,
        principal: Principal,
        action: str,
        resource: str,
        *,
        subject: str | None = None,
        request_id: str = "",
    ) -> Answer:
        """Whether the caller may do `action` on `resource` (see `Resource.parse`), and why.

        With `subject` for somebody else, as with a key of theirs that has no limits: that needs `policy:view`
        or `user:manage`. Nothing of the answer tells whether the thing exists.
        """
        if action not in set(Action):
            raise Invalid(f"There is no action {action[:60]}.", hint=f"Actions are {', '.join(Action)}.")
        asked, place = Action(action), Resource.parse(resource)
        asker, who = principal, principal
        foreign = subject is not None and subject != principal.subject
        if subject is not None and foreign:
            who = await self._other(asker, subject, request_id)
        place = await self._with_owner(who, place)
        author = self._author(place) if asked is Action.TASK_RUN else ""
        explanation = await self._access.explain(who, asked, place, author=author, latest=bool(author))
        if not foreign and not explanation.decision.allowed and not await self._sees(who, place):
            # which policies stand around a thing that one may not view is no business of theirs
            explanation = Explanation(replace(explanation.decision, policies=()), (), ())
        return Answer(who.subject, explanation, _reason(explanation))

    async def _other(self, asker: Principal, subject: str, request_id: str) -> Principal:
        org = Resource(ResourceType.ORG)
        if not (await self._access.check(asker, Action.POLICY_VIEW, org)).allowed:
            await self._access.require(
                asker, Action.USER_MANAGE, user_resource(subject), request_id=request_id
            )
        facts = await self._directory.subject(subject)
        if facts is None:
            raise not_found(user_resource(subject))
        return Principal(
            subject=facts.subject,
            kind=facts.kind,
            name=facts.name,
            credential=Credential(CredentialKind.API_KEY, ""),
        )

    async def _with_owner(self, who: Principal, place: Resource) -> Resource:
        """The place with its owner where that is the one the question is about: nobody else's matters."""
        owner: str | None = None
        if place.type is ResourceType.RUN and place.name:
            key = ActionKey(place.project, place.domain, place.name, "a0")
            run = await self._db.read(lambda reader: runs.get(reader, key))
            owner = None if run is None else run.executed_by
            if run is not None:
                place = replace(place, task=run_resource(key, row=run).task)
        elif place.type is ResourceType.KEY and place.name:
            row = await self._db.read(lambda reader: identities.live_key(reader, place.name, who.subject))
            owner = None if row is None else row.subject
        elif place.type is ResourceType.KEY:
            owner = who.subject
        return replace(place, owner=owner) if owner == who.subject else place

    def _author(self, place: Resource) -> str:
        """Who registered what would run: policies may look at whether that is somebody else."""
        found = self._definitions.find((place.project, place.domain, place.name), "")
        return "" if found is None else found.row.deployed_by

    async def _sees(self, who: Principal, place: Resource) -> bool:
        view = _VIEWS.get(place.type)
        return view is None or (await self._access.check(who, view, place)).allowed


def _reason(explanation: Explanation) -> str:
    decision = explanation.decision
    if decision.allowed:
        giving = [str(binding) for binding, allows in explanation.roles if allows]
        through = f" The role: {giving[0]}." if giving else ""
        return f"Allowed by {', '.join(decision.policies)}.{through}"
    first = decision.policies[0] if decision.policies else ""
    if first == "account-disabled":
        return "Refused: the account is disabled."
    if first == "policy-error":
        return "Refused: a policy could not be evaluated."
    if first.startswith("below "):
        return f"Refused: the limit of {first.removeprefix('below ')} does not leave it."
    if first:
        return f"Refused: forbidden by {', '.join(decision.policies)}."
    return "Refused: no role and no policy allows it."

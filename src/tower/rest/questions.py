"""The route of questions about decisions."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tower.control.asking import Answer
from tower.rest import forms
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class Question(forms.Request):
    """May the caller do `action` on `resource` (as `task:PROJECT/DOMAIN/NAME`)? Or somebody else: `as`."""

    action: forms.ActionName
    resource: forms.Place
    as_: str | None = Field(default=None, alias="as")


class RoleSeen(BaseModel):
    """A role that reaches the thing, and whether it allows the action by itself."""

    role: str
    project: str
    domain: str
    kind: str
    name: str
    group: str
    allows: bool


class LimitSeen(BaseModel):
    """A limit of the credential, an app or a run on the way, and whether it leaves the action."""

    source: str
    allows: bool


class Explained(BaseModel):
    """A decision: the policies that decided, of which revision, and what led there."""

    allowed: bool
    reason: str
    subject: str
    action: str
    resource: str
    policies: list[str]
    policy_revision: str
    roles: list[RoleSeen]
    limits: list[LimitSeen]

    @classmethod
    def of(cls, answer: Answer) -> Explained:
        """From the answer."""
        decision = answer.explanation.decision
        return cls(
            allowed=decision.allowed,
            reason=answer.reason,
            subject=answer.subject,
            action=decision.action,
            resource=decision.resource,
            policies=list(decision.policies),
            policy_revision=decision.revision,
            roles=[
                RoleSeen(
                    role=each.role,
                    project=each.project,
                    domain=each.domain,
                    kind=each.kind,
                    name=each.name,
                    group=each.group,
                    allows=allows,
                )
                for each, allows in answer.explanation.roles
            ],
            limits=[
                LimitSeen(source=each.source, allows=allows) for each, allows in answer.explanation.ceilings
            ],
        )


@router.post("/authorize", summary="May I, or may they, and why")
async def authorize(call: Caller, question: Question) -> Explained:
    answer = await call.rooms.governance.asking.ask(
        call.principal,
        question.action,
        question.resource,
        subject=question.as_,
        request_id=call.request_id,
    )
    return Explained.of(answer)

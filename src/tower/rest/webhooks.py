"""The routes of signed webhooks of third parties. What a secret is, is in no answer."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tower.control.webhooks import WebhookRow
from tower.control.webhookspecs import scheme
from tower.rest.routes import Caller

router = APIRouter(prefix="/api/v1")


class NewWebhook(BaseModel):
    """A webhook on its way in. A delivery runs as whom `senders` has for its sender, else as `user`."""

    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=1024)

    project: str
    domain: str
    app: str
    path: str
    scheme: str
    secret: SecretStr
    user: str = ""
    senders: dict[str, str] = Field(default_factory=dict)


class Webhook(BaseModel):
    """A webhook, without its secret."""

    id: str
    project: str
    domain: str
    app: str
    path: str
    scheme: str
    user: str
    senders: dict[str, str]
    created_at: float
    created_by: str

    @classmethod
    def of(cls, row: WebhookRow) -> Webhook:
        """From the row."""
        return cls(
            id=row.id,
            project=row.project,
            domain=row.domain,
            app=row.app,
            path=row.path,
            scheme=row.scheme,
            user=row.subject,
            senders=dict(row.senders),
            created_at=row.created_at,
            created_by=row.created_by,
        )


class WebhookList(BaseModel):
    """Webhooks by app and path."""

    webhooks: list[Webhook]


@router.put(
    "/webhooks", summary="Let a third party deliver to a path of an app, in place of what held before"
)
async def set_webhook(call: Caller, new: NewWebhook) -> Webhook:
    row = await call.rooms.webhooks.set(
        call.principal,
        (new.project, new.domain, new.app),
        new.path,
        scheme=scheme(new.scheme),
        secret=new.secret.get_secret_value(),
        subject=new.user,
        senders=new.senders,
        request_id=call.request_id,
    )
    return Webhook.of(row)


@router.get("/webhooks", summary="List the webhooks of the apps that the caller may manage")
async def list_webhooks(call: Caller) -> WebhookList:
    rows = await call.rooms.webhooks.listed(call.principal, request_id=call.request_id)
    return WebhookList(webhooks=[Webhook.of(row) for row in rows])


@router.delete("/webhooks", status_code=204, summary="End a webhook")
async def delete_webhook(call: Caller, project: str, domain: str, app: str, path: str) -> Response:
    await call.rooms.webhooks.delete(call.principal, (project, domain, app), path, request_id=call.request_id)
    return Response(status_code=204)

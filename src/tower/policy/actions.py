"""Every action there is, and for every RPC the action, the resource and how loudly it is recorded.

A name is `noun:verb`, in lower case. No permission string stands anywhere else. An RPC or route without a
row here stops the server at start (T47).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What can be allowed or refused."""

    SELF_VIEW = "self:view"
    PROJECT_VIEW = "project:view"
    PROJECT_MANAGE = "project:manage"
    TASK_VIEW = "task:view"
    TASK_REGISTER = "task:register"
    TASK_RUN = "task:run"
    RUN_VIEW = "run:view"
    RUN_ABORT = "run:abort"
    DATA_UPLOAD = "data:upload"
    APP_VIEW = "app:view"
    APP_USE = "app:use"
    APP_DEPLOY = "app:deploy"
    APP_MANAGE = "app:manage"
    APP_RAW = "app:raw-credentials"
    KEY_MANAGE_OWN = "key:manage-own"
    KEY_MANAGE = "key:manage"
    USER_MANAGE = "user:manage"
    AUDIT_VIEW = "audit:view"


class ResourceType(StrEnum):
    """What an action can be done to."""

    ORG = "org"
    PROJECT = "project"
    DOMAIN = "domain"
    TASK = "task"
    RUN = "run"
    APP = "app"
    KEY = "key"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Resource:
    """A thing in its place: project and domain are "" above their level."""

    type: ResourceType
    project: str = ""
    domain: str = ""
    name: str = ""
    owner: str = ""

    def __str__(self) -> str:
        return f"{self.type}:" + "/".join(part for part in (self.project, self.domain, self.name) if part)


class AuditLevel(StrEnum):
    """How loudly an action is recorded: every refusal is; an allow is for effects, not for reads."""

    EFFECT = "effect"
    READ = "read"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Row:
    """One RPC or route: its action, how it is recorded, and whether it answers anonymous callers."""

    action: Action | None
    level: AuditLevel
    anonymous: bool = False

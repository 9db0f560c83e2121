"""Every action there is, and for every RPC the action, the resource and how loudly it is recorded.

A name is `noun:verb`, in lower case. No permission string stands anywhere else. An RPC or route without a
row here stops the server at start (T47).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tower.errors import Broken, Invalid


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
    SECRET_LIST = "secret:list"  # noqa: S105  (the name of an action)
    SECRET_USE = "secret:use"  # noqa: S105  (the name of an action)
    SECRET_CREATE = "secret:create"  # noqa: S105  (the name of an action)
    SECRET_DELETE = "secret:delete"  # noqa: S105  (the name of an action)
    IDENTITY_TOKEN = "identity:token"  # noqa: S105  (the name of an action)
    """To be given a token that names the executor of a running task to somebody outside."""
    KEY_MANAGE_OWN = "key:manage-own"
    KEY_MANAGE = "key:manage"
    USER_MANAGE = "user:manage"
    POLICY_VIEW = "policy:view"
    POLICY_MANAGE = "policy:manage"
    AUDIT_VIEW = "audit:view"
    AUDIT_PRUNE = "audit:prune"
    """In no role: for the operator of the machine, or whom a role of that name alone is given."""
    ACT_AS = "service:act-as"
    """To run as a service identity; never in a role of everything, but given for the one identity (T34)."""


MANAGING = frozenset(
    action.value for action in Action if action.value.endswith(":manage") and action is not Action.APP_MANAGE
) | {Action.SECRET_CREATE.value, Action.APP_RAW.value, Action.ACT_AS.value}
"""What makes the one who may do it privileged: code of others could use it against the installation (T1)."""


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
    SECRET = "secret"  # noqa: S105  (the name of a kind)
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Resource:
    """A thing in its place: project and domain are "" above their level.

    `task` is the task that a run is of, where it belongs to the place of that task: roles for the task alone
    reach such a run, and all of those runs at once while the run has no name.
    """

    type: ResourceType
    project: str = ""
    domain: str = ""
    name: str = ""
    owner: str = ""
    task: str = ""

    def __str__(self) -> str:
        return f"{self.type}:" + "/".join(part for part in (self.project, self.domain, self.name) if part)

    @classmethod
    def parse(cls, text: str) -> Resource:
        """The inverse of `str`: `org`, `project:P`, `domain:P/D`, `task:P/D/NAME`, `user:NAME`, `key:NAME`.

        Of what stands in a domain the name may be left out: then it is any of its kind there. Raises Invalid.
        """
        kind, _, place = text.partition(":")
        parts = place.split("/", 2) if place else []
        if kind not in set(ResourceType) or len(text) > 512 or not all(parts):
            raise Invalid(f"There is no resource {text[:60]}.", hint=_FORMS)
        type_ = ResourceType(kind)
        longest = {ResourceType.ORG: 0, ResourceType.PROJECT: 1, ResourceType.DOMAIN: 2}.get(type_, 3)
        if type_ in {ResourceType.KEY, ResourceType.USER}:
            return cls(type_, name=place)
        if type_ is ResourceType.POLICY and len(parts) == 1:
            return cls(type_, name=place)
        shortest = 1 if type_ is ResourceType.PROJECT else 2 if longest >= 2 else 0
        if not shortest <= len(parts) <= longest:
            raise Invalid(f"There is no resource {text[:60]}.", hint=_FORMS)
        return cls(type_, *parts)


_FORMS = "Write org, project:P, domain:P/D, task:P/D/NAME, run:P/D/NAME, app:P/D/NAME, user:NAME or key:NAME."


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


def _effect(action: Action) -> Row:
    return Row(action, AuditLevel.EFFECT)


def _read(action: Action) -> Row:
    return Row(action, AuditLevel.READ)


_SELF = Row(Action.SELF_VIEW, AuditLevel.NONE)
_ANONYMOUS = Row(None, AuditLevel.NONE, anonymous=True)
_NOT_OFFERED = Row(None, AuditLevel.NONE)


def _not_offered(names: str) -> dict[str, Row]:
    return dict.fromkeys(names.split(), _NOT_OFFERED)


_SERVICES: dict[str, dict[str, Row]] = {
    "auth.IdentityService": {"UserInfo": _SELF},
    "auth.AuthMetadataService": {"GetOAuth2Metadata": _ANONYMOUS, "GetPublicClientConfig": _ANONYMOUS},
    "cluster.ClusterService": {"SelectCluster": _SELF},
    "project.ProjectService": {
        "CreateProject": _effect(Action.PROJECT_MANAGE),
        "UpdateProject": _effect(Action.PROJECT_MANAGE),
        "GetProject": _read(Action.PROJECT_VIEW),
        "ListProjects": _read(Action.PROJECT_VIEW),
    },
    "task.TaskService": {
        "DeployTask": _effect(Action.TASK_REGISTER),
        "GetTaskDetails": _read(Action.TASK_VIEW),
        "ListTasks": _read(Action.TASK_VIEW),
        "ListVersions": _read(Action.TASK_VIEW),
    },
    "dataproxy.DataProxyService": {
        "CreateUploadLocation": _effect(Action.DATA_UPLOAD),
        "UploadInputs": _effect(Action.DATA_UPLOAD),
        "CreateDownloadLink": _read(Action.RUN_VIEW),
        "GetActionData": _read(Action.RUN_VIEW),
        "TailLogs": _read(Action.RUN_VIEW),
    },
    "workflow.RunService": {
        "CreateRun": _effect(Action.TASK_RUN),
        "AbortRun": _effect(Action.RUN_ABORT),
        "AbortAction": _effect(Action.RUN_ABORT),
        "GetRunDetails": _read(Action.RUN_VIEW),
        "WatchRunDetails": _read(Action.RUN_VIEW),
        "GetActionDetails": _read(Action.RUN_VIEW),
        "WatchActionDetails": _read(Action.RUN_VIEW),
        "GetActionData": _read(Action.RUN_VIEW),
        "GetActionDataURIs": _read(Action.RUN_VIEW),
        "GetActionLogContext": _read(Action.RUN_VIEW),
        "ListRuns": _read(Action.RUN_VIEW),
        "WatchRuns": _read(Action.RUN_VIEW),
        "ListActions": _read(Action.RUN_VIEW),
        "WatchActions": _read(Action.RUN_VIEW),
        "WatchClusterEvents": _read(Action.RUN_VIEW),
        "WatchGroups": _read(Action.RUN_VIEW),
        **_not_offered("SignalEvent"),
    },
    "workflow.RunLogsService": {"TailLogs": _read(Action.RUN_VIEW)},
    "imagebuilder.ImageService": {"GetImage": _SELF},
    "app.AppService": {
        "Create": _effect(Action.APP_DEPLOY),
        "Get": _read(Action.APP_VIEW),
        "Update": _effect(Action.APP_MANAGE),
        "Delete": _effect(Action.APP_MANAGE),
        "List": _read(Action.APP_VIEW),
        "Watch": _read(Action.APP_VIEW),
        **_not_offered("UpdateStatus Lease"),
    },
    "app.AppLogsService": {"TailLogs": _read(Action.APP_VIEW)},
    # of a running task alone, on what it asked for itself
    "workflow.QueueService": {
        "EnqueueAction": _effect(Action.TASK_RUN),
        "AbortQueuedAction": _effect(Action.RUN_ABORT),
        **_not_offered("AbortQueuedRun"),
    },
    "workflow.StateService": {"Watch": _read(Action.RUN_VIEW), **_not_offered("Put Get")},
    "workflow.TrackedRunService": _not_offered(
        "CreateRun ReportActions GetRunDetails WatchRunDetails GetActionDetails WatchActionDetails ListRuns "
        "WatchRuns ListActions WatchActions AbortRun"
    ),
    "workflow.TranslatorService": _not_offered(
        "LiteralsToLaunchFormJson LaunchFormJsonToLiterals TaskSpecToLaunchFormJson JsonValuesToLiterals"
    ),
    "actions.ActionsService": {
        "Enqueue": _effect(Action.TASK_RUN),
        "WatchForUpdates": _read(Action.RUN_VIEW),
        "Abort": _effect(Action.RUN_ABORT),
        **_not_offered("Update Signal"),
    },
    "secret.SecretService": {
        "CreateSecret": _effect(Action.SECRET_CREATE),
        "UpdateSecret": _effect(Action.SECRET_CREATE),
        "GetSecret": _read(Action.SECRET_LIST),
        "ListSecrets": _read(Action.SECRET_LIST),
        "DeleteSecret": _effect(Action.SECRET_DELETE),
    },
    "settings.SettingsService": _not_offered("GetSettings GetSettingsForEdit CreateSettings UpdateSettings"),
    "org.DomainService": _not_offered("ListDomains CreateDomain GetDomain UpdateDomain DeleteDomain"),
    # who changes somebody else's needs project:manage besides
    "trigger.TriggerService": {
        "DeployTrigger": _effect(Action.TASK_REGISTER),
        "GetTriggerDetails": _read(Action.TASK_VIEW),
        "GetTriggerRevisionDetails": _read(Action.TASK_VIEW),
        "ListTriggers": _read(Action.TASK_VIEW),
        "GetTriggerRevisionHistory": _read(Action.TASK_VIEW),
        "UpdateTriggers": _effect(Action.TASK_REGISTER),
        "DeleteTriggers": _effect(Action.TASK_REGISTER),
    },
    "artifact.ArtifactService": _not_offered(
        "CreateArtifact GetArtifact ListArtifacts ListArtifactNames ListArtifactMetadataKeys DeleteArtifact "
        "DeclareArtifact GetArtifactSchema ListPartitionValues"
    ),
}

METHODS: dict[str, Row] = {
    f"/flyteidl2.{service}/{method}": row
    for service, rows in _SERVICES.items()
    for method, row in rows.items()
}
"""Every RPC by its path. A row without an action is answered with Unsupported once the caller is known."""

ROUTES: dict[str, Row] = {
    "rest GET /api/openapi.json": _ANONYMOUS,
    "rest GET /api/v1/whoami": _SELF,
    "rest POST /api/v1/users": _effect(Action.USER_MANAGE),
    "rest GET /api/v1/users": _read(Action.USER_MANAGE),
    "rest GET /api/v1/users/{name}": _read(Action.USER_MANAGE),
    "rest POST /api/v1/users/{name}/disable": _effect(Action.USER_MANAGE),
    "rest POST /api/v1/users/{name}/enable": _effect(Action.USER_MANAGE),
    "rest GET /api/v1/bindings": _read(Action.USER_MANAGE),
    "rest POST /api/v1/bindings": _effect(Action.USER_MANAGE),
    "rest DELETE /api/v1/bindings": _effect(Action.USER_MANAGE),
    "rest POST /api/v1/keys": _effect(Action.KEY_MANAGE_OWN),
    "rest GET /api/v1/keys": _read(Action.KEY_MANAGE_OWN),
    "rest GET /api/v1/keys/{name}": _read(Action.KEY_MANAGE_OWN),
    "rest DELETE /api/v1/keys/{name}": _effect(Action.KEY_MANAGE_OWN),
    "rest POST /api/v1/keys/{name}/rotate": _effect(Action.KEY_MANAGE_OWN),
    "rest POST /api/v1/keys/{name}/disable": _effect(Action.KEY_MANAGE_OWN),
    "rest POST /api/v1/keys/{name}/enable": _effect(Action.KEY_MANAGE_OWN),
    "rest POST /api/v1/links": _effect(Action.USER_MANAGE),
    "rest PATCH /api/v1/users/{name}": _effect(Action.USER_MANAGE),
    "rest DELETE /api/v1/users/{name}": _effect(Action.USER_MANAGE),
    "rest POST /api/v1/authorize": _SELF,
    "rest GET /api/v1/groups": _read(Action.USER_MANAGE),
    "rest POST /api/v1/groups": _effect(Action.USER_MANAGE),
    "rest GET /api/v1/groups/{name}": _read(Action.USER_MANAGE),
    "rest PATCH /api/v1/groups/{name}": _effect(Action.USER_MANAGE),
    "rest DELETE /api/v1/groups/{name}": _effect(Action.USER_MANAGE),
    "rest GET /api/v1/roles": _read(Action.POLICY_VIEW),
    "rest POST /api/v1/roles": _effect(Action.POLICY_MANAGE),
    "rest GET /api/v1/roles/{name}": _read(Action.POLICY_VIEW),
    "rest PUT /api/v1/roles/{name}": _effect(Action.POLICY_MANAGE),
    "rest DELETE /api/v1/roles/{name}": _effect(Action.POLICY_MANAGE),
    "rest GET /api/v1/policies": _read(Action.POLICY_VIEW),
    "rest POST /api/v1/policies": _effect(Action.POLICY_MANAGE),
    "rest GET /api/v1/policies/{name}": _read(Action.POLICY_VIEW),
    "rest PUT /api/v1/policies/{name}": _effect(Action.POLICY_MANAGE),
    "rest DELETE /api/v1/policies/{name}": _effect(Action.POLICY_MANAGE),
    "rest GET /api/v1/policy-revisions": _read(Action.POLICY_VIEW),
    "rest GET /api/v1/ceilings/{project}/{domain}/{name}": _read(Action.POLICY_VIEW),
    "rest PUT /api/v1/ceilings/{project}/{domain}/{name}": _effect(Action.POLICY_MANAGE),
    "rest DELETE /api/v1/ceilings/{project}/{domain}/{name}": _effect(Action.POLICY_MANAGE),
    "rest PUT /api/v1/webhooks": _effect(Action.APP_MANAGE),
    "rest GET /api/v1/webhooks": _read(Action.APP_MANAGE),
    "rest DELETE /api/v1/webhooks": _effect(Action.APP_MANAGE),
    "rest POST /api/v1/secrets": _effect(Action.SECRET_CREATE),
    "rest GET /api/v1/secrets": _read(Action.SECRET_LIST),
    "rest GET /api/v1/secrets/{name}": _read(Action.SECRET_LIST),
    "rest PUT /api/v1/secrets/{name}": _effect(Action.SECRET_CREATE),
    "rest DELETE /api/v1/secrets/{name}": _effect(Action.SECRET_DELETE),
    "rest POST /api/v1/sealing-keys/rotate": _effect(Action.SECRET_CREATE),
    # of a running task or a starting app alone, for itself
    "rest POST /api/v1/workload/secrets": _effect(Action.SECRET_USE),
    "rest POST /api/v1/workload/identity-token": _effect(Action.IDENTITY_TOKEN),
    "rest GET /api/v1/audit": _read(Action.AUDIT_VIEW),
    "rest GET /api/v1/audit/chain": _read(Action.AUDIT_VIEW),
    "rest GET /api/v1/audit/export": _read(Action.AUDIT_VIEW),
    "rest POST /api/v1/audit/checkpoint": _read(Action.AUDIT_VIEW),
    "rest POST /api/v1/audit/prune": _effect(Action.AUDIT_PRUNE),
    "rest PUT /api/v1/users/{name}/password": _effect(Action.USER_MANAGE),
    "rest DELETE /api/v1/users/{name}/password": _effect(Action.USER_MANAGE),
    "rest POST /api/v1/users/{name}/logout": _effect(Action.USER_MANAGE),
    "rest POST /api/v1/signing-keys/rotate": _effect(Action.USER_MANAGE),
    "rest GET /api/v1/grants": _read(Action.KEY_MANAGE_OWN),
    "rest DELETE /api/v1/grants/{project}/{domain}/{run}": _effect(Action.KEY_MANAGE_OWN),
    "rest GET /api/v1/triggers": _read(Action.TASK_VIEW),
    "rest GET /api/v1/triggers/{project}/{domain}/{task}/{name}": _read(Action.TASK_VIEW),
    # who changes somebody else's needs project:manage besides
    "rest POST /api/v1/triggers/{project}/{domain}/{task}/{name}/activate": _effect(Action.TASK_REGISTER),
    "rest POST /api/v1/triggers/{project}/{domain}/{task}/{name}/pause": _effect(Action.TASK_REGISTER),
    "rest DELETE /api/v1/triggers/{project}/{domain}/{task}/{name}": _effect(Action.TASK_REGISTER),
    # who may have a token is decided by the grant: a code, a device code, a refresh token or a key's secret
    "oauth GET /.well-known/oauth-authorization-server": _ANONYMOUS,
    "oauth GET /.well-known/openid-configuration": _ANONYMOUS,
    "oauth GET /oauth2/jwks": _ANONYMOUS,
    "oauth GET /oauth2/authorize": _SELF,
    "oauth POST /oauth2/authorize": _SELF,
    "oauth POST /oauth2/token": _ANONYMOUS,
    "oauth POST /oauth2/device": _ANONYMOUS,
    "oauth POST /oauth2/revoke": _ANONYMOUS,
    "oauth POST /oauth2/introspect": _ANONYMOUS,
    "oauth GET /oauth2/userinfo": _SELF,
    # a ticket or a proof of possession; whom the attempt acts for is asked at each call
    "nodes POST /nodes/token": _ANONYMOUS,
    "gateway ANY /apps/{project}/{domain}/{name}/{path}": _effect(Action.APP_USE),
    "gateway ANY <app host>/{path}": _effect(Action.APP_USE),
    "gateway GET <app host>/.tower/session": _ANONYMOUS,
    # a ticket in the path names one object: what it allows was decided when it was made; an upload is
    # refused where the account of who asked for it is disabled by then
    "data PUT /data/upload/{ticket}": _ANONYMOUS,
    "data GET /data/download/{ticket}": _ANONYMOUS,
    "data HEAD /data/download/{ticket}": _ANONYMOUS,
    # on the sockets of attempts alone
    "agent POST /agent/token": _SELF,
    "console GET /": _read(Action.RUN_VIEW),
    "console GET /v2/domain/{domain}/project/{project}/runs": _read(Action.RUN_VIEW),
    "console GET /v2/domain/{domain}/project/{project}/tasks/{name}": _read(Action.RUN_VIEW),
    "console GET /v2/domain/{domain}/project/{project}/runs/{name}": _read(Action.RUN_VIEW),
    "console GET /v2/domain/{domain}/project/{project}/runs/{name}/events": _read(Action.RUN_VIEW),
    "console GET /v2/domain/{domain}/project/{project}/runs/{name}/logs": _read(Action.RUN_VIEW),
    "console POST /v2/domain/{domain}/project/{project}/runs/{name}/abort": _effect(Action.RUN_ABORT),
    "console POST /v2/domain/{domain}/project/{project}/runs/{name}/revoke": _effect(Action.KEY_MANAGE_OWN),
    "console GET /v2/apps": _read(Action.APP_VIEW),
    "console GET /v2/domain/{domain}/project/{project}/apps/{name}": _read(Action.APP_VIEW),
    "console GET /v2/domain/{domain}/project/{project}/apps/{name}/events": _read(Action.APP_VIEW),
    "console GET /v2/triggers": _read(Action.TASK_VIEW),
    "console GET /v2/domain/{domain}/project/{project}/triggers": _read(Action.TASK_VIEW),
    "console GET /v2/domain/{domain}/project/{project}/triggers/{task}/{name}": _read(Action.TASK_VIEW),
    "console GET /signin": _ANONYMOUS,
    "console POST /signin": _ANONYMOUS,
    "console GET /signin/{code}": _ANONYMOUS,
    "console POST /signin/{code}": _ANONYMOUS,
    "console GET /signin/with/{alias}": _ANONYMOUS,
    "console GET /signin/with/{alias}/callback": _ANONYMOUS,
    "console GET /login": _ANONYMOUS,
    "console POST /login": _ANONYMOUS,
    "console GET /account": _SELF,
    "console POST /account": _SELF,
    "console GET /device": _SELF,
    "console POST /device": _SELF,
    "console POST /signout": _SELF,
    "console GET /apps-login": _SELF,
    "console GET /static/{file}": _ANONYMOUS,
    "console GET /favicon.ico": _ANONYMOUS,
    "console GET /healthz": _ANONYMOUS,
    "console GET /metrics": _read(Action.AUDIT_VIEW),
}
"""Every route of the other doors, as `<door> <METHOD> <path template>`."""


def check_complete(mounted: Iterable[str]) -> None:
    """Raise Broken when something mounted has no row, or a mounted group has a row of nothing (T47).

    `mounted` has the paths of RPCs (`/flyteidl2.task.TaskService/ListTasks`) and of routes
    (`rest GET /api/v1/users`). A group is a service or a door; one that is not mounted at all is not stale.
    """
    present = set(mounted)
    rows = {**METHODS, **ROUTES}
    groups = {_group(path) for path in present}
    missing = sorted(present - rows.keys())
    stale = sorted(path for path in rows if _group(path) in groups and path not in present)
    if missing or stale:
        raise Broken(
            "The table of actions does not fit what is mounted.",
            hint="Declare every RPC and route in tower/policy/actions.py.",
            cause=f"without a row: {missing}; rows of nothing: {stale}",
        )


def _group(path: str) -> str:
    return path.rpartition("/")[0] if path.startswith("/") else path.partition(" ")[0]

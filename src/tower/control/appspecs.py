"""What an app declares: its message read and checked on the way in, and put together on the way out.

Options that the protocol has no field for travel in `container.config`: `flyte.passthrough` ("exchange" or
"raw"), `flyte.public_paths` (a JSON list of exact paths that the gateway serves to anyone) and
`flyte.ceiling` (a JSON object of what the app may do for people at most, see `control.ceilings`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from flyteidl2.app import app_definition_pb2 as pb
from google.protobuf.message import DecodeError

from tower.control import ceilings, specs, webhookspecs
from tower.errors import Broken, Exhausted, Invalid, Unsupported
from tower.identity.webhooks import Scheme
from tower.settings import Settings
from tower.states import AppStatus, Desired
from tower.store.apps import AppRow

MAX_SPEC = 1024 * 1024
MAX_PUBLIC_PATHS = 64
MAX_REQUEST_TIMEOUT = 3600.0

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PUBLIC_PATH = re.compile(r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*/?)?")
_LABEL = 63


@dataclass(frozen=True, slots=True)
class Declared:
    """An app's message after all checks: where it lives, what it asks for, and the bytes to store."""

    project: str
    domain: str
    name: str
    revision: int
    desired: Desired
    description: str
    requires_auth: bool
    raw: bool
    public_paths: frozenset[str]
    webhooks: Mapping[str, Scheme]
    request_timeout: float | None
    ceiling: str
    bundle: str
    digest: str
    message: pb.App

    def stored(self, *, revision: int, creator: str) -> bytes:
        """The bytes for the store: no status, the server's revision and the server's creator (T10)."""
        app = pb.App()
        app.CopyFrom(self.message)
        app.metadata.revision = revision
        app.spec.creator.Clear()
        app.spec.creator.user.id.subject = creator
        return _bytes(app)


def identity(app_id: pb.Identifier) -> tuple[str, str, str]:
    """Project, domain and name of an identifier. Raises Invalid naming the part that is wrong."""
    project, domain = specs.scope(app_id.project, app_id.domain)
    if not _NAME.fullmatch(app_id.name):
        raise Invalid(
            "The name of an app is missing or holds other than lower-case letters, digits and '-'.",
            hint="It has at most 63 characters and neither starts nor ends with '-'.",
        )
    return project, domain, app_id.name


def read(app: pb.App, settings: Settings) -> Declared:
    """Check a message from a client. Raises Invalid, Unsupported or Exhausted with the field's name."""
    project, domain, name = identity(app.metadata.id)
    if app.ByteSize() > MAX_SPEC:
        raise Exhausted(f"The app's specification is larger than {MAX_SPEC} bytes.")
    spec = app.spec
    if spec.WhichOneof("app_payload") != "container":
        raise Unsupported("An app is one container here.", hint="Set spec.container; pods are not offered.")
    if spec.security_context.HasField("run_as"):
        raise Unsupported("Apps with a run-as identity are not offered by this Tower.")
    specs.check_secrets(spec.security_context.secrets, settings=settings)
    if spec.ingress.private or spec.ingress.subdomain or spec.ingress.cname:
        raise Unsupported(
            "An app's address is given by its name, project and domain.",
            hint="Leave ingress.private, subdomain and cname out.",
        )
    specs.check_env(((pair.key, pair.value) for pair in spec.container.env), settings=settings)
    bundle = app.metadata.code_bundle_uri
    if bundle:
        specs.bundle_key(bundle, project=project, domain=domain)
    options = _options(spec)
    kept = pb.App()
    kept.metadata.CopyFrom(app.metadata)
    kept.metadata.id.org = ""
    kept.metadata.revision = 0
    kept.spec.CopyFrom(spec)
    kept.spec.ClearField("creator")
    desired = Desired(spec.desired_state or Desired.ACTIVE)
    kept.spec.MergeFrom(_wanting(desired))
    return Declared(
        project=project,
        domain=domain,
        name=name,
        revision=app.metadata.revision,
        desired=desired,
        description=spec.profile.short_description[:1000],
        requires_auth=not spec.security_context.allow_anonymous,
        raw=_passthrough(options),
        public_paths=_public_paths(options),
        webhooks=_webhooks(options),
        request_timeout=_timeout(spec),
        ceiling=ceilings.declared(options["flyte.ceiling"]) if "flyte.ceiling" in options else "",
        bundle=bundle,
        digest=_digest(kept),
        message=kept,
    )


def stored(row: AppRow) -> pb.App:
    """The message of a row, without a status. Raises Broken when the stored bytes do not parse."""
    app = pb.App()
    try:
        app.ParseFromString(row.spec)
    except DecodeError as error:
        raise Broken("The app cannot be read.", cause=f"{row.id}: {error}") from error
    return app


def webhooks(row: AppRow) -> Mapping[str, Scheme]:
    """The webhooks that a deployed app declares: the scheme of each path."""
    return _webhooks(_options(stored(row).spec))


def with_desired(row: AppRow, desired: Desired) -> bytes:
    """The row's bytes with another desired state."""
    app = stored(row)
    app.spec.MergeFrom(_wanting(desired))
    return _bytes(app)


def render(row: AppRow, *, base_url: str, apps_domain: str, org: str = "") -> pb.App:
    """The message that clients get: stored spec, current revision, status with address and condition."""
    app = stored(row)
    app.metadata.id.org = org
    app.metadata.revision = row.revision
    status = app.status
    status.ingress.public_url = host_url(row.host, base_url=base_url, apps_domain=apps_domain)
    status.ingress.cname_url = path_url(row, base_url=base_url)
    status.created_at.FromNanoseconds(int(row.created_at * 1e9))
    status.last_updated_at.FromNanoseconds(int(row.updated_at * 1e9))
    if row.started_at is not None:
        status.last_started_at.FromNanoseconds(int(row.started_at * 1e9))
    status.current_replicas = int(row.status in {AppStatus.STARTED, AppStatus.ACTIVE})
    condition = status.conditions.add()
    condition.deployment_status = int(row.status)
    condition.message = row.message
    condition.revision = row.revision
    condition.last_transition_time.FromNanoseconds(int(row.updated_at * 1e9))
    condition.actor.user.id.subject = row.deployed_by
    return app


def label(project: str, domain: str, name: str, *, distinct: bool = False) -> str:
    """The host label `<name>-<project>-<domain>`, at most 63 characters.

    A hash of the three parts ends it when it is too long, when a part holds a character that no host name
    has, or when `distinct` is asked for because another app holds the plain label.
    """
    plain = f"{name}-{project}-{domain}".lower()
    clean = re.sub(r"[^a-z0-9-]", "-", plain)
    if clean == plain and len(clean) <= _LABEL and not distinct:
        return clean
    suffix = hashlib.sha256(f"{project}\0{domain}\0{name}".encode()).hexdigest()[:10]
    return f"{clean[: _LABEL - len(suffix) - 1].rstrip('-')}-{suffix}"


def host_url(host: str, *, base_url: str, apps_domain: str) -> str:
    """Where an app answers by host name. No slash at the end, so that a path can be appended."""
    base = urlsplit(base_url)
    port = f":{base.port}" if base.port is not None else ""
    return f"{base.scheme}://{host}.{apps_domain}{port}"


def path_url(row: AppRow, *, base_url: str) -> str:
    """Where an app answers by path, for programs that cannot resolve its host name."""
    return f"{base_url.rstrip('/')}/apps/{row.project}/{row.domain}/{row.name}"


def _options(spec: pb.Spec) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in spec.container.config:
        if pair.key in options:
            raise Invalid(f"The option {pair.key[:100]!r} stands twice in container.config.")
        options[pair.key] = pair.value
    return options


def _passthrough(options: dict[str, str]) -> bool:
    value = options.get("flyte.passthrough", "exchange")
    if value not in {"exchange", "raw"}:
        raise Invalid("The option flyte.passthrough is 'exchange' or 'raw'.")
    return value == "raw"


def _public_paths(options: dict[str, str]) -> frozenset[str]:
    text = options.get("flyte.public_paths", "[]")
    try:
        paths = json.loads(text)
    except ValueError as error:
        raise Invalid("The option flyte.public_paths is not a JSON list.") from error
    if not isinstance(paths, list) or len(paths) > MAX_PUBLIC_PATHS:
        raise Invalid(f"The option flyte.public_paths is a list of at most {MAX_PUBLIC_PATHS} paths.")
    for path in paths:
        if (
            not isinstance(path, str)
            or not _PUBLIC_PATH.fullmatch(path)
            or {".", ".."} & set(path.split("/"))
        ):
            raise Invalid(
                "A public path starts with '/' and holds letters, digits and '._~-' only.",
                hint="List each path exactly; patterns are not offered.",
            )
    return frozenset(paths)


def _webhooks(options: dict[str, str]) -> Mapping[str, Scheme]:
    found = webhookspecs.declared(options.get(webhookspecs.OPTION, "[]"))
    if found.keys() & _public_paths(options):
        raise Invalid("A path is either public or that of a webhook.")
    return found


def _timeout(spec: pb.Spec) -> float | None:
    if not spec.timeouts.HasField("request_timeout"):
        return None
    seconds = spec.timeouts.request_timeout.ToNanoseconds() / 1e9
    if not 0 < seconds <= MAX_REQUEST_TIMEOUT:
        raise Invalid("The request timeout of an app is more than 0 and at most 3600 seconds.")
    return float(seconds)


def _digest(app: pb.App) -> str:
    """Of what makes a revision: wanting it started or stopped does not, nor who deployed it."""
    content = pb.App()
    content.CopyFrom(app)
    content.spec.ClearField("desired_state")
    content.metadata.ClearField("source_code")
    return hashlib.sha256(_bytes(content)).hexdigest()


def _wanting(desired: Desired) -> pb.Spec:
    return pb.Spec(desired_state=f"DESIRED_STATE_{desired.name}")


def _bytes(app: pb.App) -> bytes:
    data: bytes = app.SerializeToString(deterministic=True)
    return data

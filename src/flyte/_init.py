"""Making the session that remote calls go through.

Which session a call uses, first match: a `use_session` block; what the last init call of this process made;
in a task process, the task's own identity. There is no other: without a session a call raises
NotInitializedError.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Literal

from flyte import _config, _context
from flyte._syncify import syncify
from flyte.errors import InitializationError, NotInitializedError
from flyte.transport import workload
from flyte.transport.credentials import ApiKey, Credentials, Nobody, Passthrough, Static, Workload
from flyte.transport.session import Session

_default: Session | None = None
_ambient: tuple[workload.Agent, Session] | None = None
_developer: Session | None = None

_FIRST_PROJECT, _FIRST_DOMAIN = "flytesnacks", "development"
"""What the command line takes, too, where nothing names a project."""


def open_session(
    *,
    endpoint: str | None = None,
    api_key: str | None = None,
    auth_type: Literal["Passthrough"] | None = None,
    insecure: bool = False,
    project: str | None = None,
    domain: str | None = None,
    org: str | None = None,
    ca_file: str | None = None,
    config: str | os.PathLike[str] | None = None,
) -> Session:
    """Make a session without putting it in force. Takes what `flyte.init` takes; does no network call.

    Use it with `use_session` where one process must act for several parties. Raises InitializationError.
    """
    passthrough = _is_passthrough(auth_type)
    if passthrough and api_key is not None:
        raise InitializationError(
            "Passthrough and an API key exclude each other.",
            hint="Passthrough makes every call as the caller; leave out api_key.",
        )
    found = _config.find_file(config)
    file = _config.read_file(found) if found is not None else None
    agent = workload.find()
    exported = None
    in_task = agent is not None and agent.kind == "task" and (endpoint is None or _names(endpoint, agent))
    if not passthrough and api_key is None and not in_task:
        exported = _config.variable(_config.API_KEY)
    key = ApiKey.parse(api_key or exported or "") if api_key is not None or exported is not None else None
    if key is not None and api_key is not None and endpoint is None:
        # A key that was handed over names its own endpoint; what the environment names may be another one.
        endpoint = key.endpoint
    home = agent if _lives_on(agent, key=key, passthrough=passthrough) else None
    settings = _config.resolve(
        endpoint=endpoint or _fallback(key),
        # Nothing travels in clear over the socket, whatever scheme the control plane has for others.
        insecure=insecure or (home is not None and _names(endpoint, home)),
        project=project,
        domain=domain,
        org=org or (key.org if key is not None else None),
        ca_file=ca_file,
        file=file,
        file_endpoint=not passthrough,
    )
    credentials: Credentials
    if passthrough:
        credentials = Passthrough()
    elif key is not None:
        credentials = Static(key.bearer)
    elif home is not None and home.endpoint.same_place(settings.endpoint):
        credentials = Workload(home.name)
    else:
        credentials = _login(settings) or Nobody()
    if home is None or not home.endpoint.same_place(settings.endpoint):
        return Session(settings, credentials)
    # The public name, scheme included, is the platform's to say: pages are shown there.
    return Session(dataclasses.replace(settings, endpoint=home.endpoint), credentials, socket=home.path)


def _login(settings: _config.Settings) -> Credentials | None:
    """What `flyte login` kept for this very endpoint. Never in a process that the platform hosts."""
    if _config.variable(_config.INJECTED_ENDPOINT, _config.AGENT_SOCKET) is not None:
        return None
    from flyte.transport.login import credential

    return credential.find(settings.endpoint, ca_file=settings.ca_file)


def _lives_on(agent: workload.Agent | None, *, key: ApiKey | None, passthrough: bool) -> bool:
    """Whether the workload's socket is for such a session: an app's for callers, a task's for itself."""
    if agent is None:
        return False
    return passthrough if agent.kind == "app" else key is None and not passthrough


def _names(endpoint: str | None, agent: workload.Agent) -> bool:
    if endpoint is None:
        return False
    try:
        return _config.Endpoint.parse(endpoint, insecure=True).same_place(agent.endpoint)
    except InitializationError:
        return False


def _fallback(key: ApiKey | None) -> str | None:
    """The endpoint inside a key, where nothing else names one."""
    named = _config.variable(_config.INJECTED_ENDPOINT, "FLYTE_ENDPOINT", "FLYTE_ADMIN_ENDPOINT")
    return key.endpoint if key is not None and named is None else None


def _is_passthrough(auth_type: str | None) -> bool:
    if auth_type is None:
        return False
    if auth_type.lower() != "passthrough":
        raise InitializationError(
            f"auth_type={auth_type!r} is not known here.",
            hint='Use auth_type="Passthrough", or api_key=...',
        )
    return True


def _warm() -> None:
    """Load what the first call needs: a server does that before its first request, not during it."""
    import flyteidl2.auth.identity_pb2
    import flyteidl2.task.task_service_pb2
    import flyteidl2.workflow.run_service_pb2  # noqa: F401

    import flyte._interface
    import flyte.transport.connect  # noqa: F401


def _install(session: Session) -> None:
    global _default  # noqa: PLW0603 - the process default is what init is for
    _default = session


@syncify
async def init(
    endpoint: str | None = None,
    *,
    api_key: str | None = None,
    auth_type: Literal["Passthrough"] | None = None,
    insecure: bool = False,
    project: str | None = None,
    domain: str | None = None,
    org: str | None = None,
    ca_file: str | None = None,
) -> None:
    """Set up this process to talk to a control plane. Makes no network call.

    Called again, it replaces the process default; work under way keeps the session it began with.

    :param endpoint: `host`, `host:port`, `dns:///host`, `https://host`, or `http://localhost:port`. Without
        it: the platform's injected variable, `FLYTE_ENDPOINT`, the configuration file.
    :param api_key: the key to act with. Without it: in a task the task's own identity, else `FLYTE_API_KEY`,
        else what `flyte login` kept for this endpoint.
    :param auth_type: `"Passthrough"` makes this the same as `init_passthrough`.
    :param insecure: plain HTTP instead of TLS. Credentials are sent all the same.
    :param project: default project.
    :param domain: default domain.
    :param org: the organisation, where there is more than one.
    :param ca_file: certificate authorities to trust besides the system's, a PEM file.
    :raises InitializationError: no endpoint is named, or a setting makes no sense.
    """
    _install(
        open_session(
            endpoint=endpoint,
            api_key=api_key,
            auth_type=auth_type,
            insecure=insecure,
            project=project,
            domain=domain,
            org=org,
            ca_file=ca_file,
        )
    )


@syncify
async def init_passthrough(
    endpoint: str | None = None,
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    insecure: bool = False,
    *,
    ca_file: str | None = None,
    auth_type: Literal["Passthrough"] = "Passthrough",
) -> None:
    """Set up this process to act as whoever calls it. Makes no network call and reads no credential.

    Every later call is made with the caller metadata in force (`flyte.remote.auth_metadata`, or the FastAPI
    middleware). Without caller metadata a call raises MissingCallerError and nothing is sent, whatever keys,
    files or logins lie around in the process.

    :param endpoint: as for `init`. Without it: the platform's injected variable, then `FLYTE_ENDPOINT`.
    :param org: the organisation, where there is more than one.
    :param project: default project.
    :param domain: default domain.
    :param insecure: plain HTTP instead of TLS. The caller's headers are sent all the same.
    :param ca_file: certificate authorities to trust besides the system's, a PEM file.
    :param auth_type: tolerated; only `"Passthrough"` is right.
    :raises InitializationError: no endpoint is named, or a setting makes no sense.
    """
    if not _is_passthrough(auth_type):
        raise InitializationError("init_passthrough knows no other auth_type.")
    _warm()
    _install(
        open_session(
            endpoint=endpoint,
            auth_type="Passthrough",
            insecure=insecure,
            project=project,
            domain=domain,
            org=org,
            ca_file=ca_file,
        )
    )


@syncify
async def init_from_config(
    path: str | os.PathLike[str] | None = None,
    *,
    project: str | None = None,
    domain: str | None = None,
    org: str | None = None,
) -> None:
    """Set up this process from a configuration file: `path`, `$FLYTE_CONFIG` or `~/.flyte/config.yaml`.

    The file names endpoint, TLS settings and defaults; the credential comes from where `init` takes it.

    :raises InitializationError: there is no such file, or it makes no sense.
    """
    found = _config.find_file(path)
    if found is None:
        raise InitializationError(
            "There is no configuration file.",
            hint="Make ~/.flyte/config.yaml, or call flyte.init(endpoint=...).",
        )
    file = _config.read_file(found)
    # A file that was asked for outranks the environment; only arguments outrank the file.
    _install(
        open_session(
            endpoint=file.endpoint,
            insecure=bool(file.insecure),
            project=project or file.project,
            domain=domain or file.domain,
            org=org or file.org,
            ca_file=file.ca_file,
            config=found,
        )
    )


@syncify
async def init_from_api_key(
    api_key: str | None = None,
    *,
    endpoint: str | None = None,
    insecure: bool = False,
    project: str | None = None,
    domain: str | None = None,
    org: str | None = None,
    ca_file: str | None = None,
) -> None:
    """Set up this process to act as the owner of an API key.

    :param api_key: the key; without it `FLYTE_API_KEY`.
    :param endpoint: outranks the endpoint inside the key. A `twr_…` key has none inside.
    :raises InitializationError: there is no key, or no endpoint.
    """
    key = api_key or _config.variable(_config.API_KEY)
    if key is None:
        raise InitializationError("There is no API key.", hint="Pass api_key=..., or set FLYTE_API_KEY.")
    _install(
        open_session(
            endpoint=endpoint,
            api_key=key,
            insecure=insecure,
            project=project,
            domain=domain,
            org=org,
            ca_file=ca_file,
        )
    )


@syncify
async def init_in_cluster(
    *, org: str | None = None, project: str | None = None, domain: str | None = None
) -> None:
    """Set up a process that the platform hosts from what the platform injected: in a task, as its executor.

    A call inside a task works without this, too. In an app it makes a session without an identity: the
    platform gives apps none of their own, so use `init_passthrough` to act for callers.

    :raises InitializationError: this process is not hosted.
    """
    if _config.variable(_config.INJECTED_ENDPOINT) is None:
        raise InitializationError(
            "The platform injected no endpoint: this process is not one that it hosts.",
            hint="Use flyte.init(endpoint=...) elsewhere.",
        )
    _install(open_session(org=org, project=project, domain=domain))


def current_session() -> Session:
    """The session in force. Raises NotInitializedError."""
    override = _context.session_override()
    if isinstance(override, Session):
        return override
    session = _default or ambient_session()
    if session is None:
        raise NotInitializedError
    return session


def ambient_session() -> Session | None:
    """A task's own session, from what was injected. An app has none: it acts for callers or not at all."""
    global _ambient  # noqa: PLW0603 - kept so that its connections are kept
    agent = workload.find()
    if agent is None or agent.kind != "task":
        return None
    if _ambient is None or _ambient[0] != agent:
        settings = _config.resolve(endpoint=agent.endpoint.url, insecure=agent.endpoint.scheme == "http")
        _ambient = agent, Session(settings, Workload(agent.name), socket=agent.path)
    return _ambient[1]


def own_session() -> Session:
    """The session of whoever this code runs as: in a task its executor, whatever was initialised besides.

    Elsewhere what `flyte.init` made, else what the developer's own environment, login and file make. Raises
    InitializationError.
    """
    ambient = ambient_session()
    if ambient is not None:
        return ambient
    try:
        return current_session()
    except NotInitializedError:
        return _developer_session()


def _developer_session() -> Session:
    global _developer  # noqa: PLW0603 - kept so that its connections are kept
    if _developer is None:
        session = open_session()
        settings = dataclasses.replace(
            session.settings,
            project=session.project or _FIRST_PROJECT,
            domain=session.domain or _FIRST_DOMAIN,
        )
        _developer = Session(settings, session.credentials, socket=session.socket)
    return _developer


@contextlib.contextmanager
def use_session(session: Session) -> Iterator[Session]:
    """Use `session` inside the block, in this context alone. The process default is not touched."""
    with _context.session_scope(session):
        yield session


def current_project() -> str | None:
    """The project that this code works in: the platform's injected one, else the session's default.

    Works before any init call, with None when nothing says.
    """
    return _config.variable(_config.INJECTED_PROJECT) or _default_of("project") or _config.current_project()


def current_domain() -> str | None:
    """The domain that this code works in: the platform's injected one, else the session's default.

    Works before any init call, with None when nothing says.
    """
    return _config.variable(_config.INJECTED_DOMAIN) or _default_of("domain") or _config.current_domain()


def _default_of(what: Literal["project", "domain"]) -> str | None:
    override = _context.session_override()
    session = override if isinstance(override, Session) else _default
    if session is None:
        return None
    return session.project if what == "project" else session.domain


def reset() -> None:
    """Forget what init made, and close the connections of blocking calls. For tests."""
    global _default, _ambient, _developer  # noqa: PLW0603 - undoes what was made
    sessions = [_default, _ambient[1] if _ambient is not None else None, _developer]
    _default = _ambient = _developer = None
    for session in sessions:
        if session is not None:
            _close(session)


@syncify
async def _close(session: Session) -> None:
    await session.aclose()

"""Where each setting comes from: argument, then injected variable, then environment, then file.

A configuration file is the YAML file of the Flyte tools::

    admin:
      endpoint: dns:///tower.example.com
      insecure: false
      caCertFilePath: /etc/ssl/tower.pem
    task:
      org: acme
      project: flytesnacks
      domain: development

It is looked for at the path given, at `$FLYTE_CONFIG`, and at `~/.flyte/config.yaml`, in this order, and no
credential is ever read from it. A file in the working directory is read when it is named (`./config.yaml`),
not because it happens to lie there: it would decide where credentials are sent.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flyte.errors import InitializationError

INJECTED_ENDPOINT = "_U_EP_OVERRIDE"
INJECTED_ORG = "_U_ORG_NAME"
INJECTED_PROJECT = "FLYTE_INTERNAL_EXECUTION_PROJECT"
INJECTED_DOMAIN = "FLYTE_INTERNAL_EXECUTION_DOMAIN"
AGENT_SOCKET = "FLYTE_AGENT_SOCKET"
CONFIG_FILE = "FLYTE_CONFIG"
API_KEY = "FLYTE_API_KEY"

_MAX_FILE = 256 * 1024
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The one host that credentials of a session may be sent to.

    :ivar scheme: `https` or `http`.
    :ivar host: in lower case, IPv6 without brackets.
    :ivar port: None is the default of the scheme.
    """

    scheme: str
    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str, *, insecure: bool = False) -> Endpoint:
        """Read `dns:///host`, `host`, `host:port`, `https://host[:port]` or `http://host[:port]`.

        All mean TLS, save with `insecure=True` (plain HTTP) and for an explicit `http://` on a loopback host.
        Raises InitializationError.
        """
        given = text.strip()
        wrong = InitializationError(
            f"{_shown(given)} is not an endpoint.",
            hint="Write host, host:port, dns:///host, https://host or, on this machine, http://localhost:port.",
        )
        scheme, separator, rest = given.partition("://")
        if not separator:
            scheme, rest = "dns", given
        if scheme == "dns":
            rest = rest.lstrip("/")
        scheme = scheme.lower()
        if scheme not in ("dns", "http", "https"):
            raise wrong
        try:
            parts = urlsplit(f"//{rest}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise wrong from None
        # urlsplit drops line breaks in silence, so the text is looked at as it was given.
        clean = given.isascii() and given.isprintable() and not set(given) & set(" \\%\"'<>")
        if not clean or host is None or "@" in parts.netloc or parts.path.strip("/"):
            raise wrong
        if parts.query or parts.fragment or port == 0:
            raise wrong
        endpoint = cls("http" if insecure else "https", host, port)
        if scheme == "http" and not insecure:
            if not endpoint.is_loopback:
                raise InitializationError(
                    f"{_shown(given)} is plain HTTP to another machine; credentials would travel in clear.",
                    hint="Use https://, or insecure=True if you know that the network in between is safe.",
                )
            endpoint = replace(endpoint, scheme="http")
        return endpoint

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine itself."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def authority(self) -> str:
        """`host` or `host:port`, as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """`scheme://host[:port]`, no slash at the end."""
        return f"{self.scheme}://{self.authority}"

    def same_place(self, other: Endpoint) -> bool:
        """Whether both name the same host and port; the scheme and the spelling of loopback do not count."""
        return self._place() == other._place()

    def _place(self) -> tuple[str, int | None]:
        loopback = self.host == "localhost" or self.host in ("127.0.0.1", "::1")
        port = None if self.port == (443 if self.scheme == "https" else 80) else self.port
        return ("localhost" if loopback else self.host, port)

    def __str__(self) -> str:
        return self.url


def _shown(text: str) -> str:
    """An endpoint as typed, fit for a message: a password that was written into it is left out."""
    return repr(text.rpartition("@")[2][:200])


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """What a configuration file says. No credential is among it."""

    endpoint: str | None = None
    insecure: bool | None = None
    ca_file: str | None = None
    org: str | None = None
    project: str | None = None
    domain: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a session, resolved."""

    endpoint: Endpoint
    ca_file: str | None = None
    org: str = ""
    project: str | None = None
    domain: str | None = None


def resolve(
    *,
    endpoint: str | None = None,
    insecure: bool = False,
    ca_file: str | None = None,
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    file: FileSettings | None = None,
    file_endpoint: bool = True,
) -> Settings:
    """Resolve every setting. `file_endpoint=False` takes nothing but TLS settings from the file (C28).

    Raises InitializationError when nothing names an endpoint.
    """
    from_file = file or FileSettings()
    if not file_endpoint:
        from_file = FileSettings(ca_file=from_file.ca_file)
    injected, exported = variable(INJECTED_ENDPOINT), variable("FLYTE_ENDPOINT", "FLYTE_ADMIN_ENDPOINT")
    # Whether plain HTTP is meant comes from the place that names the endpoint, and from nowhere else.
    if endpoint:
        named, plain = endpoint, False
    elif injected:
        named, plain = injected, injected.startswith("http://")
    elif exported:
        named, plain = exported, bool(flag("FLYTE_INSECURE", "FLYTE_ADMIN_INSECURE"))
    elif from_file.endpoint:
        named, plain = from_file.endpoint, bool(from_file.insecure)
    else:
        raise InitializationError(
            "No endpoint: none was given, and nothing in the environment names one.",
            hint="Pass endpoint=..., or set FLYTE_ENDPOINT.",
        )
    return Settings(
        endpoint=Endpoint.parse(named, insecure=insecure or plain),
        ca_file=first(ca_file, variable("FLYTE_CA_FILE", "FLYTE_ADMIN_CACERTFILEPATH"), from_file.ca_file),
        org=first(org, variable(INJECTED_ORG), variable("FLYTE_ORG", "FLYTE_TASK_ORG"), from_file.org) or "",
        project=first(project, current_project(), from_file.project),
        domain=first(domain, current_domain(), from_file.domain),
    )


def current_project() -> str | None:
    """The project that the platform or the environment names."""
    return first(variable(INJECTED_PROJECT), variable("FLYTE_PROJECT", "FLYTE_TASK_PROJECT"))


def current_domain() -> str | None:
    """The domain that the platform or the environment names."""
    return first(variable(INJECTED_DOMAIN), variable("FLYTE_DOMAIN", "FLYTE_TASK_DOMAIN"))


def first(*values: str | None) -> str | None:
    """The first value that says something."""
    return next((value for value in values if value), None)


def variable(*names: str) -> str | None:
    """The first of these environment variables that is set and not empty."""
    return first(*(os.environ.get(name, "").strip() for name in names))


def flag(*names: str) -> bool | None:
    """The first of these variables that is set, as true or false. Raises InitializationError."""
    for name in names:
        text = os.environ.get(name)
        if text is not None:
            return _truth(text, where=f"${name}")
    return None


def find_file(path: str | os.PathLike[str] | None = None) -> Path | None:
    """The configuration file to read: `path`, `$FLYTE_CONFIG`, or `~/.flyte/config.yaml` if there is one.

    Raises InitializationError for a file that was named and is not there.
    """
    named = os.fspath(path) if path is not None else variable(CONFIG_FILE, "FLYTECTL_CONFIG")
    if named:
        file = Path(named).expanduser()
        if not file.is_file():
            raise InitializationError(f"The configuration file {named} does not exist.")
        return file
    try:
        file = Path.home() / ".flyte" / "config.yaml"
    except RuntimeError:
        return None
    return file if file.is_file() else None


def read_file(path: Path) -> FileSettings:
    """Read a configuration file. Raises InitializationError."""
    import yaml

    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_FILE + 1)
        if len(raw) > _MAX_FILE:
            raise InitializationError(f"{path} is too large for a configuration file.")
        document = yaml.safe_load(raw)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise InitializationError(f"{path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise InitializationError(f"{path} is not valid YAML.") from error
    admin = _section(document, "admin", path)
    task = _section(document, "task", path)
    insecure = admin.get("insecure")
    if insecure is not None and not isinstance(insecure, bool):
        insecure = _truth(str(insecure), where=f"admin.insecure in {path}")
    return FileSettings(
        endpoint=_text(admin, "endpoint", path),
        insecure=insecure,
        ca_file=_text(admin, "caCertFilePath", path),
        org=_text(task, "org", path),
        project=_text(task, "project", path),
        domain=_text(task, "domain", path),
    )


def _section(document: Any, name: str, path: Path) -> Mapping[str, Any]:
    section = document.get(name) if isinstance(document, dict) else None
    if section is None and (document is None or isinstance(document, dict)):
        return {}
    if not isinstance(section, dict):
        raise InitializationError(f"{name} in {path} is not a section of names and values.")
    return section


def _text(section: Mapping[str, Any], name: str, path: Path) -> str | None:
    value = section.get(name)
    if value is None or isinstance(value, str):
        return value or None
    raise InitializationError(f"{name} in {path} is not a text.")


def _truth(text: str, *, where: str) -> bool:
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise InitializationError(f"{where} is neither true nor false.")

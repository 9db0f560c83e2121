"""What an operator can set: one frozen dataclass, defaults and `validate` together."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from tower.errors import Invalid
from tower.issuers import IssuerSettings, check_all

ISOLATION = ("required", "preferred", "off")
"""How much isolation an operator may ask for."""

AS_FITS = "*.localhost"
"""For `Settings.apps_domain`: the hosts of apps are below `localhost` itself over plain HTTP.

No site may set cookies for all of `localhost`, so that no app can plant one that goes to its siblings (T19).
Over TLS the cookies have the `__Host-` prefix, which no sibling can plant, and browsers take no certificate
for all names below `localhost`: there it is `apps.localhost`.
"""

DOMAINS = ("development", "staging", "production")
"""The domains that every project has."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One Tower on one machine. Sizes in bytes, durations in seconds."""

    home: Path
    host: str = "127.0.0.1"
    port: int = 8080
    tls: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    apps_domain: str = AS_FITS
    """Each app has a host below this name."""
    public_url: str = ""
    """Where people reach this Tower, when that is not where it listens: `https://tower.example.org`."""
    behind_proxy: bool = False
    """Everything comes through a proxy, which ends TLS and says in `x-forwarded-for` who calls."""
    org: str = "tower"
    first_project: str = "flytesnacks"
    parallel_attempts: int = 8
    max_inputs: int = 10 * 1024 * 1024
    max_upload: int = 512 * 1024 * 1024
    max_log: int = 16 * 1024 * 1024
    max_body: int = 32 * 1024 * 1024
    max_open_runs: int = 100_000
    max_children: int = 1_000
    max_started: int = 1_000
    max_actions: int = 10_000
    max_triggers: int = 500
    """In each domain of a project."""
    max_task_triggers: int = 20
    shortest_interval: float = 60.0
    """Between two runs that a schedule starts."""
    catch_up: float = 3600.0
    """A time that passed while Tower was down is made up for within so many seconds."""
    queue_timeout: float = 24 * 3600.0
    run_timeout: float = 7 * 24 * 3600.0
    max_grant: float = 7 * 24 * 3600.0
    """How long a run may act for its person after it was asked for."""
    agent: str = "inside"
    """Who serves the sockets of attempts: \"inside\" Tower itself, \"beside\" a process for each attempt."""
    isolation: str = "preferred"
    """Keep tasks and apps apart: "required", "preferred" (as well as the machine can) or "off"."""
    hidden: tuple[Path, ...] = ()
    """What no task or app may see; the home and the certificate's key are hidden anyhow."""
    visible: tuple[Path, ...] = ()
    """Folders outside of the system's own that every task and app may read."""
    agent_ticket_life: float = 120.0
    agent_token_life: float = 300.0
    app_token_life: float = 300.0
    access_token_life: float = 600.0
    run_token_life: float = 600.0
    login_life: float = 30 * 24 * 3600.0
    login_idle: float = 14 * 24 * 3600.0
    device_life: float = 600.0
    session_life: float = 12 * 3600.0
    link_life: float = 600.0
    idle_app_seconds: float = 900.0
    drain_seconds: float = 20.0
    audit_retention: float | None = None
    issuers: tuple[IssuerSettings, ...] = ()
    """Identity providers whose people are let in."""
    max_key_life: float | None = None
    reserved_env: frozenset[str] = field(
        default=frozenset(
            {
                "FLYTE_INTERNAL_EXECUTION_PROJECT",
                "FLYTE_INTERNAL_EXECUTION_DOMAIN",
                "FLYTE_AGENT_SOCKET",
                "FLYTE_APP_SOCKET",
                "FLYTE_APP_PEER",
                "FLYTE_APP_NAME",
                "FLYTE_ATTEMPT_FACTS",
                "FLYTE_ATTEMPT_NUMBER",
                "FLYTE_TASK_VERSION",
                "ACTION_NAME",
                "RUN_NAME",
                "_U_EP_OVERRIDE",
                "_U_INSECURE",
                "_U_ORG_NAME",
                "_U_RUN_BASE",
                "_U_USE_ACTIONS",
                # where the official SDK looks for an endpoint or a credential
                "_U_INSECURE_SKIP_VERIFY",
                "_UNION_EAGER_API_KEY",
                "EAGER_API_KEY",
                "FLYTE_AUTH_TYPE",
                "FLYTE_AUTH_COMMAND",
                "FLYTE_AUTH_PROXY_COMMAND",
                "FLYTE_ADMIN_AUTHTYPE",
                "FLYTE_ADMIN_COMMAND",
                "FLYTE_ADMIN_PROXYCOMMAND",
                "FLYTE_ADMIN_ENDPOINT",
                "UCTL_CONFIG",
                "FLYTECTL_CONFIG",
                "LD_PRELOAD",
                "LD_LIBRARY_PATH",
                "PYTHONPATH",
                "PYTHONHOME",
                "PYTHONSTARTUP",
            }
        )
    )
    """Names that neither a task, an app nor a run may set (T9). FLYTE_ENDPOINT is not among them."""

    def __post_init__(self) -> None:
        if self.apps_domain == AS_FITS:
            encrypted = self.tls or self.behind_proxy
            object.__setattr__(self, "apps_domain", "apps.localhost" if encrypted else "localhost")

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.home / "tower.db"

    def validate(self) -> None:
        """Raise Invalid for a setting that cannot work."""
        if self.isolation not in ISOLATION:
            raise Invalid(f"{self.isolation!r} is not one of {', '.join(ISOLATION)}.")
        if not 0 <= self.port <= 65535:
            raise Invalid(f"The port {self.port} is not between 0 and 65535.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise Invalid("A certificate and its key go together.", hint="Give both --cert and --key.")
        if self.agent not in {"inside", "beside"}:
            raise Invalid("The agent is inside or beside.")
        if self.max_grant < 1:
            raise Invalid("The longest grant of a run is shorter than a second.")
        if self.max_key_life is not None and self.max_key_life < 1:
            raise Invalid("The longest life of a key is shorter than a second.")
        if self.tls_cert is not None and not self.tls:
            raise Invalid("A certificate was given without TLS.", hint="Add --tls.")
        self._validate_addresses()
        check_all(self.issuers)

    def _validate_addresses(self) -> None:
        if _APPS_DOMAIN.fullmatch(self.apps_domain) is None:
            raise Invalid("The domain of the apps is no name of a host.", hint="Write apps.example.org.")
        if self.public_url and _PUBLIC_URL.fullmatch(self.public_url) is None:
            raise Invalid(
                "The public URL is none that this Tower can have.",
                hint="Write https://tower.example.org: scheme, host, a port if need be, and nothing more.",
            )
        if self.behind_proxy and not self.public_url:
            raise Invalid(
                "A Tower behind a proxy has to know its name.", hint="Add --public-url https://NAME."
            )
        encrypted = self.tls or self.behind_proxy
        if self.public_url.startswith("https://") and not encrypted:
            raise Invalid(
                "The public URL says https, and this Tower serves plain HTTP.",
                hint="Add --tls, or --behind-proxy when a proxy ends TLS in front of it.",
            )
        if not (encrypted or _this_machine(self.host)):
            raise Invalid(
                f"On {self.host} keys and sessions would travel over the network in the clear.",
                hint="Add --tls, or --behind-proxy where a proxy ends TLS and alone reaches this port.",
            )


_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_APPS_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_PUBLIC_URL = re.compile(rf"https?://({_LABEL}(\.{_LABEL})*|\[[0-9a-f:]+\])(:[0-9]{{1,5}})?")


def _this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

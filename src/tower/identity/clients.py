"""OAuth clients: the one public client that every command line is, and where its codes may go.

Programs that have a secret are no entries here: their client id is the public id of an API key and their
secret is that key's secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from tower.identity.principal import Ceiling

PUBLIC = "flyte"
"""The id of the command lines, ours and others': they have no secret, so the id proves nothing."""

REDIRECT_URI = "http://localhost:53593/callback"
"""What clients that choose no port of their own listen on."""

ALL = "all"
OPENID = "openid"
OFFLINE = "offline_access"
SCOPES = (ALL, OPENID, OFFLINE, "profile", "email")
"""Scopes without a parameter. `role:`, `project:` and `domain:` with a name behind narrow a login."""

_CALLBACK = "/callback"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_NARROW = re.compile(r"(?P<what>role|project|domain):(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,62})")


def redirect_allowed(uri: str) -> bool:
    """Whether codes may be sent there: a loopback address, any port, one path (RFC 8252 section 7.3).

    Everything else in the address has to be absent, so that nothing can be read in two ways (T37, T41).
    """
    if len(uri) > 100 or not uri.isascii() or not uri.isprintable() or "\\" in uri:
        return False
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if host not in _LOOPBACK or port == 0:
        return False
    written = f"[{host}]" if ":" in host else host
    number = "" if port is None else f":{port}"
    return uri == f"http://{written}{number}{_CALLBACK}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a login asks for, in the order it was asked."""

    names: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Scope | None:
        """Read a space-separated list (RFC 6749 section 3.3); none means `all`. None for an unknown one."""
        names = tuple(dict.fromkeys(text.split(" "))) if text.strip() else (ALL,)
        narrowing = [found["what"] for name in names if (found := _NARROW.fullmatch(name))]
        known = all(name in SCOPES or _NARROW.fullmatch(name) for name in names)
        if len(text) > 500 or not known or len(set(narrowing)) != len(narrowing):
            return None
        return cls(names)

    def __str__(self) -> str:
        return " ".join(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def within(self, wider: Scope) -> bool:
        """Whether a refresh may go down to this from `wider`: only what was given (RFC 6749 section 6)."""
        return set(self.names) <= set(wider.names) and self._narrowing() == wider._narrowing()

    def ceilings(self, source: str) -> tuple[Ceiling, ...]:
        """The limit that it puts on its person."""
        narrow = self._narrowing()
        if not narrow:
            return ()
        project, domain = narrow.get("project", "*"), narrow.get("domain", "*")
        return (Ceiling(source, role=narrow.get("role"), project=project, domain=domain),)

    def _narrowing(self) -> dict[str, str]:
        found = (_NARROW.fullmatch(name) for name in self.names)
        return {match["what"]: match["name"] for match in found if match}

"""The caller of the RPC that is being served: typed, and read from nowhere else."""

from __future__ import annotations

import ipaddress
import re
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tower.identity.principal import Principal

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?")
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  (named, not listened on)


class Call(NamedTuple):
    """Who calls, under which request id, and how this caller addresses Tower."""

    principal: Principal
    request_id: str
    base_url: str


_current: ContextVar[Call] = ContextVar("tower_rpc_call")


def current() -> Call:
    """The call being served. Only methods that answer anonymous callers run without one (LookupError)."""
    return _current.get()


_anonymous: ContextVar[str] = ContextVar("tower_rpc_base_url")


def base_url() -> str:
    """How a caller of a method that answers anonymous callers addresses Tower."""
    return _anonymous.get()


def addressed(url: str) -> None:
    """Set what `base_url` says in this request. For the chain alone."""
    _anonymous.set(url)


def enter(call: Call) -> Token[Call]:
    """Set the call until `leave`. For the chain alone."""
    return _current.set(call)


def leave(token: Token[Call]) -> None:
    """Forget the call. For the chain alone."""
    _current.reset(token)


@dataclass(frozen=True, slots=True, eq=False)  # one of them asks its cache at each call
class Origin:
    """Where Tower is reached: scheme, and the host and port to name when a request gives no good ones.

    With a `public` URL it is that, whatever a request says.
    """

    scheme: str
    host: str
    port: int
    public: str = ""

    @lru_cache(maxsize=256)  # noqa: B019  (one origin lives as long as the process)
    def base_url(self, host_header: str) -> str:
        """The public base URL for one request: its own Host when that is this machine or our name.

        Any other Host header is not repeated, so that nobody is sent a link to a foreign place. A Tower that
        listens on every address knows no name of its own and takes the one that it was called by.
        """
        if self.public:
            return self.public
        match = _HOST.fullmatch(host_header)
        if match is not None and self._ours(match["name"].lower()):
            return f"{self.scheme}://{host_header.lower()}"
        host = _UNSPECIFIED.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"{self.scheme}://{host}:{self.port}"

    def ours(self, base_url: str) -> bool:
        """Whether a URL is one that `base_url` gives for some Host header."""
        return self.base_url(base_url.partition("://")[2]) == base_url

    def _ours(self, name: str) -> bool:
        bare = name.strip("[]")
        return self.host in _UNSPECIFIED or bare == self.host.lower() or loopback(bare)


def loopback(name: str) -> bool:
    """Whether a host name or address can only be this machine."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

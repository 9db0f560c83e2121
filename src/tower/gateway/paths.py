"""One decision about a request's target, used for matching and for forwarding alike.

Nothing is rewritten: a target that two parsers could read in two ways is refused, every other is forwarded
byte for byte (T27).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tower.errors import Invalid

MAX_TARGET = 16 * 1024
PREFIX = b"/apps/"
TEMPLATE = "/apps/{project}/{domain}/{name}/{path}"

_ALLOWED = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(rb"[\x21-\x7e]*")
# encoded slash, backslash or NUL and other controls; and a percent sign that starts a second encoding
_AMBIGUOUS = re.compile(rb"%(?:2[fF]|5[cC]|[01][0-9A-Fa-f]|7[fF]|25(?=[0-9A-Fa-f]{2}))")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Target:
    """An unambiguous path and query. `raw` is sent on as it is, `path` is what an app's router matches."""

    raw: bytes
    path: str
    query: bytes

    @property
    def line(self) -> str:
        """Path and query as they stand in a request line."""
        return (self.raw + (b"?" + self.query if self.query else b"")).decode("ascii")


def read(raw: bytes, query: bytes) -> Target:
    """The target of a request. Raises Invalid for an ambiguous one, without saying what it would mean."""
    if len(raw) + len(query) > MAX_TARGET:
        raise Invalid(f"The request target is longer than {MAX_TARGET} bytes.")
    if not _ALLOWED.fullmatch(raw) or _AMBIGUOUS.search(raw):
        raise Invalid("The path of the request is ambiguous or malformed.")
    if not _QUERY.fullmatch(query) or b"#" in query:
        raise Invalid("The query of the request is malformed.")
    try:
        path = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid("The path of the request is not UTF-8.") from error
    segments = path.split("/")[1:]
    # a parameter after ';' is cut off by some servers: '/..;x/' is '/../' to them
    if any(segment.split(";", 1)[0].strip() in {".", ".."} for segment in segments) or "" in segments[:-1]:
        raise Invalid("The path of the request has empty or dot segments.")
    return Target(raw, path, query)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A target of the path form: the app's key, the prefix it is mounted at, and the rest."""

    project: str
    domain: str
    name: str
    prefix: str
    target: Target


def mounted(target: Target) -> Mounted | None:
    """Split `/apps/<project>/<domain>/<name>/rest`; None when it is not of that form.

    The first three parts are compared undecoded: an app has one path. Without a slash behind the name the
    rest is "", which is the caller's to redirect.
    """
    if not target.raw.startswith(PREFIX):
        return None
    parts = target.raw[len(PREFIX) :].decode("ascii").split("/", 3)
    if len(parts) < 3 or not all(_PLAIN.fullmatch(part) for part in parts[:3]):
        return None
    project, domain, name = parts[:3]
    prefix = f"/apps/{project}/{domain}/{name}"
    return Mounted(
        project,
        domain,
        name,
        prefix,
        Target(target.raw[len(prefix) :], target.path[len(prefix) :], target.query),
    )

"""Identity providers as an operator names them: the tables `[oidc.<alias>]` of the configuration file.

Secrets are never values in it, only names of files that nobody else can read.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from tower.errors import Invalid

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
"""What an issuer may sign with. Nothing symmetric, and never nothing at all."""

_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,30}")
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class RoleOfGroup:
    """Who is in `group`, as the issuer names it, has `role` in the scope. "*" is every project or domain."""

    group: str
    role: str
    project: str = "*"
    domain: str = "*"


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """One identity provider. `audiences` are those of API tokens; without any, its tokens are no bearers.

    `client_id` "" offers no button on the sign-in page. `subject` is "sub" (`<alias>|<sub>`, the default) or
    "email" (the address, once the issuer says that it is verified and its domain is in `email_domains`).
    With `email_domains` nobody else is let in, whatever `subject` says.
    """

    alias: str
    issuer: str
    client_id: str = ""
    client_secret_file: Path | None = None
    audiences: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ALGORITHMS
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    label: str = ""
    subject: str = "sub"
    email_domains: tuple[str, ...] = ()
    groups_claim: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    """The issuer's name of a group to the name of a group of Tower's. Either side may be left to the other:
    a group of Tower's may name `<alias>:<group>` as its external name instead."""
    roles: tuple[RoleOfGroup, ...] = ()

    @property
    def shown(self) -> str:
        """What the button on the sign-in page says."""
        return self.label or self.alias

    def validate(self) -> None:
        """Raise Invalid for what cannot work or would be unsafe, naming the field."""
        if not _ALIAS.fullmatch(self.alias):
            raise Invalid(f"The name oidc.{self.alias[:40]} is not made of a-z, 0-9 and '-'.")
        self._require(safe_url(self.issuer), "issuer", "an https address, or http on this machine itself")
        parts = urlsplit(self.issuer)
        self._require(not parts.query and not parts.fragment, "issuer", "without query and fragment")
        self._require(bool(self.client_id or self.audiences), "client_id or audiences", "given")
        self._require(
            bool(self.algorithms) and set(self.algorithms) <= set(ALGORITHMS),
            "algorithms",
            f"of {', '.join(ALGORITHMS)}",
        )
        self._require("openid" in self.scopes, "scopes", "a list with openid")
        self._require(
            all(_SCOPE.fullmatch(scope) for scope in self.scopes), "scopes", "a list of plain words"
        )
        self._require(self.subject in {"sub", "email"}, "subject", "sub or email")
        self._require(
            all(_DOMAIN.fullmatch(name) for name in self.email_domains), "email_domains", "host names"
        )
        self._require(
            self.subject == "sub" or bool(self.email_domains), "email_domains", "given when subject is email"
        )
        self._require(all(self.audiences), "audiences", "a list of names that are not empty")
        # a token for the client is an ID token, or was made for no API in particular
        self._require(self.client_id not in self.audiences, "audiences", "without the client_id")
        self._require(
            bool(self.groups_claim) or not (self.groups or self.roles), "groups_claim", "given with groups"
        )
        self._require(all(given.group and given.role for given in self.roles), "roles", "with group and role")
        self._require(len(self.label) <= 60 and self.label.isprintable(), "label", "at most 60 characters")

    def client_secret(self) -> str:
        """The secret as it stands in its file now, "" for none. Raises Invalid when others can read it."""
        if self.client_secret_file is None:
            return ""
        try:
            with self.client_secret_file.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read(4097).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(
                f"The file {self.client_secret_file} cannot be read.",
                hint="client_secret_file",
                cause=str(error),
            ) from error
        self._require(
            not mode & 0o077, "client_secret_file", "a file that only its owner can read: chmod 600"
        )
        self._require(0 < len(text) <= 4096, "client_secret_file", "a file with a secret in it")
        return text

    def _require(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise Invalid(f"The setting {name} of oidc.{self.alias} has to be {wanted}.")


def configured(home: Path, path: Path | None = None) -> tuple[IssuerSettings, ...]:
    """The issuers of the named file, or of `config.toml` in the home if there is one."""
    if path is None:
        path = home / "config.toml"
        if not path.exists():
            return ()
    return read(path)


def read(path: Path) -> tuple[IssuerSettings, ...]:
    """The issuers of a configuration file (TOML), validated. Raises Invalid naming what is wrong with it."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid(f"The configuration {path} cannot be read.", hint=str(error)) from error
    unknown = document.keys() - {"oidc"}
    tables = document.get("oidc", {})
    if unknown or not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
        raise Invalid(f"The configuration {path} has other things than tables [oidc.<name>].")
    found = tuple(_issuer(alias, table, path.parent) for alias, table in tables.items())
    check_all(found)
    return found


def check_all(issuers: tuple[IssuerSettings, ...]) -> None:
    """Raise Invalid unless each holds, and no two share a name or an issuer."""
    for each in issuers:
        each.validate()
    for name in ("alias", "issuer"):
        values = [getattr(each, name) for each in issuers]
        if len(set(values)) != len(values):
            raise Invalid(f"Two tables of oidc have the same {name}.")


def safe_url(text: str, *, plain: bool = True) -> bool:
    """Whether credentials may go there: https, or with `plain` http to this machine itself."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment or not text.isascii() or " " in text:
        return False
    return parts.scheme == "https" or (plain and parts.scheme == "http" and _loopback(host))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _issuer(alias: str, table: dict[str, Any], folder: Path) -> IssuerSettings:
    hints = get_type_hints(IssuerSettings)
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in hints or name == "alias":
            raise Invalid(f"There is no setting {name[:40]} in oidc.{alias[:40]}.")
        values[name] = _value(value, hints[name], f"{name} of oidc.{alias}", folder)
    if "issuer" not in values:
        raise Invalid(f"The setting issuer of oidc.{alias[:40]} is missing.")
    return IssuerSettings(alias=alias, **values)


def _value(value: Any, kind: Any, name: str, folder: Path) -> Any:
    if kind is str and isinstance(value, str):
        return value
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_value(each, get_args(kind)[0], name, folder) for each in value)
    if kind is RoleOfGroup and isinstance(value, dict):
        known = {each.name for each in fields(RoleOfGroup)}
        if {"group", "role"} <= value.keys() <= known and all(
            isinstance(each, str) for each in value.values()
        ):
            return RoleOfGroup(**value)
    if kind == Path | None and isinstance(value, str):
        return folder / value
    strings = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if kind == Mapping[str, str] and strings:
        return dict(value)
    raise Invalid(f"The setting {name[:80]} has a value of the wrong form.")

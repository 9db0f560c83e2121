"""What stays at home: ignore files, caches and environments, and whatever looks like a credential."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

IGNORE_FILES = (".gitignore", ".flyteignore")

_DIRECTORIES = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env.bak", "venv.bak"})
_FILES = ("*.pyc", "*.pyo", "*~", "*.swp", "*.egg-info")
_CREDENTIALS = (
    ".env",
    ".env.*",
    "*.env",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".htpasswd",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "credentials",
    "credentials.json",
    "client_secret*.json",
    "service-account*.json",
    "service_account*.json",
)


def looks_like_credential(name: str) -> bool:
    """Whether a file of this name usually holds a credential. Such files are never bundled."""
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in _CREDENTIALS)


def is_built_in(name: str, *, directory: bool) -> bool:
    """Whether hidden files, caches and environments of this name are left out in every project."""
    if name.startswith("."):
        return True
    if directory:
        return name in _DIRECTORIES or name.endswith(".egg-info")
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _FILES)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line of an ignore file, valid below `base`."""

    base: PurePosixPath
    pattern: re.Pattern[str]
    negated: bool
    directories_only: bool


@dataclass(slots=True)
class Ignore:
    """The rules of the ignore files seen so far. The last rule that matches decides, as with git."""

    rules: list[_Rule] = field(default_factory=list)

    def read(self, directory: Path, *, base: PurePosixPath, names: tuple[str, ...] = IGNORE_FILES) -> None:
        """Add the rules of the ignore files in a directory; `base` is its path relative to the root."""
        for name in names:
            try:
                lines = (directory / name).read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            self.rules.extend(rule for line in lines if (rule := _rule(line, base)) is not None)

    def ignores(self, path: PurePosixPath, *, directory: bool) -> bool:
        """Whether the rules leave out a path (relative to the root)."""
        ignored = False
        for rule in self.rules:
            if rule.directories_only and not directory:
                continue
            if not path.is_relative_to(rule.base):
                continue
            if rule.pattern.fullmatch(str(path.relative_to(rule.base))):
                ignored = not rule.negated
        return ignored


def _rule(line: str, base: PurePosixPath) -> _Rule | None:
    text = line.rstrip()
    if not text or text.startswith("#"):
        return None
    negated = text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    directories_only = text.endswith("/")
    text = text.rstrip("/")
    anchored = "/" in text
    text = text.removeprefix("/")
    if not text:
        return None
    pattern = _translate(text)
    try:
        compiled = re.compile(pattern if anchored else f"(?:.*/)?{pattern}", re.DOTALL)
    except re.error:
        return None
    return _Rule(base, compiled, negated, directories_only)


def _translate(text: str) -> str:
    """A pattern of an ignore file as a regular expression: `*` stays within a name, `**` does not."""
    out = []
    position = 0
    while position < len(text):
        rest = text[position:]
        if rest.startswith("**/"):
            out.append("(?:.*/)?")
            position += 3
        elif rest.startswith("**"):
            out.append(".*")
            position += 2
        elif rest[0] == "*":
            out.append("[^/]*")
            position += 1
        elif rest[0] == "?":
            out.append("[^/]")
            position += 1
        elif rest[0] == "[" and "]" in rest[2:]:
            end = rest.index("]", 2)
            content = rest[1:end].replace("\\", "\\\\")
            out.append(f"[{'^' + content[1:] if content[0] == '!' else content}]")
            position += end + 1
        else:
            out.append(re.escape(rest[0]))
            position += 1
    return "".join(out)

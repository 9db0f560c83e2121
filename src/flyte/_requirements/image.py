"""Image: what the environment of a task or an app holds, beside Python and this SDK."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from flyte._requirements.origin import origin
from flyte._requirements.variables import check_variables
from flyte.errors import DeclarationError, DeploymentError

DEBIAN = "debian"

_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_URI = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]*")
_APT = re.compile(r"[a-z0-9][a-z0-9+.-]*(=[A-Za-z0-9.+:~-]+)?")
_URL_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_OLDEST_PYTHON = 11
_MOST_PACKAGES = 512


@dataclass(frozen=True, slots=True)
class _Requirements:
    """A requirements file by path, and where a relative path is looked up: it is read at deployment."""

    path: Path
    anchor: Path


@dataclass(frozen=True, slots=True)
class Image:
    """An immutable description of an environment; every `with_...` answers a new one.

    Nothing is built when it is declared. The builder of the control plane makes the same description once.
    """

    base: str = DEBIAN
    python: str = ""
    pip_packages: tuple[str, ...] = ()
    apt_packages: tuple[str, ...] = ()
    env_vars: Mapping[str, str] = field(default_factory=dict)
    _files: tuple[_Requirements, ...] = ()

    @classmethod
    def from_debian_base(cls, python_version: str | tuple[int, int] | None = None) -> Image:
        """Debian with Python: `"3.12"` or `(3, 12)`; None leaves the version to the builder."""
        if python_version is None:
            return cls()
        version = (
            ".".join(str(part) for part in python_version)
            if isinstance(python_version, tuple)
            else python_version
        )
        if not isinstance(version, str) or not _PYTHON.fullmatch(version):
            raise DeclarationError(f"{python_version!r} is not a version of Python such as '3.12'.")
        if int(version.removeprefix("3.")) < _OLDEST_PYTHON:
            raise DeclarationError(
                f"Python {version} is too old: 3.{_OLDEST_PYTHON} is the oldest supported."
            )
        return cls(python=version)

    @classmethod
    def from_base(cls, image_uri: str) -> Image:
        """Any image that has Python, by its URI: `ghcr.io/acme/base:1.4`."""
        if not isinstance(image_uri, str) or not _URI.fullmatch(image_uri) or len(image_uri) > 255:
            raise DeclarationError(f"{image_uri!r} is not the URI of an image.")
        return cls(base=image_uri)

    def with_pip_packages(self, *packages: str) -> Image:
        """With packages from the package index, each a requirement such as `"fastapi>=0.128"`."""
        for package in packages:
            _check_requirement(package)
        return self._with_packages(pip_packages=(*self.pip_packages, *packages))

    def with_apt_packages(self, *packages: str) -> Image:
        """With Debian packages."""
        for package in packages:
            if not isinstance(package, str) or not _APT.fullmatch(package):
                raise DeclarationError(f"{package!r} is not the name of a Debian package.")
        return self._with_packages(apt_packages=(*self.apt_packages, *packages))

    def with_requirements(self, file: str | Path) -> Image:
        """With the packages that a requirements file names.

        A relative path is looked up beside the file that declares the image, then in the working directory.
        The file is read when something is deployed, not before: a running task does not need it.
        """
        if not isinstance(file, (str, Path)) or not str(file):
            raise DeclarationError("with_requirements takes the path of a file.")
        declared_in = origin().file
        anchor = declared_in.parent if declared_in else Path.cwd()
        return replace(self, _files=(*self._files, _Requirements(Path(file), anchor)))

    def with_env_vars(self, env_vars: Mapping[str, str]) -> Image:
        """With environment variables; later ones win. They are no place for a credential."""
        return replace(self, env_vars={**self.env_vars, **check_variables(env_vars, what="an image")})

    def requirements(self) -> tuple[str, ...]:
        """The lines of the requirements files, comments removed. Raises DeploymentError."""
        return tuple(line for file in self._files for line in _lines(file))

    def to_json(self) -> str:
        """The description in canonical JSON: it names the image, and the builder reads it."""
        return json.dumps(
            {
                "base": self.base,
                "python": self.python,
                "pip_packages": list(self.pip_packages),
                "apt_packages": list(self.apt_packages),
                "requirements": list(self.requirements()),
                "env_vars": dict(self.env_vars),
            },
            sort_keys=True,
            separators=(",", ":"),
        )

    def _with_packages(self, **change: tuple[str, ...]) -> Image:
        for packages in change.values():
            if len(packages) > _MOST_PACKAGES:
                raise DeclarationError(f"An image names at most {_MOST_PACKAGES} packages of a kind.")
        return replace(self, **change)  # type: ignore[arg-type]


def as_image(value: Image | str) -> Image:
    """`"auto"` is Debian with the builder's Python; another string is the URI of a base image."""
    if isinstance(value, Image):
        return value
    if not isinstance(value, str):
        raise DeclarationError(f'image must be an Image, a URI or "auto", not {type(value).__name__}.')
    return Image.from_debian_base() if value == "auto" else Image.from_base(value)


def _check_requirement(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise DeclarationError("A package must be a non-empty string such as 'fastapi>=0.128'.")
    if text != text.strip() or len(text) > 255 or not text.isprintable():
        raise DeclarationError(f"{text[:60]!r} is not a requirement on one line.")
    if text.startswith("-"):
        raise DeclarationError(
            f"{text.split()[0]!r} is an option of pip, not a package.", hint="Name each package by itself."
        )
    if _URL_WITH_PASSWORD.search(text):
        raise DeclarationError(
            "A package URL holds a user name and a password.",
            hint="An image description is stored and shown; give the builder the credential instead.",
        )
    return text


def _lines(file: _Requirements) -> list[str]:
    candidates = [file.anchor / file.path, Path.cwd() / file.path]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise DeploymentError(f"The requirements file {file.path} does not exist.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise DeploymentError(f"The requirements file {file.path} cannot be read as text.") from fault
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in text.splitlines())
    try:
        return [_check_requirement(line) for line in lines if line]
    except DeclarationError as fault:
        raise DeploymentError(f"{file.path}: {fault.message}", hint=fault.hint) from fault

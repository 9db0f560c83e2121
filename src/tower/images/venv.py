"""Environments made by uv, one per image content, beside one another on this machine's disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import uv as uv_binary

from tower.errors import Fault, Invalid, Precondition, Unavailable, Unsupported
from tower.images import official
from tower.images.confined import Confine, Tools, installed
from tower.images.port import Environment, ImageSpec, Progress
from tower.images.readable import open_up
from tower.images.sdk import Sdk, publish
from tower.images.uv import run

_MARKER = "tower-image.json"
_AT_ONCE = 2
_JOBS = 2
_SECONDS_TO_LOOK = 60.0
_SHOWN = 1500
_MOST_PACKAGES = 1000
_VERSION = re.compile(r"3\.\d{1,2}(\.\d{1,2})?")
_APT = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_NETWORK = re.compile(
    r"error sending request|failed to fetch|timed out|connection (refused|reset)|dns error", re.IGNORECASE
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# no two runs of blanks behind one another: the time to refuse a line must not be the square of its length
_PACKAGE = re.compile(_NAME.pattern + r"\s*(\[[^\[\]]*\]\s*)?($|[<>=!~;(,#]|(?P<url>@\s*(git\+)?https?://))")
_REMARK = re.compile(r"\s#.*")
_NEVER = re.compile(r"\s-|[$\\]")
"""Options, and what the installer would replace by variables of Tower's own, the password of an index say."""


class VenvBuilder:
    """A `tower.images.port.Builder`. An environment holds what the image names and the SDK, nothing else.

    Only wheels are installed unless `allow_builds`: building a package runs its code with the server's
    rights, before anybody is attested.
    """

    def __init__(
        self,
        home: Path,
        *,
        uv: str = "",
        seconds: float = 600.0,
        allow_builds: bool = False,
        confine: Confine | None = None,
    ) -> None:
        """Keep environments under `home/images` and the SDK under `home/sdk`. Raises Broken.

        `confine` keeps the tools from seeing more than they need.
        """
        self._images = home / "images"
        self._images.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tools = Tools(confine, program=uv or uv_binary.find_uv_bin(), seconds=seconds)
        self._allow_builds = allow_builds
        self._sdk: Sdk = publish(_made(home / "sdk"))
        self._running: dict[str, asyncio.Task[Path]] = {}
        self._listeners: dict[str, list[Progress]] = {}
        self._ready: dict[str, Path] = {}
        self._bases: dict[str, tuple[Path, ...]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        for draft in self._images.glob(".draft-*"):
            shutil.rmtree(draft, ignore_errors=True)

    @property
    def sdk(self) -> Sdk:
        """The copy of the SDK that images get."""
        return self._sdk

    async def ready(self, spec: ImageSpec, *, progress: Progress) -> Environment:
        """The environment of an image, built once however many ask at the same time. Raises Fault."""
        digest = self._digest(spec)
        folder = self._ready.get(digest)
        if folder is None:
            folder = await self._built(spec, digest, progress)
            await asyncio.to_thread(open_up, folder)  # one of an older Tower may be closed still
            self._ready[digest] = folder
        return Environment(
            digest, folder / "bin" / "python", dict(spec.env_vars), await self._needs(spec.python)
        )

    async def _needs(self, version: str) -> tuple[Path, ...]:
        if version not in self._bases:
            self._bases[version] = installed(await self._interpreter(version))
        return (self._sdk.path, *self._bases[version])

    async def close(self) -> None:
        """Give up the builds that run."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _digest(self, spec: ImageSpec) -> str:
        # variables are given to the process, so images that differ in them alone share an environment
        content = [
            spec.base,
            spec.python or _own_version(),
            spec.pip_packages,
            spec.apt_packages,
            spec.requirements,
            f"{spec.sdk} {official.DIGEST}" if spec.sdk else self._sdk.digest,
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    async def _built(self, spec: ImageSpec, digest: str, progress: Progress) -> Path:
        folder = self._images / digest
        if (folder / _MARKER).is_file():
            return folder
        task = self._running.get(digest)
        if task is None:
            listeners = self._listeners[digest] = []
            task = asyncio.get_running_loop().create_task(
                self._build(spec, folder, lambda line: [hear(line) for hear in listeners])
            )
            self._running[digest] = task
            task.add_done_callback(lambda _: (self._running.pop(digest), self._listeners.pop(digest)))
        self._listeners[digest].append(progress)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Unavailable("The server is stopping.") from None
            raise

    async def _build(self, spec: ImageSpec, folder: Path, say: Callable[[str], object]) -> Path:
        wanted = _checked(spec)
        base = (spec.sdk,) if spec.sdk else self._sdk.requirements
        async with self._slots:
            python = await self._interpreter(spec.python)
            if spec.apt_packages:
                await self._check_apt(spec.apt_packages)
            draft = self._images / f".draft-{secrets.token_hex(8)}"
            draft.mkdir(mode=0o700)
            try:
                site = await self._make(draft, python=python, base=base, wanted=wanted, say=say)
                if spec.sdk:
                    await asyncio.to_thread(official.equip, draft)
                else:
                    await self._add_own(site, python=python)
                await asyncio.to_thread(_publish, draft, folder, spec)
            except IsADirectoryError as error:  # packages may put files anywhere in the environment
                raise Precondition(
                    f"A package of the image has a folder {Path(str(error.filename)).name}, where Tower "
                    "has a file."
                ) from error
            finally:
                await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
        return folder

    async def _make(
        self,
        draft: Path,
        *,
        python: str,
        base: tuple[str, ...],
        wanted: tuple[str, ...],
        say: Callable[[str], object],
    ) -> Path:
        """Fill it; gives the folder of its packages, of whose name they may bring others."""
        say("making the environment")
        base_files = installed(python)
        made = await self._tools.uv(
            ["venv", "--relocatable", "--no-project", "--allow-existing", "--python", python, draft],
            directory=draft,
            read=base_files,
        )
        if made.code != 0:
            raise self._failed("The environment could not be made.", made.lines)
        site = _site(draft)
        (draft / "requirements.txt").write_text("\n".join((*base, *wanted)) + "\n")
        interpreter = draft / "bin" / "python"
        options = [] if self._allow_builds else ["--no-build"]
        done = await self._tools.uv(
            [
                "pip",
                "install",
                "--python",
                interpreter,
                *options,
                "--requirement",
                draft / "requirements.txt",
            ],
            directory=draft,
            read=base_files,
            progress=say,
        )
        if done.code != 0:
            raise self._failed(_blame(wanted, done.lines), done.lines)
        await self._compile(python, draft / "lib", jobs=_JOBS)
        return site

    async def _add_own(self, site: Path, *, python: str) -> None:
        """Make the SDK of this project importable in an environment."""
        (site / "flyte-tower.pth").write_text(f"{self._sdk.path}\n")
        await self._compile(python, self._sdk.path)

    async def _compile(self, python: str, folder: Path, *, jobs: int = 1) -> None:
        """Compile modules, by an interpreter that knows nothing of the packages: none of their code runs."""
        await self._tools.run(
            [python, "-I", "-S", "-m", "compileall", "-q", "-j", str(jobs), folder],
            directory=folder,
            read=installed(python),
        )

    async def _interpreter(self, version: str) -> str:
        if version in ("", _own_version(), ".".join(str(part) for part in sys.version_info[:3])):
            return str(getattr(sys, "_base_executable", sys.executable))
        # this looks around on the machine, and runs nothing of anybody's
        found = await run(
            [self._tools.program, "python", "find", "--no-project", "--system", version],
            directory=self._images,
            seconds=_SECONDS_TO_LOOK,
        )
        if found.code != 0 or not found.lines:
            raise Unsupported(
                f"The image asks for Python {version}, which this machine does not have.",
                hint=f"Install it here, or leave the version out to get Python {_own_version()}.",
                cause="\n".join(found.lines),
            )
        return found.lines[-1]

    async def _check_apt(self, packages: tuple[str, ...]) -> None:
        tool = shutil.which("dpkg-query")
        missing = list(packages)
        if tool is not None:
            names = [package.partition("=")[0] for package in packages]
            listed = await run(
                [tool, "--show", "--showformat=${db:Status-Status} ${Package}\n", "--", *names],
                directory=self._images,
                seconds=_SECONDS_TO_LOOK,
            )
            missing = [name for name in names if f"installed {name}" not in listed.lines]
        if missing:
            raise Unsupported(
                f"The image asks for the Debian package {missing[0]}, which this machine does not have.",
                hint=f"Images on one machine share its system packages: run 'apt-get install {missing[0]}' "
                "on Tower's machine.",
            )

    def _failed(self, message: str, lines: tuple[str, ...]) -> Fault:
        text = "\n".join(lines)[-_SHOWN:]
        for path, name in ((str(self._images), "images"), (os.path.expanduser("~"), "~")):
            text = text.replace(path, name)
        if _NETWORK.search(text):
            return Unavailable(f"{message}\n{text}", hint="The package index did not answer.")
        return Precondition(f"{message}\n{text}")


def _checked(spec: ImageSpec) -> tuple[str, ...]:
    """The requirements of an image, none of which is an option, a path or two lines. Raises Fault."""
    if spec.base not in ("", "debian"):
        raise Unsupported(
            f"The image starts from {spec.base[:200]}, and this Tower has no container engine.",
            hint="Start from Image.from_debian_base() and name packages.",
        )
    if spec.python and not _VERSION.fullmatch(spec.python):
        raise Invalid(f"{spec.python[:20]!r} is not a version of Python such as 3.12.")
    for package in spec.apt_packages:
        if not _APT.fullmatch(package.partition("=")[0]):
            raise Invalid(f"{package[:60]!r} is not the name of a Debian package.")
    if spec.sdk and not official.known(spec.sdk):
        raise Invalid(f"{spec.sdk[:60]!r} is not a release of the official SDK.")
    wanted = (*spec.pip_packages, *spec.requirements)
    if len(wanted) + len(spec.apt_packages) > _MOST_PACKAGES:
        raise Invalid(f"An image names at most {_MOST_PACKAGES} packages.")
    for line in wanted:
        found = _PACKAGE.match(line) if line.isprintable() and not _NEVER.search(line) else None
        # the installer takes `a#/../b.whl` for a path
        if found is None or (found["url"] is None and "/" in _REMARK.sub("", line)):
            raise Invalid(
                f"{line[:60]!r} is not the name of a package.",
                hint="Name packages of the index, with their version limits: no options, no paths.",
            )
    return wanted


def _blame(wanted: tuple[str, ...], lines: tuple[str, ...]) -> str:
    """The sentence that names the package to look at: one that the tool's last words name."""
    said = " ".join(lines).lower().replace("_", "-")
    for line in wanted:
        name = _NAME.match(line)
        word = name.group().lower().replace("_", "-") if name is not None else ""
        # most are nowhere in it, and an expression of their own is slow to make
        if word and word in said and re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", said):
            return f"The image's package {line!r} could not be installed."
    return "The image's packages could not be installed."


def _site(environment: Path) -> Path:
    """Where a new environment has its packages."""
    (found,) = environment.glob("lib/python*/site-packages")
    return found


def _publish(draft: Path, folder: Path, spec: ImageSpec) -> None:
    (draft / _MARKER).write_text(
        json.dumps(
            {
                "python": spec.python,
                "sdk": spec.sdk,
                "pip": spec.pip_packages,
                "requirements": spec.requirements,
            }
        )
    )
    open_up(draft)
    if folder.exists():  # without its marker: a former server was stopped while removing it
        shutil.rmtree(folder)
    os.replace(draft, folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _own_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"

"""What each process may see, and how well this machine holds it to that. The kernel's part is `sandbox`."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tower.errors import Precondition
from tower.executors.process import seccomp

SANDBOX = Path(__file__).with_name("sandbox")
SANDBOX_SCRIPT = SANDBOX / "__init__.py"
SECCOMP = Path(__file__).with_name("seccomp.py")
_LAUNCHER = Path(__file__).with_name("launch.py")
_TRIAL = Path(__file__).with_name("trial.py")

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/nix/store",
    "/var/lib/ca-certificates",
    "/sys/devices/system",
)
"""What a program needs of the machine: no home folders, not /run, /var, /srv or /mnt."""

_MIXED = ("/etc", "/opt")
"""Where there are files that are not for everybody."""

_WITHOUT_NAMESPACES = ("/proc", "/sys/devices/system")
"""Not /dev: there are disks and the terminals of others, open to whom they belong."""

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm")  # noqa: S108
_TEMPORARY = ("/tmp/", "/var/tmp/")  # noqa: S108
_USERS = ((2_000_000_000, 1 << 16), (60_000, 5_000), (65_534, 1))
"""First and number of the users that processes are where Tower is root; the first that exist here."""
_TRIAL_SECONDS = 60.0
_MOST_MEMORY = 2 << 30


class Mode(StrEnum):
    """How processes are kept apart, the best first."""

    FULL = "namespaces+landlock"
    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    NONE = "none"

    @property
    def namespaces(self) -> bool:
        """Whether each process has its own view of files, /tmp and the process table."""
        return self in (Mode.FULL, Mode.NAMESPACES)

    @property
    def landlock(self) -> bool:
        """Whether each process is held to a list of what it may reach."""
        return self in (Mode.FULL, Mode.LANDLOCK)


class Wanted(StrEnum):
    """What an operator asks for."""

    REQUIRED = "required"
    PREFERRED = "preferred"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What `launch` lets a program see; the paths are absolute. See `sandbox.build`."""

    namespaces: bool
    landlock: bool
    filter: bool
    system: tuple[str, ...]
    read: tuple[str, ...]
    write: tuple[str, ...]
    hidden: tuple[str, ...]
    temporary: str | None
    memory: int
    directory: str
    user: int | None
    parent: bool
    links: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """For the launcher's plan."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Makes the plans. `hidden` is never seen, not even below something that is; `visible` always.

    `filter`: some system calls are refused, see `seccomp`.
    """

    mode: Mode
    filter: bool = False
    hidden: tuple[Path, ...] = ()
    visible: tuple[Path, ...] = ()
    root: bool = field(default_factory=lambda: os.geteuid() == 0)
    _users: Any = field(default_factory=count, repr=False, compare=False)

    def __str__(self) -> str:
        """The mode in force, as it is logged and shown."""
        return f"{self.mode.value}{'+seccomp' if self.filter else ''}"

    def user(self) -> int | None:
        """A user of its own for a process, where Tower runs as root; else everybody is who Tower is."""
        if not self.root or not self.mode.namespaces:
            return None
        first, number = next((each for each in _USERS if _exist(*each)), _USERS[-1])
        serial: int = next(self._users)
        return first + serial % number

    def program(
        self,
        *,
        read: Iterable[Path | None],
        write: Iterable[Path],
        directory: Path,
        user: int | None,
        temporary: Path | None = None,
        memory: int | None = None,
        parent: bool = False,
        links: Mapping[str, str] = MappingProxyType({}),
    ) -> Shown | None:
        """The world of one program. `parent`: it forks others, which close themselves off further.

        `links` are seen besides, within the machine's system folders: a path and where it leads.

        `memory` is its limit in bytes: no folder of its own in memory takes more. Without one that is a
        quarter of the machine's, at most 2 GiB.
        """
        if self.mode is Mode.NONE:
            return None
        namespaces = self.mode.namespaces
        return Shown(
            namespaces=namespaces,
            landlock=self.mode.landlock,
            filter=self.filter,
            system=_SYSTEM if namespaces else (*self._plain_system(), *_WITHOUT_NAMESPACES),
            read=_texts((*self.visible, *(path for path in read if path is not None))),
            write=_texts(write) if namespaces else (*_DEVICES, *_texts(write)),
            hidden=_texts(path.resolve() for path in self.hidden),
            # where the home itself lies below /tmp, that is one in memory with what is shown in it
            temporary=None if temporary is None or _temporary(str(temporary)) else str(temporary),
            memory=memory or in_memory(),
            directory=str(directory),
            user=user,
            parent=parent,
            links=dict(links),
        )

    def _plain_system(self) -> tuple[str, ...]:
        """Paths of the system that are for everybody: with Landlock alone, root's processes are root's."""
        if not self.root:
            return _SYSTEM
        return tuple(each for path in _SYSTEM for each in (public(path) if path in _MIXED else (path,)))

    def command(
        self, arguments: Sequence[str], *, read: Iterable[Path], write: Iterable[Path], directory: Path
    ) -> Sequence[str]:
        """The command that runs a tool of Tower's own, as Tower's own user but without its privileges."""
        shown = self.program(read=read, write=write, directory=directory, user=None)
        if shown is None:
            return arguments
        plan = {"parent": os.getpid(), "sandbox": shown.json()}
        return [sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(plan), *arguments]

    def attempt(
        self, template: Shown | None, *, own: Iterable[Path], temporary: Path, memory: int | None = None
    ) -> dict[str, Any] | None:
        """How a child of a template closes itself off: of what the template sees, only `own` is left."""
        if template is None:
            return None
        folders = _texts(own)
        covered = (*_TEMPORARY, *(f"{os.path.dirname(path)}/" for path in folders))
        return {
            "namespaces": self.mode.namespaces,
            "landlock": self.mode.landlock,
            "read": ["/"] if self.mode.namespaces else [*template.system, *template.read],
            "write": list(folders) if self.mode.namespaces else [*_DEVICES, *folders],
            "private": list(folders),
            "kept": [path for path in template.read if path.startswith(covered)],
            "temporary": None if _temporary(str(temporary)) else str(temporary),
            "memory": memory or in_memory(),
        }


@cache
def _exist(first: int, number: int) -> bool:
    """Whether so many users and groups from this one on exist in Tower's own user namespace."""
    return all(
        any(
            start <= first and first + number <= start + length
            for start, _, length in (map(int, line.split()) for line in Path(name).read_text().splitlines())
        )
        for name in ("/proc/self/uid_map", "/proc/self/gid_map")
    )


@cache
def public(root: str) -> tuple[str, ...]:
    """The largest folders and files at or below a path in which everybody may read everything."""
    try:
        mode = os.lstat(root).st_mode
    except OSError:
        return ()
    if not stat.S_ISDIR(mode):
        return (root,) if stat.S_ISREG(mode) and mode & stat.S_IROTH else ()
    if mode & (stat.S_IROTH | stat.S_IXOTH) != stat.S_IROTH | stat.S_IXOTH:
        return ()
    below = [(path, os.path.islink(path), public(path)) for path in _entries(root)]
    if all(link or found == (path,) for path, link, found in below):
        return (root,)
    return tuple(each for _, _, found in below for each in found)


def _entries(folder: str) -> list[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries)
    return []


@cache
def in_memory() -> int:
    """How many bytes a folder in memory takes of a process without a limit: a quarter, at most 2 GiB."""
    return min(_MOST_MEMORY, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)


def _temporary(path: str) -> bool:
    return path.startswith(_TEMPORARY)


def _texts(paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.abspath(path) for path in paths))


def choose(
    wanted: Wanted, *, hidden: tuple[Path, ...] = (), visible: tuple[Path, ...] = ()
) -> tuple[Isolation, str]:
    """The best that this machine can do, found by trying it, and why it is not better ("" for the best).

    Raises Precondition when isolation is required and a process would see the files, the processes or the
    temporary files of others, and when trying did not come to an end.
    """
    if wanted is Wanted.OFF:
        return Isolation(mode=Mode.NONE), "it was switched off"
    why = ""
    filtered = seccomp.available()
    for mode in (Mode.FULL, Mode.NAMESPACES, Mode.LANDLOCK):
        isolation = Isolation(mode=mode, filter=filtered, hidden=hidden, visible=visible)
        failure = attempt(isolation)
        if not failure:
            break
        why = why or failure
    else:
        isolation = Isolation(mode=Mode.NONE)
    if wanted is Wanted.REQUIRED and not isolation.mode.namespaces:
        raise Precondition(
            "This machine cannot isolate tasks from each other as it is required to.",
            hint="Allow unprivileged user namespaces here, or start with --isolation preferred.",
            cause=why,
        )
    return isolation, why


def attempt(isolation: Isolation) -> str:
    """Start a program that looks around, as a template would be, and a child of it; "" when all is right.

    Raises Precondition when it could not be started, or did not end in time.
    """
    with tempfile.TemporaryDirectory(prefix="tower-trial-") as name:
        folder = Path(name).resolve()
        secret, pool = folder / "secret", folder / "pool"
        secret.write_text("secret")
        own, other = pool / "own", pool / "other"
        for path in (pool, own, own / "tmp", other):
            path.mkdir()
        (other / "secret").write_text("secret")
        user = isolation.user()
        if user is not None:
            folder.chmod(0o711)
            try:
                for path in (pool, own, own / "tmp", other, other / "secret"):
                    os.chown(path, user, user)
            except OSError as error:  # root of a user namespace where nobody else exists
                return f"processes cannot be the user {user}: {error.strerror}"
        shown = isolation.program(
            read=[SANDBOX, SECCOMP, _TRIAL, *interpreter(Path(sys.executable))],
            write=[pool],
            directory=Path("/"),
            user=user,
            parent=True,
        )
        narrowed = isolation.attempt(shown, own=[own], temporary=own / "tmp")
        assert shown is not None
        plan = {"parent": os.getpid(), "die_with_parent": True, "sandbox": shown.json()}
        task = {"sandbox": str(SANDBOX_SCRIPT), "secret": str(secret), "plan": narrowed}
        task |= {"own": str(own), "other": str(other), "seccomp": str(SECCOMP) if isolation.filter else ""}
        python = os.path.realpath(sys.executable)
        command = [python, "-I", "-S", str(_LAUNCHER), json.dumps(plan)]
        command += [python, "-I", "-S", str(_TRIAL), json.dumps(task)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False, env={}
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            # this says nothing of what the machine could do: less isolation may not come of a busy moment
            raise Precondition(
                "How this machine keeps tasks apart could not be found out.",
                hint="Start again when it has memory and time to spare, or with --isolation off.",
                cause=str(error),
            ) from error
        if (done.returncode, done.stdout) == (0, "apart\n"):
            return ""
        return (done.stderr or done.stdout)[-500:] or f"the trial ended without a word ({done.returncode})"


def interpreter(python: Path) -> tuple[Path, ...]:
    """What an interpreter outside of any environment needs: its own file and its library."""
    prefix = Path(os.path.realpath(python)).parent.parent
    return (
        Path(os.path.realpath(python)),
        *(prefix / name for name in ("lib", "lib64") if (prefix / name).is_dir()),
    )

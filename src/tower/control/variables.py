"""Which environment variables whoever starts a run may choose for somebody else's code (T50).

A task may be run by people who may register none. They choose inputs and variables, and the code stays what
was deployed: its identity tokens name it, and its secrets are given to it. So a run sets no variable by
which the loader, the interpreter, its libraries or a program that the task starts find other code, other
settings, other servers, or other authorities to trust. The task's own declaration may.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from tower.errors import Invalid

_KINDS = re.compile(
    r"(_F|_U|LD|DYLD|GCONV|GLIBC|MALLOC|OPENSSL|GIT|BASH|ZSH|NODE|NPM|JAVA|JDK|JVM|PIP|UV|XDG|TORCHELASTIC|QT|GST|TCL|SPARK|SSH|KRB5)_.*"
    r"|_?(PYTHON|PYVENV|PERL|RUBY).*|FLYTE_(APPLE|CLUSTERED|ENABLE)_.*|.*_(CA_BUNDLE|CA_CERTS|CERT_FILE|CERT_DIR)"
    r"|.*_(CACHE_DIR|PROXY|proxy)|AWS_ENDPOINT_URL.*"
)
_NAMES = frozenset(
    {
        *("PATH", "HOME", "TMPDIR", "SHELL", "ENV", "IFS", "VIRTUAL_ENV", "CDPATH", "PROMPT_COMMAND", "PS4"),
        *("BROWSER", "EDITOR", "VISUAL", "PAGER", "MANPAGER", "LESSOPEN", "LESSCLOSE", "SUDO_ASKPASS"),
        *("SSLKEYLOGFILE", "CURL_HOME", "WGETRC", "NETRC", "AWS_CONFIG_FILE", "KUBECONFIG", "MPLBACKEND"),
        *("MPLCONFIGDIR", "LOCPATH", "NLSPATH", "HOSTALIASES", "RES_OPTIONS", "LOCALDOMAIN", "TZDIR"),
        *("_JAVA_OPTIONS", "CLASSPATH", "R_PROFILE", "R_HOME", "LUA_PATH", "LUA_CPATH", "LUA_INIT"),
        *("DOCKER_CONFIG", "DOCKER_HOST", "COVERAGE_PROCESS_START", "PDBHISTORY", "FLYTE_CA_FILE"),
        *("CC", "CXX", "HF_ENDPOINT"),
    }
)
_HARMLESS = frozenset(
    {
        *(
            "PYTHONUNBUFFERED",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONHASHSEED",
            "PYTHONFAULTHANDLER",
            "PYTHONUTF8",
        ),
        *("PYTHONASYNCIODEBUG", "PYTHONTRACEMALLOC", "PYTHONIOENCODING", "MALLOC_ARENA_MAX"),
        # what the official SDK sends with its runs
        "_F_USE_RUST_CONTROLLER",
    }
)
_IMPORT_PATH = "_F_SYS_PATH"
"""Of the official SDK: folders of the code bundle, by their names in it."""


def check(pairs: Iterable[tuple[str, str]]) -> None:
    """Raise Invalid for a variable that is the task's own to declare."""
    for name, value in pairs:
        if not free(name, value):
            raise Invalid(
                f"The environment variable {name[:100]} is not for a run to set.",
                hint="It can change what code runs: declare it in the task.",
            )


def free(name: str, value: str) -> bool:
    """Whether a run may set the variable."""
    if name == _IMPORT_PATH:
        return all(_in_bundle(entry) for entry in value.split(":"))
    return name in _HARMLESS or not (name in _NAMES or _KINDS.fullmatch(name))


def _in_bundle(entry: str) -> bool:
    """Whether a name is that of a folder of the bundle: Tower's own folder beside it begins with a dot."""
    path = PurePosixPath(entry)
    return not path.is_absolute() and not any(part.startswith(".") for part in path.parts)

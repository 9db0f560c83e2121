"""An app with a command of its own and secrets: they are put in their places, then the command takes over.

`python -I -m flyte.runtime.command PROGRAM ARGUMENT...`, in the environment and the directory of the app. The
process stays the same one, so what was asked for is in its environment and in no other process's. It is
isolated from the files of the app, of which none runs before the command does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flyte.errors import FlyteError
from flyte.runtime import secrets

EXIT_USAGE = 2
EXIT_CANNOT_START = 126


def main(words: list[str]) -> int:
    """Become the program. Answers an exit status, with a sentence on standard error, when that fails."""
    if not words:
        return _refuse("PROGRAM ARGUMENT... is missing: this is started by Tower.", EXIT_USAGE)
    try:
        secrets.enter(os.environ, directory=Path.cwd())
        os.execve(words[0], words, os.environ)  # noqa: S606  (a list of arguments, no shell)
    except FlyteError as error:
        return _refuse(str(error), EXIT_USAGE)
    except OSError as error:
        return _refuse(f"cannot start {os.path.basename(words[0])}: {error.strerror}", EXIT_CANNOT_START)


def _refuse(reason: str, status: int) -> int:
    print(f"flyte.runtime.command: {reason}", file=sys.stderr, flush=True)  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run as a script by `isolation`, as a template would be: is it kept to itself, and its child too?"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from typing import Any


def main() -> None:
    """Say `apart`, or what can be seen that should not be."""
    task: dict[str, Any] = json.loads(sys.argv[1])
    sys.dont_write_bytecode = True
    sandbox = load(task["sandbox"])
    plan = task["plan"]
    if task["seccomp"]:
        load(task["seccomp"]).check()
    look(task["secret"], alone=plan["namespaces"])
    sys.stdout.flush()
    pid = sandbox.fork() if plan["namespaces"] else os.fork()
    if pid == 0:
        code = 1
        try:
            if plan["namespaces"]:
                sandbox.first()
            sandbox.close(plan)
            look(task["secret"], alone=plan["namespaces"])
            look(task["other"] + "/secret", alone=plan["namespaces"])
            if not os.access(task["own"], os.W_OK):
                raise OSError("its own folder cannot be written")
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if status == 0:
        sys.stdout.write("apart\n")
    sys.exit(status != 0)


def load(path: str) -> Any:
    """A script, as a module."""
    name = os.path.basename(path.removesuffix("/__init__.py")).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def look(secret: str, *, alone: bool) -> None:
    """Raise OSError when a file of somebody else can be read, or a process of somebody else be seen."""
    try:
        with open(secret, encoding="utf-8") as file:
            file.read()
    except OSError:
        pass
    else:
        raise OSError("the files of others can be read")
    seen = [name for name in os.listdir("/proc") if name.isdigit()]
    if alone and (len(seen) > 2 or os.getpid() > 2):
        raise OSError("the processes of others can be seen")


if __name__ == "__main__":
    main()

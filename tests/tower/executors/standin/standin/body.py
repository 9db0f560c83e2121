"""What the stand-in runtime does with a start message: call a function of a module with the directory."""

import importlib
import os
import sys


def run(message, bundle):
    os.environ.clear()
    os.environ.update(message["env"])
    os.chdir(message["directory"])
    if bundle and bundle not in sys.path:
        sys.path.insert(0, bundle)
    code = 0
    try:
        getattr(importlib.import_module(message["module"]), message["task"])(message)
    except SystemExit as error:
        code = error.code or 0
    except MemoryError:
        code = 77
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

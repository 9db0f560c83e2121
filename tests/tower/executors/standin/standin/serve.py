"""An app: calls the function of the module; it does what it likes with its socket."""

import argparse
import importlib
import sys

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--module")
    parser.add_argument("--app")
    parser.add_argument("--bundle")
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.bundle)
    getattr(importlib.import_module(arguments.module), arguments.app)()

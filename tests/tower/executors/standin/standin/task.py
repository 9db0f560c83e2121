"""The spawned form: the start message on standard input."""

import json
import sys

from standin.body import run

if __name__ == "__main__":
    message = json.load(sys.stdin)
    run(message, message["bundle"])

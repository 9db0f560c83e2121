"""Coverage-guided fuzzing with atheris: `python -m tests.fuzz [TARGET ...]`, or `make fuzz`.

Each target runs in a process of its own, `FUZZ_SECONDS` (60) long; what is found is left in `.cache/fuzz`.
Atheris is no part of the development environment: `make fuzz` installs it from the lock file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(".cache/fuzz")


def one(name: str, options: list[str]) -> None:
    """Fuzz one target in this process; does not return."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed. Run: make fuzz")
    with atheris.instrument_imports(include=["tower", "joserfc", "tarfile", "gzip"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([name, *options], TARGETS[name])
    atheris.Fuzz()


def main(names: list[str]) -> int:
    """Fuzz these targets, or all, one after the other; 1 when something was found."""
    from tests.fuzz.targets import TARGETS, seeds

    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        print(f"There is no target {unknown[0]}. There are: {', '.join(TARGETS)}.", file=sys.stderr)
        return 2
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    failed = []
    for name in names or TARGETS:
        corpus = FOLDER / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds(name)):
            (corpus / f"seed{number}").write_bytes(seed)
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, str(corpus)]
        command += [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]
        command += [f"-artifact_prefix={FOLDER}/{name}-"]
        print(f"== {name}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"found something in: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3:])
    sys.exit(main(sys.argv[1:]))

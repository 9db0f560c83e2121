"""The seed documents: found beside the checkout, or the suite is skipped with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "seeds"
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def document(prefix: str) -> str:
    """The text of the seed whose file name starts with `prefix`."""
    found = sorted(FOLDER.glob(f"{prefix}*.txt"))
    if not found:
        pytest.skip(f"the seed documents are not beside this checkout ({FOLDER.name}/{prefix}*)")
    return found[0].read_text()


def complete_example() -> str:
    """S0's complete webhook, exactly as it stands."""
    text = document("000_")
    section = text[text.index("## Complete example") :]
    found = FENCE.search(section)
    assert found is not None
    return found.group(1)


def webhook(endpoint: str) -> str:
    """S0's complete webhook with the endpoint value changed and nothing else."""
    original = complete_example()
    value = '"your-endpoint.hosted.unionai.cloud"'
    assert original.count(value) == 1
    return original.replace(value, f'"{endpoint}"')

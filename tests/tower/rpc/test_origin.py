"""The URL that answers name: the caller's own way here, never a foreign place."""

from __future__ import annotations

import pytest

from tower.rpc.caller import Origin


@pytest.mark.parametrize(
    ("listens_on", "host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1:8080", "https://127.0.0.1:8080"),
        ("127.0.0.1", "localhost:9999", "https://localhost:9999"),  # a forwarded port
        ("127.0.0.1", "[::1]:8080", "https://[::1]:8080"),
        ("127.0.0.1", "evil.example", "https://127.0.0.1:8080"),
        ("127.0.0.1", "evil.example#127.0.0.1", "https://127.0.0.1:8080"),
        ("127.0.0.1", "127.0.0.1@evil.example", "https://127.0.0.1:8080"),
        ("127.0.0.1", "localhost.evil.example:80", "https://127.0.0.1:8080"),
        ("127.0.0.1", "127.0.0.1:999999", "https://127.0.0.1:8080"),
        ("127.0.0.1", "", "https://127.0.0.1:8080"),
        ("tower.example", "TOWER.example", "https://tower.example"),
        ("tower.example", "other.example", "https://tower.example:8080"),
        ("::1", "evil.example", "https://[::1]:8080"),
        ("0.0.0.0", "tower.lan:8080", "https://tower.lan:8080"),
        ("0.0.0.0", "", "https://127.0.0.1:8080"),
        ("0.0.0.0", "a/b", "https://127.0.0.1:8080"),
    ],
)
def test_base_url(listens_on: str, host: str, expected: str) -> None:
    assert Origin("https", listens_on, 8080).base_url(host) == expected

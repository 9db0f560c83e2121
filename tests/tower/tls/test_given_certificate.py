"""`tower up --tls --cert --key`: the operator's own certificate is the one that is shown."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import httpx
import pytest
from tests.tower_process import Tower

from tower import tls


def test_a_given_certificate_is_used_and_no_authority_is_made(tmp_path: Path) -> None:
    given = tls.local(tmp_path / "own", names=("127.0.0.1",), now=time.time())
    options = ("--tls", "--cert", str(given.chain), "--key", str(given.key))
    with Tower.started(tmp_path / "home", *options) as running:
        assert running.url.startswith("https://127.0.0.1:")
        assert not (running.home / "tls").exists()
        context = ssl.create_default_context(cafile=given.authority)
        with httpx.Client(verify=context, trust_env=False, timeout=60.0) as trusting:
            assert trusting.get(f"{running.url}/healthz").status_code == 200
        with httpx.Client(trust_env=False, timeout=60.0) as stranger, pytest.raises(httpx.ConnectError):
            stranger.get(f"{running.url}/healthz")

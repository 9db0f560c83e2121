"""Signing keys rotate in a running Tower while people and programs call: no valid request is refused."""

from __future__ import annotations

import threading

import httpx
import pytest
from tests.tower_process import Tower

pytestmark = pytest.mark.xdist_group("login")


def test_rotation_under_load_refuses_nobody(tower: Tower) -> None:
    _, client, secret = tower.new_key("rotation-robot", "carol").split("_", 2)
    stop, refusals, calls, kids = threading.Event(), [], [0], set()

    def work() -> None:
        fields = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        with httpx.Client(base_url=tower.url, timeout=120.0, trust_env=False) as http:
            tokens: list[str] = []
            while not stop.is_set():
                answer = http.post("/oauth2/token", data=fields)
                if answer.status_code != 200:
                    refusals.append(answer.text)
                    continue
                tokens.append(answer.json()["access_token"])
                for token in tokens[-5:] + tokens[:2]:  # of this key and of those before it
                    who = http.get("/api/v1/whoami", headers={"authorization": f"Bearer {token}"})
                    calls[0] += 1
                    if who.status_code != 200:
                        refusals.append(who.text)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            before = calls[0]
            kids.add(tower.tower("keys", "rotate-signing").out.split()[-1])
            while calls[0] < before + 20 and not refusals:
                stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert refusals == []
    shown = httpx.get(f"{tower.url}/oauth2/jwks", trust_env=False, timeout=60.0).json()["keys"]
    assert kids <= {key["kid"] for key in shown}
    assert len(shown) >= 5

"""Apps and tasks go on as their callers while the signing keys rotate: nobody refused, nobody mixed up."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.threats.conftest import Lab

pytestmark = pytest.mark.xdist_group("threats")

ASKS = """
    from flyte import remote


    async def main(**_):
        return (await remote.User.get.aio()).subject()
"""
CALLERS = ("alice", "bob", "mallory")
ROTATIONS, BETWEEN = 4, 12


def test_rotation_refuses_no_call_through_an_app_and_no_task(lab: Lab) -> None:
    stop, calls = threading.Event(), [0]
    wrong: list[Any] = []

    def through_the_app(who: str) -> None:
        while not stop.is_set():
            try:
                found = lab.inside_app(who, ASKS)
            except AssertionError as refused:
                found = refused
            if found != who:
                wrong.append((who, found))
            calls[0] += 1

    threads = [threading.Thread(target=through_the_app, args=(who,)) for who in CALLERS]
    for thread in threads:
        thread.start()
    try:
        for _ in range(ROTATIONS):
            before = calls[0]
            lab.tower.tower("keys", "rotate-signing")
            assert lab.inside_task("alice", ASKS) == "alice"
            while calls[0] < before + BETWEEN and not wrong:
                stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert calls[0] >= ROTATIONS * BETWEEN
